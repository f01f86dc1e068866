//! Several sequences at a time: what they share, and what each costs.
//!
//! Non-expert weights are read once for all of them. Experts are read once for all sequences that
//! chose them: of `n` experts among which each of `u` sequences chooses `k`, `n (1 - (1 - k /
//! n)^u)` are read.

use super::{Prediction, RoutingSkew, What};
use crate::classes;
use crate::model::ModelFacts;

impl Prediction {
    /// The same prediction for steps of `users` sequences.
    pub(super) fn for_users(mut self, users: u64, model: &ModelFacts, skew: RoutingSkew) -> Self {
        if users <= 1 {
            return self;
        }
        let times = distinct(users, model, skew);
        let routed = model.routed_per_token as f64;
        for part in &mut self.parts {
            let grown = match part.what {
                What::Experts | What::Drive => times,
                What::Vram => {
                    let experts = (part.bytes as f64 - model.dense_per_token as f64).max(0.0);
                    1.0 + (times - 1.0) * experts.min(routed) / (part.bytes as f64).max(1.0)
                }
                What::Dense | What::Layers | What::Network => 1.0,
            };
            part.seconds *= grown;
            part.bytes = (part.bytes as f64 * grown) as u64;
            if grown > 1.0 {
                part.formula += &format!(", x {grown:.1} for {users} sequences");
            }
        }
        self.users = users;
        self.attention_seconds *= users as f64;
        self.compute_seconds = self.prompt_seconds * users as f64;
        self
    }
}

/// Experts that `users` sequences read, as a multiple of those that one reads.
fn distinct(users: u64, model: &ModelFacts, skew: RoutingSkew) -> f64 {
    let used = model.experts_used as f64;
    let even = match skew {
        RoutingSkew::Measured => (model.experts as f64 * classes::EXPERTS_EVEN).max(used),
        RoutingSkew::Uniform => model.experts as f64,
    };
    if used == 0.0 {
        return 1.0;
    }
    even * (1.0 - (1.0 - used / even).powi(users.min(1 << 20) as i32)) / used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn eight_sequences_read_about_49_experts_of_256() {
        let model = catalogue::find("q4_k_m")[0].model();
        let experts = |users, skew| distinct(users, &model, skew) * 8.0;
        assert!((experts(8, RoutingSkew::Measured) - 49.0).abs() < 1.0);
        assert!((experts(8, RoutingSkew::Uniform) - 57.4).abs() < 0.5);
        assert_eq!(experts(1, RoutingSkew::Measured).round(), 8.0);
    }
}
