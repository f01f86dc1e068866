//! Bodies of requests in every dialect of the server: an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cachalot_server::read_bodies(bytes));
