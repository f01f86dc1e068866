//! What the name of a processor says: memory channels and speed of its platform, chiplets, and the
//! relevant instructions.
//!
//! Names come from `/proc/cpuinfo`, from people and from forum posts, so patterns are searched for
//! anywhere in the name, the most specific first. Figures are the makers' data sheets
//! (ark.intel.com, amd.com/specifications): the fastest memory that a fully populated socket
//! supports.

mod models;

use serde::Serialize;

use self::models::MODELS;

/// What computing costs on a core, in order of ability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Instructions {
    /// 128-bit vectors: ARM.
    Neon,
    /// 256-bit vectors.
    Avx2,
    /// 512-bit vectors without dot products of bytes.
    Avx512,
    /// 256-bit vectors with dot products of bytes.
    AvxVnni,
    /// 512-bit vectors with dot products of bytes.
    Avx512Vnni,
}

/// What processors of a kind have in common.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Platform {
    /// What the family is called.
    pub name: &'static str,
    /// Memory channels of a socket.
    pub channels: u32,
    /// Millions of transfers per second and channel.
    pub speed_mts: u32,
    /// The vectors of its cores.
    pub instructions: Instructions,
    /// Bytes per second that one chiplet of cores can read, where chiplets limit it.
    pub chiplet_rate: Option<f64>,
}

const fn platform(
    name: &'static str,
    channels: u32,
    speed_mts: u32,
    instructions: Instructions,
) -> Platform {
    Platform { name, channels, speed_mts, instructions, chiplet_rate: None }
}

const fn chiplets(name: &'static str, channels: u32, speed_mts: u32, zen: u32) -> Platform {
    let (instructions, rate) = match zen {
        // A Zen 2 or 3 chiplet reads 32 bytes per cycle of a fabric of 1.1 to 1.6 GHz, Zen 4 as
        // much at 1.8 GHz and up; the chiplets of EPYC 9005 have two such links.
        2 | 3 => (Avx2, 40e9),
        4 => (Avx512Vnni, 64e9),
        _ => (Avx512Vnni, 85e9),
    };
    Platform { name, channels, speed_mts, instructions, chiplet_rate: Some(rate) }
}

use Instructions::{Avx2, Avx512, Avx512Vnni, AvxVnni, Neon};

/// Generations of Xeon Scalable, which the second digit of its number tells.
const XEON: [Platform; 5] = [
    platform("Xeon, 1st generation", 6, 2666, Avx512),
    platform("Xeon, 2nd generation", 6, 2933, Avx512Vnni),
    platform("Xeon, 3rd generation", 8, 3200, Avx512Vnni),
    platform("Xeon, 4th generation", 8, 4800, Avx512Vnni),
    platform("Xeon, 5th generation", 8, 5600, Avx512Vnni),
];

/// Xeon Scalable by its number, with or without Gold or Platinum: `8480+`, `6430`, `8375c`.
fn xeon(text: &str) -> Option<&'static Platform> {
    let words = ["xeon", "gold", "platinum", "silver", "bronze", "max"];
    if !text.split(' ').any(|word| words.contains(&word)) {
        return None;
    }
    text.split(' ').find_map(|word| {
        let digits: Vec<u32> = word.chars().map_while(|c| c.to_digit(10)).collect();
        let [3..=6 | 8 | 9, generation @ 1..=5, _, _] = digits[..] else { return None };
        // `6980P` is a Xeon 6.
        let is_xeon_6 = word[4..].starts_with('p') || word[4..].starts_with('e');
        (!is_xeon_6).then_some(&XEON[generation as usize - 1])
    })
}

/// Patterns and their platforms: the first that is found counts. `#` stands for a digit, `?` for a
/// digit or a letter: EPYCs made for one customer (7R13, 9V45, 7C13) end in the number of their
/// generation, too.
const PLATFORMS: &[(&[&str], Platform)] = &[
    (
        &["i9-7##0x", "i9-9##0x", "i9-109#0x", "i7-7##0x", "i7-9800x"],
        platform("Core X", 4, 2666, Avx512),
    ),
    (&["epyc 4??4", "epyc 4??5"], chiplets("EPYC 4004", 2, 5200, 4)),
    (&["epyc 8??4", "epyc 8??5"], chiplets("EPYC 8004", 6, 4800, 4)),
    (&["epyc 9??5", "9v45", "9b45", "turin"], chiplets("EPYC 9005", 12, 6000, 5)),
    (&["epyc 9??4", "9v33x", "genoa", "bergamo"], chiplets("EPYC 9004", 12, 4800, 4)),
    (&["epyc 7??3", "7v73x", "milan"], chiplets("EPYC 7003", 8, 3200, 3)),
    (&["epyc 7??2", "rome"], chiplets("EPYC 7002", 8, 3200, 2)),
    (&["epyc 7??1", "naples"], platform("EPYC 7001", 8, 2666, Avx2)),
    (&["99##wx"], chiplets("Threadripper PRO 9000", 8, 6400, 5)),
    (&["79##wx"], chiplets("Threadripper PRO 7000", 8, 5200, 4)),
    (&["59##wx"], chiplets("Threadripper PRO 5000", 8, 3200, 3)),
    (&["39##wx"], chiplets("Threadripper PRO 3000", 8, 3200, 2)),
    (&["threadripper 99##x", "9980x", "9970x", "9960x"], chiplets("Threadripper 9000", 4, 6400, 5)),
    (&["threadripper 79##x", "7980x", "7970x", "7960x"], chiplets("Threadripper 7000", 4, 5200, 4)),
    (&["threadripper 39##x", "3990x", "3970x", "3960x"], chiplets("Threadripper 3000", 4, 3200, 2)),
    (
        &["29##wx", "threadripper 29##x", "2950x", "2920x", "threadripper 19##x", "1950x", "1920x"],
        platform("Threadripper 1000 and 2000", 4, 2933, Avx2),
    ),
    (&["ai max", "strix halo"], platform("Ryzen AI Max", 4, 8000, Avx512Vnni)),
    (&["ryzen ai"], platform("Ryzen AI 300", 2, 7500, Avx512Vnni)),
    (
        &["ryzen # 9###", "ryzen 9###", "99#0x", "97#0x", "9800x"],
        chiplets("Ryzen 9000", 2, 5600, 4),
    ),
    (&["ryzen # 8###"], platform("Ryzen 8000", 2, 5600, Avx512Vnni)),
    (
        &["ryzen # 7###", "ryzen 7###", "79#0x", "77#0x", "7800x", "7600x"],
        chiplets("Ryzen 7000", 2, 5200, 4),
    ),
    (&["ryzen # 6###"], platform("Ryzen 6000", 2, 4800, Avx2)),
    (
        &["ryzen # 5###", "ryzen 5###", "59#0x", "5800x", "5700x", "5600x", "5700g", "5600g"],
        chiplets("Ryzen 5000", 2, 3200, 3),
    ),
    (&["ryzen # 4###"], platform("Ryzen 4000", 2, 3200, Avx2)),
    (
        &["ryzen # 3###", "ryzen 3###", "39#0x", "3700x", "3800x"],
        chiplets("Ryzen 3000", 2, 3200, 2),
    ),
    (&["ryzen # 2###", "ryzen # 1###"], platform("Ryzen 1000 and 2000", 2, 2666, Avx2)),
    (&["ampereone"], platform("AmpereOne", 8, 5200, Neon)),
    (&["altra"], platform("Ampere Altra", 8, 3200, Neon)),
    (&["graviton4"], platform("Graviton4", 12, 5600, Neon)),
    (&["graviton3"], platform("Graviton3", 8, 4800, Neon)),
    (&["axion", "neoverse-v2"], platform("Google Axion", 12, 5600, Neon)),
    // LPDDR5X of about 500 GB/s, by NVIDIA's data sheet of the Grace CPU.
    (&["grace", "gh200"], platform("Grace", 8, 8000, Neon)),
    (&["snapdragon x", "x1e-"], platform("Snapdragon X", 2, 8448, Neon)),
    // LPDDR5-5500 on 128 bits: 88 GB/s.
    (&["steam deck"], platform("Steam Deck", 2, 5500, Avx2)),
    (
        &["raspberry pi 5", "rpi 5", "rpi5", "cortex-a76", "bcm2712"],
        platform("Raspberry Pi 5", 1, 2133, Neon),
    ),
    (&["raspberry pi 4", "rpi 4", "rpi4"], platform("Raspberry Pi 4", 1, 1600, Neon)),
    (&["rk3588"], platform("RK3588", 1, 4224, Neon)),
    (&["67##p", "65##p"], platform("Xeon 6 with 8 channels", 8, 6400, Avx512Vnni)),
    (&["67##e"], platform("Xeon 6 with efficient cores", 8, 6400, AvxVnni)),
    (&["69##e"], platform("Xeon 6 with 12 channels and efficient cores", 12, 6400, AvxVnni)),
    (&["69##p", "granite", "xeon 6 "], platform("Xeon 6 with 12 channels", 12, 6400, Avx512Vnni)),
    (&["emerald"], XEON[4]),
    (&["sapphire", "qyfs", "w9-3###", "w7-3###", "w5-3###", "w790"], XEON[3]),
    (&["w7-2###", "w5-2###", "w3-2###"], platform("Xeon W-2400", 4, 4800, Avx512Vnni)),
    (&["w-33##", "ice lake"], XEON[2]),
    (&["w-32##", "cascade"], XEON[1]),
    (&["xeon p-81##", "w-31##", "skylake"], XEON[0]),
    (&["w-22##"], platform("Xeon W-2200", 4, 2933, Avx512Vnni)),
    (&["w-21##"], platform("Xeon W-2100", 4, 2666, Avx512)),
    (
        &["e5-#### v4", "e5-####v4", "e7-#### v4", "broadwell-ep"],
        platform("Xeon E5 v4", 4, 2400, Avx2),
    ),
    (
        &["e5-#### v3", "e5-####v3", "e7-#### v3", "haswell-ep"],
        platform("Xeon E5 v3", 4, 2133, Avx2),
    ),
    (&["e5-#### v2", "e5-####v2"], platform("Xeon E5 v2", 4, 1866, Avx2)),
    (&["e5-####"], platform("Xeon E5", 4, 1600, Avx2)),
    (&["xeon e-2###", "e3-12##"], platform("Xeon E", 2, 2666, Avx2)),
    (&["core ultra", "ultra 9", "ultra 7", "ultra 5"], platform("Core Ultra", 2, 6400, AvxVnni)),
    (
        &["i#-14###", "i#-13###", "i#-13##p", "core 14", "core 13"],
        platform("Core, 13th and 14th generation", 2, 5600, AvxVnni),
    ),
    (&["i#-12###", "i#-12##p", "i#-12##u"], platform("Core, 12th generation", 2, 4800, AvxVnni)),
    (&["n95", "n97", "n100", "n305"], platform("Processor N", 1, 4800, AvxVnni)),
    (&["i#-11###", "i#-11##g"], platform("Core, 11th generation", 2, 3200, Avx512Vnni)),
    (&["i#-10###", "i#-9###", "i#-8###"], platform("Core, 8th to 10th generation", 2, 2933, Avx2)),
    (&["i#-7###", "i#-6###"], platform("Core, 6th and 7th generation", 2, 2133, Avx2)),
    // DDR3.
    (&["i#-5###", "i#-4###"], platform("Core, 4th and 5th generation", 2, 1600, Avx2)),
];

/// The platform of the processor that `text` names.
pub fn find(text: &str) -> Option<&'static Platform> {
    let text = plain(text);
    let by_pattern = || {
        let all = PLATFORMS.iter();
        let mut found = all.filter(|(patterns, _)| patterns.iter().any(|p| contains(&text, p)));
        found.next().map(|(_, platform)| platform)
    };
    if text.contains("epyc") || text.contains("ryzen") {
        by_pattern()
    } else {
        xeon(&text).or_else(by_pattern)
    }
}

/// The full name of a Ryzen; its second digit is its tier.
fn ryzen(word: &str) -> String {
    let tier = match word.as_bytes().get(1) {
        Some(b'9') => 9,
        Some(b'0'..=b'4') => 3,
        Some(b'5' | b'6') => 5,
        _ => 7,
    };
    format!("ryzen {tier} {word}")
}

/// The full name of a processor by its number alone: `9354`, `8480+`, `7950x`, `13700k`. A number
/// that is only a plausible one is not enough: it must be in the table, or be written as no other
/// thing is.
pub fn bare(word: &str) -> Option<String> {
    let digits = word.chars().take_while(char::is_ascii_digit).count();
    let (number, letters) = word.split_at(digits);
    let is_listed = || MODELS.iter().any(|(name, _, _)| *name == word || *name == number);
    let named = |maker: &str| format!("{maker} {word}");
    match (digits, letters) {
        (5, "" | "k" | "f" | "kf" | "ks" | "h" | "hx" | "t") if number.starts_with('1') => {
            let tier = match number.as_bytes()[2] {
                b'9' => 9,
                b'7' => 7,
                _ => 5,
            };
            Some(format!("core i{tier}-{word}"))
        }
        (4, "wx") => Some(named("threadripper pro")),
        // No EPYC ends so: `8845hs`, `7840u`.
        (4, "hs" | "hx" | "h" | "u" | "ge" | "g")
            if find(&named("ryzen 7")).is_some()
                && number.starts_with(['4', '5', '6', '7', '8']) =>
        {
            Some(ryzen(word))
        }
        (4, "x")
            if is_listed()
                && matches!(
                    &number[..3],
                    "798" | "797" | "796" | "998" | "997" | "996" | "399" | "397" | "396"
                ) =>
        {
            Some(named("threadripper"))
        }
        (4, "x" | "xt" | "x3d" | "g" | "ge" | "f" | "hs" | "hx" | "h" | "u")
            if find(&named("ryzen 7")).is_some() && !is_epyc(word) =>
        {
            Some(ryzen(word))
        }
        (4, "xe") | (5, "xe" | "x") => Some(format!("i9-{word}")),
        _ if word.starts_with("e5-") || word.starts_with("e7-") => Some(named("xeon")),
        (4, _) if is_listed() && is_epyc(word) => Some(named("epyc")),
        (4, _) if is_listed() && find(&named("xeon")).is_some() => Some(named("xeon")),
        (1, _) if word.len() == 4 && is_epyc(word) && is_listed() => Some(named("epyc")),
        (2, _) if is_listed() && is_epyc(word) => Some(named("epyc")),
        _ => None,
    }
}

/// Whether this is the number of an EPYC, of any kind: `9354`, `7R13`, `9374F`.
fn is_epyc(word: &str) -> bool {
    let platform = find(&format!("epyc {word}"));
    platform.is_some_and(|platform| platform.name.starts_with("EPYC"))
}

/// Cores of one socket: those that `text` counts (`64c`, `32 cores`), or those of the model it
/// names.
pub fn cores(text: &str) -> Option<u32> {
    let text = plain(text);
    // Ampere's names end with their cores: `AmpereOne 192`, `Altra Max 128`.
    if (text.contains("ampereone") || text.contains("altra"))
        && let Some(cores) = text.split([' ', '-']).find_map(|word| word.parse().ok())
        && (32..=256).contains(&cores)
    {
        return Some(cores);
    }
    let counted = text.split([' ', '(', ')', ',']).find_map(|word| {
        let digits = word.strip_suffix("cores").or_else(|| word.strip_suffix('c'))?;
        digits.parse().ok().filter(|cores| (1..=1024).contains(cores))
    });
    counted.or_else(|| Some(model(&text)?.1).filter(|cores| *cores > 0))
}

/// The sockets that boards for this processor have, at most.
pub fn sockets_max(text: &str) -> u32 {
    let text = plain(text);
    match find(&text) {
        _ if text.contains("epyc") => 2,
        _ if text.contains("xeon") || text.contains("e5-") || text.contains("e7-") => 8,
        Some(platform) if platform.channels <= 4 => 1,
        _ => 8,
    }
}

/// Chiplets of one socket, where they limit what it reads.
pub fn chiplet_count(text: &str) -> Option<u32> {
    Some(model(&plain(text))?.2).filter(|chiplets| *chiplets > 0)
}

fn model(text: &str) -> Option<&'static (&'static str, u32, u32)> {
    MODELS.iter().find(|(name, _, _)| contains(text, name))
}

/// The model that `text` names, as the table has it: two names of one processor give the same.
pub fn model_name(text: &str) -> Option<&'static str> {
    model(&plain(text)).map(|(name, _, _)| *name)
}

/// Names that a description may use, for suggesting one.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _, _)| *name)
}

/// Small letters, with the marks and fillers of `/proc/cpuinfo` left out.
fn plain(text: &str) -> String {
    let lower = text
        .to_lowercase()
        .replace("(r)", "")
        .replace("(tm)", "")
        .replace("threadripper pro", "tr pro");
    let lower =
        lower.replace("epyc-", "epyc ").replace("xeon-", "xeon ").replace("ryzen-", "ryzen ");
    let lower = ["i3", "i5", "i7", "i9"]
        .iter()
        .fold(lower, |text, core| text.replace(&format!("{core} "), &format!("{core}-")));
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether `pattern` stands in `text`, not in the midst of a longer number; `#` is any digit, `?`
/// any digit or letter.
fn contains(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let is = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    text.windows(pattern.len()).enumerate().any(|(at, window)| {
        let is_alike = |c: &u8, p: &u8| match p {
            b'#' => c.is_ascii_digit(),
            b'?' => c.is_ascii_alphanumeric(),
            _ => c == p,
        };
        let equal = window.iter().zip(pattern).all(|(c, p)| is_alike(c, p));
        let digit = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_digit() || *c == b'#');
        let cut = (digit(pattern.first()) && at > 0 && is(at - 1))
            || (digit(pattern.last()) && is(at + pattern.len()));
        equal && !cut
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_sorts_find_their_platform() {
        for (text, name, cores_of, chiplets_of) in [
            ("AMD EPYC 9654 96-Core Processor", "EPYC 9004", Some(96), Some(12)),
            ("epyc-9654", "EPYC 9004", Some(96), Some(12)),
            ("EPYC 7773X 64c", "EPYC 7003", Some(64), Some(8)),
            ("EPYC 9355 32c", "EPYC 9005", Some(32), Some(8)),
            ("EPYC 9V45 Turin 32c VM", "EPYC 9005", Some(32), None),
            ("TR PRO 3945WX 12c", "Threadripper PRO 3000", Some(12), Some(2)),
            ("AMD Ryzen Threadripper PRO 7975WX", "Threadripper PRO 7000", Some(32), Some(4)),
            ("Ryzen 7 7800X3D 8c", "Ryzen 7000", Some(8), Some(1)),
            ("Ryzen 9 9950X 16c", "Ryzen 9000", Some(16), Some(2)),
            ("Core i7-14700 20c", "Core, 13th and 14th generation", Some(20), None),
            ("Intel(R) Xeon(R) Gold 6454S", "Xeon, 4th generation", Some(32), None),
            ("Xeon Platinum 8352Y", "Xeon, 3rd generation", Some(32), None),
            ("Xeon E5-2690 v3 (12c)", "Xeon E5 v3", Some(12), None),
            ("Core i9-7980XE", "Core X", Some(18), None),
            ("AmpereOne A192-32X", "AmpereOne", Some(192), None),
            ("2x EPYC 7R13", "EPYC 7003", Some(48), Some(6)),
            ("epyc 7002", "EPYC 7002", None, None),
            ("AMD EPYC 7532 32-Core Processor", "EPYC 7002", Some(32), Some(8)),
            ("epyc 7c13", "EPYC 7003", Some(64), Some(8)),
            ("i5 12400f", "Core, 12th generation", Some(6), None),
            ("Intel(R) Core(TM) i7-1260P", "Core, 12th generation", None, None),
            ("Xeon E5-2697 v2", "Xeon E5 v2", Some(12), None),
            ("xeon platinum 8592+", "Xeon, 5th generation", Some(64), None),
            ("Ryzen 7 7840U", "Ryzen 7000", Some(8), None),
            ("AMD Ryzen AI Max+ 395", "Ryzen AI Max", Some(16), None),
        ] {
            assert_eq!(find(text).map(|platform| platform.name), Some(name), "{text}");
            assert_eq!(cores(text), cores_of, "{text}");
            assert_eq!(chiplet_count(text), chiplets_of, "{text}");
        }
        assert_eq!(find("something else"), None);
        assert_eq!(cores(""), None);
    }

    #[test]
    fn a_number_is_not_found_within_a_longer_one() {
        assert!(contains("epyc 9654", "9654") && !contains("epyc 19654", "9654"));
        assert!(contains("i9-14900k", "14900") && !contains("i9-149000", "14900"));
    }
}
