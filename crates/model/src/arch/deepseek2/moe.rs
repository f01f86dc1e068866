//! A layer's mixture of experts: router, routed experts, shared expert.

use cachalot_kernels::{Activations, Cpu};

use super::config::Config;
use super::router::{Router, RouterScratch};
use crate::bind::Binder;
use crate::mlp::MlpWeights;
use crate::rows::norm_rows;
use crate::{Error, Experts, Routing};

/// Tokens up to which the next layer's experts are guessed, or those at hand preferred: more want nearly
/// all of them.
const FEW_TOKENS: usize = 4;

/// Router and shared expert of one layer; the routed ones are in an [`Experts`].
#[derive(Debug)]
pub(crate) struct Moe {
    pub(crate) router: Router,
    shared: Option<MlpWeights>,
}

/// What prefetches a layer's experts before its turn.
#[derive(Clone, Copy)]
pub(crate) struct NextRouter<'a> {
    pub(crate) norm: &'a [f32], // [hidden]
    pub(crate) epsilon: f32,
    pub(crate) router: &'a Router,
}

/// What a layer of experts works with.
#[derive(Debug, Default)]
pub(crate) struct MoeScratch {
    router: RouterScratch,
    routing: Routing,
    prefetch_x: Activations, // [tokens, hidden]
    prefetches: Routing,
}

impl Moe {
    pub(crate) fn bind(binder: Binder<'_>, layer: usize, config: &Config) -> Result<Self, Error> {
        let Some(experts) = &config.experts else { return Err(Error::NoExperts) };
        let router = Router::bind(binder, layer, config.hidden, experts)?;
        let width = experts.width * experts.shared;
        let name = |part: &str| format!("blk.{layer}.ffn_{part}_shexp.weight");
        let shared = (width > 0)
            .then(|| MlpWeights::bind(binder, name, config.hidden, width))
            .transpose()?;
        Ok(Self { router, shared })
    }

    /// Adds to `hidden` `[tokens, hidden]` what the experts make of `x`, the same rows normalized.
    /// `next` prefetches the next layer's experts.
    pub(crate) fn forward(
        &self,
        cpu: &Cpu,
        (layer, next): (usize, Option<NextRouter<'_>>),
        x: &mut Activations,
        experts: &mut dyn Experts,
        scratch: &mut MoeScratch,
        hidden: &mut [f32],
    ) -> Result<(), Error> {
        let is_few = x.rows() <= FEW_TOKENS;
        let is_resident = |expert: usize| experts.is_resident(layer, expert);
        let preferred: Option<&dyn Fn(usize) -> bool> =
            if is_few && experts.is_cache_aware() { Some(&is_resident) } else { None };
        self.router.choose(cpu, x, preferred, &mut scratch.router, &mut scratch.routing);
        experts.request(layer, &scratch.routing);
        if let Some(NextRouter { norm, epsilon, router }) = next
            && experts.wants_prefetch()
            && is_few
        {
            norm_rows(hidden, norm, epsilon, &mut scratch.prefetch_x);
            let MoeScratch { router: of_router, prefetch_x, prefetches, .. } = scratch;
            router.choose(cpu, prefetch_x, None, of_router, prefetches);
            experts.prefetch(layer + 1, &scratch.prefetches);
        }
        let shared = self.shared.as_ref().map(|shared| shared.mlp(x.rows()));
        experts.apply(cpu, layer, x, &scratch.routing, shared, hidden)
    }
}
