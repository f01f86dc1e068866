//! How many different experts the batches of decoding use: what bounds the gain of batching.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cachalot_kernels::Activations;
use cachalot_model::{Error, ExpertCall, Experts, FailedRows, Phase, Residency, Routing};

/// Counts of experts, over the layers of decoding batches.
#[derive(Debug, Default)]
pub struct ExpertUse {
    distinct: AtomicU64,
    layers: AtomicU64,
}

impl ExpertUse {
    /// Different experts in a layer of a batch, on average, since the last call; `None` if no batch
    /// was decoded.
    pub fn take_distinct(&self) -> Option<f64> {
        let distinct = self.distinct.swap(0, Ordering::Relaxed);
        let layers = self.layers.swap(0, Ordering::Relaxed);
        (layers > 0).then(|| distinct as f64 / layers as f64)
    }
}

/// Experts whose use is counted.
pub(crate) struct Counted {
    pub(crate) inner: Box<dyn Experts>,
    pub(crate) used: Arc<ExpertUse>,
}

impl Experts for Counted {
    fn begin(&mut self, call: &ExpertCall<'_>, x: &Activations) -> Result<(), Error> {
        if call.precision.phase == Phase::Decode {
            self.used.distinct.fetch_add(call.routing.batches().count() as u64, Ordering::Relaxed);
            self.used.layers.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.begin(call, x)
    }

    fn finish(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        self.inner.finish(call, x, out)
    }

    fn includes_shared(&self) -> bool {
        self.inner.includes_shared()
    }

    fn prefetch(&mut self, layer: usize, guess: &Routing) {
        self.inner.prefetch(layer, guess);
    }

    fn residency(&self) -> Option<&dyn Residency> {
        self.inner.residency()
    }
}
