//! Any bytes that are a GGUF are an error or a model that computes. The corpus holds tiny models.

#![no_main]

use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::{Cpu, Tier};
use cachalot_model::{Batch, Model, ModelOptions, Phase, Segment, Wanted};
use cachalot_store::Weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(weights) = Weights::from_bytes(bytes.to_vec()) else { return };
    let cpu = Arc::new(Cpu::new(1, Tier::SCALAR));
    let Ok(mut model) = Model::load(&weights, &cpu, &ModelOptions::default()) else { return };
    if model.reserve_pages(1, KvType::F16).is_err() {
        return;
    }
    let segment = Segment {
        seq: 0,
        start: 0,
        rows: 0..2,
        pages: &[0],
        phase: Phase::Prefill,
        want: Wanted::Last,
    };
    let batch = Batch { tokens: &[0, 0], segments: &[segment] };
    if let Ok(output) = model.forward(&batch, &mut |_| true) {
        assert!(output.has_failed(0) || !output.logits(0).is_empty());
    }
});
