//! The devices that this program was built with. Another one is a crate that implements
//! [`cachalot_engine::layout::Device`], and a line here.

use cachalot_engine::layout::{Device, Processor};

/// All of them; what can compute here is found when a model is loaded.
pub(crate) static DEVICES: &[&dyn Device] = &[&Processor];
