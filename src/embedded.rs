//! calf, the model embedded in the program: everything can be tried without a download.

use cachalot_engine::layout::Source;

/// GGUF aligns tensors relative to the start of the file, so the file itself must be aligned too.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

static CALF: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/calf.gguf"));

/// calf as a source of weights.
pub(crate) const SOURCE: Source = Source::Embedded(&CALF.0);

/// Printed when a chat with calf starts.
pub(crate) const INTRODUCTION: &str = "\
This is calf, a very small model for trying things out: it adds, multiplies,
counts letters, sorts and compares numbers, spells backwards, and is often
wrong. It was trained on single questions: use /clear between them.
To run a real model: cachalot run FILE.gguf";
