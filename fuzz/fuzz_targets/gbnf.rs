//! Any text is a grammar or an error, in bounded time and memory.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let _either = cachalot_engine::request::fuzz_gbnf(source);
});
