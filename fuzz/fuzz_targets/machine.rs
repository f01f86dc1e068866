//! Descriptions of machines and machine JSON: any text gives a machine or an error, and planning
//! on it
//! gives an answer or an error.
#![no_main]

use cachalot_plan::{Constraints, Machine, RuntimeProfile, catalogue, describe, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let described = describe::machine(text).ok();
    let read = serde_json::from_str::<Machine>(text).ok().filter(|machine| machine.check().is_ok());
    for machine in described.into_iter().chain(read) {
        for file in catalogue::find("UD-IQ1_S") {
            let _ =
                plan(&machine, &file.model(), Constraints::default(), RuntimeProfile::default());
        }
    }
});
