//! calf, the model that is part of the program: everything can be tried without a download.

use cachalot_engine::Source;

/// A GGUF aligns its tensors within the file; the file itself must be aligned as well.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

static CALF: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/calf.gguf"));

/// Where calf comes from.
pub(crate) const SOURCE: Source = Source::Embedded(&CALF.0);

/// What calf is, for the beginning of a chat.
pub(crate) const INTRODUCTION: &str = "\
This is calf, a very small model for trying things out: it adds, multiplies,
counts letters, sorts and compares numbers, spells backwards, and is often
wrong. Each question is its own: /clear before the next one.
A real model: cachalot run FILE.gguf";
