//! Memory modules by SMBIOS: the table that the firmware leaves, if one may read it.
//!
//! Linux shows it to root only, as a rule. Only structures of type 17 (memory device) are read:
//! DMTF DSP0134, 7.18. Any bytes give a result.

use std::collections::BTreeSet;

/// Where Linux has the table.
const TABLE: &str = "/sys/firmware/dmi/tables/DMI";
/// The type of a memory device.
const MEMORY_DEVICE: u8 = 17;
/// The type that ends the table.
const END: u8 = 127;
/// More channels than any machine has.
const CHANNELS_MAX: u32 = 64;

/// What the modules tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modules {
    /// Channels with a module in them.
    pub channels: Option<u32>,
    /// Millions of transfers per second, of the slowest one.
    pub speed_mts: Option<u32>,
}

/// Reads the table of this machine.
///
/// # Errors
/// If it cannot be read, or says nothing; the message says which.
pub fn read() -> Result<Modules, String> {
    let bytes = std::fs::read(TABLE).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "this system has no SMBIOS table".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            format!("{TABLE} may be read by root only: `sudo cachalot plan --machine` sees them")
        }
        _ => format!("{TABLE}: {error}"),
    })?;
    let modules = parse(&bytes);
    if modules.channels.is_none() {
        return Err(
            "the SMBIOS table names no memory modules, as in most virtual machines".to_owned()
        );
    }
    Ok(modules)
}

/// Reads a table of structures, each with its type, its length, and strings after it.
pub fn parse(mut bytes: &[u8]) -> Modules {
    let mut channels = BTreeSet::new();
    let mut modules = 0;
    let mut speed: Option<u32> = None;
    while let [kind, length, ..] = *bytes {
        let length = usize::from(length);
        if kind == END || length < 4 || bytes.len() < length {
            break;
        }
        let (fields, rest) = bytes.split_at(length);
        // Strings end with two zeros, even if there are none.
        let strings_end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap_or(rest.len());
        let strings = &rest[..strings_end];
        bytes = rest.get(strings_end + 2..).unwrap_or_default();
        let word = |at: usize| Some(u16::from_le_bytes(fields.get(at..at + 2)?.try_into().ok()?));
        // An empty slot has the size 0, one of unknown content 0xFFFF.
        if kind != MEMORY_DEVICE || !word(0x0C).is_some_and(|size| size != 0 && size != 0xFFFF) {
            continue;
        }
        modules += 1;
        let string = |at: usize| text(strings, *fields.get(at)?);
        let (device, bank) = (string(0x10).unwrap_or_default(), string(0x11).unwrap_or_default());
        channels.insert(channel(&device, &bank));
        // The speed it runs at, or if that is not said the speed it is made for.
        let mts = [0x20, 0x15].into_iter().filter_map(word).find(|mts| *mts != 0 && *mts != 0xFFFF);
        speed =
            mts.map(u32::from).map_or(speed, |mts| Some(speed.map_or(mts, |least| least.min(mts))));
    }
    let count = channels.len().min(modules) as u32;
    Modules { channels: Some(count).filter(|n| (1..=CHANNELS_MAX).contains(n)), speed_mts: speed }
}

/// String number `index`, from 1, of those after a structure.
fn text(strings: &[u8], index: u8) -> Option<String> {
    let index = usize::from(index).checked_sub(1)?;
    let string = strings.split(|byte| *byte == 0).nth(index)?;
    Some(String::from_utf8_lossy(string).into_owned())
}

/// What two modules of one channel have in common: socket and channel, of labels such as
/// `P0 CHANNEL A` / `DIMM 1`, `CPU1_DIMM_A2`, `ChannelB-DIMM0`, `DIMM_C1`.
fn channel(device: &str, bank: &str) -> String {
    let both = format!("{} {}", bank.to_uppercase(), device.to_uppercase());
    if both.contains("CHANNEL") {
        // All but the number of the slot in its channel.
        let without_slot = both.split("DIMM").next().unwrap_or(&both).to_owned();
        return without_slot.trim_end_matches(['-', '_', ' ']).to_owned();
    }
    both.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A structure of type 17 as firmware writes it.
    fn module(size: u16, mts: u16, device: &str, bank: &str) -> Vec<u8> {
        let mut fields = [0; 0x22];
        (fields[0], fields[1]) = (MEMORY_DEVICE, 0x22);
        fields[0x0C..0x0E].copy_from_slice(&size.to_le_bytes());
        (fields[0x10], fields[0x11]) = (1, 2);
        fields[0x15..0x17].copy_from_slice(&6400u16.to_le_bytes());
        fields[0x20..0x22].copy_from_slice(&mts.to_le_bytes());
        [&fields[..], device.as_bytes(), &[0], bank.as_bytes(), &[0, 0]].concat()
    }

    #[test]
    fn modules_of_one_channel_count_once_and_empty_slots_not_at_all() {
        let table = [
            vec![0, 4, 0, 0, 0, 0], // another structure, without strings
            module(16384, 4800, "DIMM 0", "P0 CHANNEL A"),
            module(16384, 4800, "DIMM 1", "P0 CHANNEL A"),
            module(16384, 4400, "DIMM 0", "P0 CHANNEL B"),
            module(0, 4800, "DIMM 1", "P0 CHANNEL B"),
            module(16384, 4800, "DIMM 0", "P1 CHANNEL A"),
            vec![END, 4, 0, 0, 0, 0],
        ];
        assert_eq!(parse(&table.concat()), Modules { channels: Some(3), speed_mts: Some(4400) });
    }

    #[test]
    fn labels_of_many_boards_are_understood() {
        let channels = |labels: &[(&str, &str)]| {
            let table: Vec<u8> =
                labels.iter().flat_map(|(device, bank)| module(8192, 3200, device, bank)).collect();
            parse(&table).channels
        };
        let board = [("DIMM_A1", "BANK 0"), ("DIMM_B1", "BANK 1"), ("DIMM_C1", "BANK 2")];
        assert_eq!(channels(&board), Some(3));
        let desktop = [("ChannelA-DIMM0", "BANK 0"), ("ChannelB-DIMM0", "BANK 2")];
        assert_eq!(channels(&desktop), Some(2));
        assert_eq!(channels(&[]), None);
    }

    #[test]
    fn a_speed_not_said_is_the_one_it_is_made_for() {
        assert_eq!(parse(&module(16384, 0, "A", "B")).speed_mts, Some(6400));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let modules = parse(&bytes);
            prop_assert!(modules.channels.is_none_or(|count| count <= CHANNELS_MAX));
        }
    }
}
