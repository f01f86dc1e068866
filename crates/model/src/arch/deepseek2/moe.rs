//! A layer's mixture of experts: router, routed experts, shared expert.

use cachalot_kernels::{Cpu, Inputs};

use super::config::Config;
use super::dense::Dense;
use super::norm_rows;
use super::router::{Router, RouterScratch};
use crate::bind::Binder;
use crate::{Error, Experts, Picks};

/// Tokens up to which the next layer's experts are guessed, or those at hand preferred: more want nearly
/// all of them.
const FEW_TOKENS: usize = 4;

/// Router and shared expert of one layer; the routed ones are in an [`Experts`].
#[derive(Debug)]
pub(crate) struct Moe {
    pub(crate) router: Router,
    shared: Option<Dense>,
}

/// What guesses a layer's experts before its turn.
#[derive(Clone, Copy)]
pub(crate) struct Guesser<'a> {
    pub(crate) norm: &'a [f32], // [hidden]
    pub(crate) epsilon: f32,
    pub(crate) router: &'a Router,
}

/// What a layer of experts works with.
#[derive(Debug, Default)]
pub(crate) struct MoeScratch {
    router: RouterScratch,
    picks: Picks,
    guess_x: Inputs, // [tokens, hidden]
    guesses: Picks,
}

impl Moe {
    pub(crate) fn bind(binder: Binder<'_>, layer: usize, config: &Config) -> Result<Self, Error> {
        let Some(experts) = &config.experts else { return Err(Error::NoExperts) };
        let router = Router::bind(binder, layer, config.hidden, experts)?;
        let width = experts.width * experts.shared;
        let shared = (width > 0)
            .then(|| Dense::bind(binder, (layer, "_shexp"), config.hidden, width))
            .transpose()?;
        Ok(Self { router, shared })
    }

    /// Adds to `hidden` `[tokens, hidden]` what the experts make of `x`, the same rows normalized.
    /// `next` guesses the next layer's experts.
    pub(crate) fn forward(
        &self,
        cpu: &Cpu,
        (layer, next): (usize, Option<Guesser<'_>>),
        x: &mut Inputs,
        experts: &mut dyn Experts,
        scratch: &mut MoeScratch,
        hidden: &mut [f32],
    ) -> Result<(), Error> {
        let is_few = x.rows() <= FEW_TOKENS;
        let at_hand = |expert: usize| experts.is_at_hand(layer, expert);
        let preferred: Option<&dyn Fn(usize) -> bool> =
            if is_few && experts.wants_preference() { Some(&at_hand) } else { None };
        self.router.choose(cpu, x, preferred, &mut scratch.router, &mut scratch.picks);
        experts.request(layer, &scratch.picks);
        if let Some(Guesser { norm, epsilon, router }) = next
            && experts.wants_hints()
            && is_few
        {
            norm_rows(hidden, norm, epsilon, &mut scratch.guess_x);
            let MoeScratch { router: of_router, guess_x, guesses, .. } = scratch;
            router.choose(cpu, guess_x, None, of_router, guesses);
            experts.hint(layer + 1, &scratch.guesses);
        }
        let shared = self.shared.as_ref().map(|shared| shared.mlp(x.rows()));
        experts.apply(cpu, layer, x, &scratch.picks, shared, hidden)
    }
}
