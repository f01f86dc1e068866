//! A limit to the bytes per second of all connections together.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Lets bytes pass at a rate, if there is one.
#[derive(Debug)]
pub(crate) struct Limit {
    rate: Option<f64>,
    /// When all that has passed is paid for.
    paid: Mutex<Instant>,
}

impl Limit {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let rate = rate.map(|rate| rate.max(1) as f64);
        Self { rate, paid: Mutex::new(Instant::now()) }
    }

    /// Waits until these bytes may pass.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *paid = (*paid).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate);
            *paid
        };
        tokio::time::sleep_until(until).await;
    }
}
