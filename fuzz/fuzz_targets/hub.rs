//! What services and drives say of models: manifests, listings, hashes of ranges, plans and
//! journals of downloads, and names. Any bytes are an error or something sound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cachalot_hub::fuzzing::read_all(bytes));
