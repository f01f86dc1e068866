//! Any bytes are a trace of routing or an error, and every token of a trace has its experts.

#![no_main]

use cachalot_store::trace::Trace;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(trace) = Trace::read(bytes) {
        let experts = usize::from(trace.header.experts);
        for token in trace.tokens() {
            assert_eq!(token.len(), trace.header.picks());
            assert!(token.iter().all(|&expert| usize::from(expert) < experts));
        }
    }
});
