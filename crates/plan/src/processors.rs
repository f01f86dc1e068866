//! What the name of a processor says: memory channels and speed of its platform, chiplets, and the
//! relevant instructions.
//!
//! Names come from `/proc/cpuinfo`, from people and from forum posts, so patterns are searched for
//! anywhere in the name, the most specific first. Figures are the makers' data sheets
//! (ark.intel.com, amd.com/specifications): the fastest memory that a fully populated socket
//! supports.

// tidy: long because most of it is two tables of processors
use serde::Serialize;

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

/// Cores of a socket and its chiplets (0 where they do not limit), of models that are often met.
const MODELS: &[(&str, u32, u32)] = &[
    ("i9-7980xe", 18, 0),
    ("i9-9980xe", 18, 0),
    ("i9-10980xe", 18, 0),
    ("9965", 192, 12),
    ("9845", 160, 10),
    ("9825", 144, 12),
    ("9745", 128, 8),
    ("9655", 96, 12),
    ("9645", 96, 8),
    ("9565", 72, 12),
    ("9r45", 96, 12),
    ("9b45", 96, 12),
    ("9v33x", 88, 12),
    ("7v73x", 60, 8),
    ("9755", 128, 16),
    ("9654", 96, 12),
    ("9684x", 96, 12),
    ("9554", 64, 8),
    ("9534", 64, 8),
    ("9454", 48, 8),
    ("9374f", 32, 8),
    ("9354", 32, 8),
    ("9355", 32, 8),
    ("9334", 32, 4),
    ("9274f", 24, 8),
    ("9254", 24, 4),
    ("9184x", 16, 8),
    ("9175f", 16, 16),
    ("9124", 16, 4),
    ("8534p", 64, 8),
    ("8434p", 48, 6),
    ("8324p", 32, 4),
    ("8224p", 24, 4),
    ("8124p", 16, 2),
    ("8024p", 8, 2),
    ("4564p", 16, 2),
    ("4464p", 12, 2),
    ("4364p", 8, 1),
    ("9115", 16, 2),
    ("9015", 8, 2),
    ("9575f", 64, 8),
    ("9555", 64, 8),
    ("9535", 64, 8),
    ("9475f", 48, 8),
    ("9455", 48, 8),
    ("9375f", 32, 8),
    ("9365", 36, 6),
    ("9335", 32, 4),
    ("9275f", 24, 8),
    ("9255", 24, 4),
    ("9135", 16, 2),
    ("9754", 128, 8),
    ("9734", 112, 8),
    ("9634", 84, 12),
    ("9474f", 48, 8),
    ("9384x", 32, 8),
    ("9224", 24, 4),
    ("9174f", 16, 8),
    ("9b14", 96, 12),
    ("9r14", 96, 12),
    ("9v74", 80, 12),
    ("9v45", 0, 0),
    ("7r13", 48, 6),
    ("7r32", 48, 6),
    ("7b13", 64, 8),
    ("7v13", 64, 8),
    ("7v12", 64, 8),
    ("7k62", 48, 6),
    ("7j13", 64, 8),
    ("7773x", 64, 8),
    ("7763", 64, 8),
    ("7713", 64, 8),
    ("7c13", 64, 8),
    ("7742", 64, 8),
    ("7702", 64, 8),
    ("7h12", 64, 8),
    ("7663", 56, 8),
    ("7642", 48, 8),
    ("7543", 32, 8),
    ("7532", 32, 8),
    ("7502", 32, 4),
    ("7452", 32, 4),
    ("7643", 48, 8),
    ("7573x", 32, 8),
    ("7513", 32, 4),
    ("7453", 28, 4),
    ("75f3", 32, 8),
    ("74f3", 24, 8),
    ("73f3", 16, 8),
    ("72f3", 8, 8),
    ("7413", 24, 4),
    ("7373x", 16, 8),
    ("7343", 16, 4),
    ("7443", 24, 4),
    ("7402", 24, 4),
    ("7662", 64, 8),
    ("7552", 48, 6),
    ("7542", 32, 4),
    ("7352", 24, 4),
    ("7f72", 24, 6),
    ("7f52", 16, 8),
    ("7f32", 8, 4),
    ("7282", 16, 2),
    ("7272", 12, 2),
    ("7262", 8, 4),
    ("7252", 8, 2),
    ("7601", 32, 0),
    ("7551", 32, 0),
    ("7501", 32, 0),
    ("7401", 24, 0),
    ("7351", 16, 0),
    ("7313", 16, 4),
    ("7302", 16, 4),
    ("9995wx", 96, 12),
    ("9985wx", 64, 8),
    ("9975wx", 32, 4),
    ("9965wx", 24, 4),
    ("7995wx", 96, 12),
    ("7985wx", 64, 8),
    ("7975wx", 32, 4),
    ("7965wx", 24, 4),
    ("7955wx", 16, 2),
    ("5995wx", 64, 8),
    ("5975wx", 32, 4),
    ("5965wx", 24, 4),
    ("5955wx", 16, 2),
    ("3995wx", 64, 8),
    ("3975wx", 32, 4),
    ("3955wx", 16, 2),
    ("3945wx", 12, 2),
    ("9980x", 64, 8),
    ("9970x", 32, 4),
    ("9960x", 24, 4),
    ("9955wx", 16, 2),
    ("9945wx", 12, 2),
    ("7945wx", 12, 2),
    ("5945wx", 12, 2),
    ("3990x", 64, 8),
    ("3970x", 32, 4),
    ("3960x", 24, 4),
    ("2990wx", 32, 0),
    ("2970wx", 24, 0),
    ("2950x", 16, 0),
    ("1950x", 16, 0),
    ("7980x", 64, 8),
    ("7970x", 32, 4),
    ("7960x", 24, 4),
    ("9950x", 16, 2),
    ("9900x", 12, 2),
    ("9800x3d", 8, 1),
    ("9950x3d", 16, 2),
    ("9900x3d", 12, 2),
    ("9700x", 8, 1),
    ("9600x", 6, 1),
    ("7950x", 16, 2),
    ("7900x", 12, 2),
    ("7800x3d", 8, 1),
    ("7950x3d", 16, 2),
    ("7945hx", 16, 2),
    ("7900", 12, 2),
    ("7700x", 8, 1),
    ("7700", 8, 1),
    ("7600x", 6, 1),
    ("7600", 6, 1),
    ("5950x", 16, 2),
    ("5900x", 12, 2),
    ("5900xt", 16, 2),
    ("5800x3d", 8, 1),
    ("5800x", 8, 1),
    ("5700x", 8, 1),
    ("5600x", 6, 1),
    ("5700g", 8, 1),
    ("5600g", 6, 1),
    ("8600g", 6, 0),
    ("5500", 6, 1),
    ("3600", 6, 1),
    ("3700x", 8, 1),
    ("3800x", 8, 1),
    ("5600", 6, 1),
    ("3950x", 16, 2),
    ("3900x", 12, 2),
    ("395", 16, 0),
    ("ai max 390", 12, 0),
    ("ai max 385", 8, 0),
    ("370", 12, 0),
    ("7840u", 8, 0),
    ("7840hs", 8, 0),
    ("7940hs", 8, 0),
    ("8945hs", 8, 0),
    ("6900hx", 8, 0),
    ("6900hs", 8, 0),
    ("8840", 8, 0),
    ("8845", 8, 0),
    ("8700g", 8, 0),
    ("a192", 192, 0),
    ("m128-30", 128, 0),
    ("q80", 80, 0),
    ("graviton4", 96, 0),
    ("graviton3", 64, 0),
    ("grace", 72, 0),
    ("raspberry pi 4", 4, 0),
    ("rk3588", 8, 0),
    ("steam deck", 4, 0),
    ("6980p", 128, 0),
    ("6979p", 120, 0),
    ("6952p", 96, 0),
    ("6787p", 86, 0),
    ("6767p", 64, 0),
    ("6747p", 48, 0),
    ("6737p", 32, 0),
    ("6530p", 32, 0),
    ("6972p", 96, 0),
    ("6960p", 72, 0),
    ("6975p", 96, 0),
    ("6776p", 64, 0),
    ("6960p", 72, 0),
    ("8592", 64, 0),
    ("8581c", 48, 0),
    ("8570", 56, 0),
    ("8562y", 32, 0),
    ("8488c", 48, 0),
    ("8273cl", 24, 0),
    ("8370c", 32, 0),
    ("8580", 60, 0),
    ("8568y", 48, 0),
    ("8558", 48, 0),
    ("6548", 32, 0),
    ("6542y", 24, 0),
    ("8490h", 60, 0),
    ("8481c", 56, 0),
    ("9480", 56, 0),
    ("9470", 52, 0),
    ("8480", 56, 0),
    ("8461v", 48, 0),
    ("8460", 40, 0),
    ("6448", 32, 0),
    ("6438", 32, 0),
    ("6426y", 16, 0),
    ("6434", 8, 0),
    ("6444y", 16, 0),
    ("5418", 24, 0),
    ("4410", 12, 0),
    ("w9-3595x", 60, 0),
    ("w7-3455", 24, 0),
    ("w7-3445", 20, 0),
    ("w5-3435x", 16, 0),
    ("w5-3425", 12, 0),
    ("w7-2495x", 24, 0),
    ("w7-2475x", 20, 0),
    ("w5-2465x", 16, 0),
    ("w5-2455x", 12, 0),
    ("w3-2435", 8, 0),
    ("8470", 52, 0),
    ("8462", 32, 0),
    ("qyfs", 56, 0),
    ("w9-3495x", 56, 0),
    ("w7-3465x", 28, 0),
    ("6442y", 24, 0),
    ("6458q", 32, 0),
    ("8468", 48, 0),
    ("8458p", 44, 0),
    ("8452y", 36, 0),
    ("5420", 28, 0),
    ("4416", 20, 0),
    ("6538y", 32, 0),
    ("6554s", 36, 0),
    ("6526y", 16, 0),
    ("5520", 28, 0),
    ("6454s", 32, 0),
    ("6430", 32, 0),
    ("6530", 32, 0),
    ("8380", 40, 0),
    ("8368", 38, 0),
    ("8352y", 32, 0),
    ("6338", 32, 0),
    ("6342", 24, 0),
    ("6326", 16, 0),
    ("6346", 16, 0),
    ("5320", 26, 0),
    ("4314", 16, 0),
    ("4316", 20, 0),
    ("8360y", 36, 0),
    ("8362", 32, 0),
    ("6330", 28, 0),
    ("8352v", 36, 0),
    ("8358", 32, 0),
    ("8369", 32, 0),
    ("8375c", 32, 0),
    ("6348", 28, 0),
    ("6354", 18, 0),
    ("5318y", 24, 0),
    ("4310", 12, 0),
    ("w-3375", 38, 0),
    ("w-3365", 32, 0),
    ("8275cl", 24, 0),
    ("8268", 24, 0),
    ("8259cl", 24, 0),
    ("6258r", 28, 0),
    ("6248r", 24, 0),
    ("6230r", 26, 0),
    ("6226r", 16, 0),
    ("5218r", 20, 0),
    ("6240", 18, 0),
    ("6242", 16, 0),
    ("6254", 18, 0),
    ("5220", 18, 0),
    ("4214", 12, 0),
    ("4216", 16, 0),
    ("6230", 20, 0),
    ("6226", 12, 0),
    ("6252", 24, 0),
    ("5218", 16, 0),
    ("4210", 10, 0),
    ("w-3275", 28, 0),
    ("w-3265", 24, 0),
    ("w-3175x", 28, 0),
    ("6140", 18, 0),
    ("6142", 16, 0),
    ("6150", 18, 0),
    ("8176", 28, 0),
    ("8124m", 18, 0),
    ("6148", 20, 0),
    ("6130", 16, 0),
    ("6138", 20, 0),
    ("6152", 22, 0),
    ("6154", 18, 0),
    ("8160", 24, 0),
    ("8168", 24, 0),
    ("8175m", 24, 0),
    ("8280", 28, 0),
    ("8260", 24, 0),
    ("6248", 20, 0),
    ("6133", 20, 0),
    ("8136", 28, 0),
    ("8180", 28, 0),
    ("w-3235", 12, 0),
    ("e5-2699 v3", 18, 0),
    ("e5-2699v3", 18, 0),
    ("e5-2699", 22, 0),
    ("e5-2698 v3", 16, 0),
    ("e5-2698", 20, 0),
    ("e5-2696", 22, 0),
    ("e5-2695", 18, 0),
    ("e5-2697v3", 14, 0),
    ("e5-2697 v3", 14, 0),
    ("e5-2690 v2", 10, 0),
    ("e5-2680 v2", 10, 0),
    ("e5-2670 v2", 10, 0),
    ("e5-2650 v3", 10, 0),
    ("e5-2650 v2", 8, 0),
    ("e5-2660v3", 10, 0),
    ("e5-2660 v3", 10, 0),
    ("e5-2667 v2", 8, 0),
    ("e5-2695 v2", 12, 0),
    ("e5-2697 v2", 12, 0),
    ("e5-2697", 18, 0),
    ("e5-2690 v4", 14, 0),
    ("e5-2690v4", 14, 0),
    ("e5-2680v4", 14, 0),
    ("e5-2683", 16, 0),
    ("e5-2670", 12, 0),
    ("e5-2660", 14, 0),
    ("e5-2650", 12, 0),
    ("e5-2640", 10, 0),
    ("e5-2620", 8, 0),
    ("w-2295", 18, 0),
    ("w-2255", 10, 0),
    ("w-2195", 18, 0),
    ("e5-2690", 12, 0),
    ("e5-2680 v4", 14, 0),
    ("e5-2680", 12, 0),
    ("e5-2630", 10, 0),
    ("13900h", 14, 0),
    ("13700h", 14, 0),
    ("13980", 24, 0),
    ("13950", 24, 0),
    ("12900h", 14, 0),
    ("12700h", 14, 0),
    ("8650u", 4, 0),
    ("8250u", 4, 0),
    ("8550u", 4, 0),
    ("14900", 24, 0),
    ("13900", 24, 0),
    ("14700", 20, 0),
    ("14600", 14, 0),
    ("14500", 14, 0),
    ("14400", 10, 0),
    ("13700", 16, 0),
    ("13600k", 14, 0),
    ("13500", 14, 0),
    ("13400", 10, 0),
    ("12900", 16, 0),
    ("12700", 12, 0),
    ("12600k", 10, 0),
    ("12400", 6, 0),
    ("11900", 8, 0),
    ("11700", 8, 0),
    ("10900", 10, 0),
    ("10850k", 10, 0),
    ("10700", 8, 0),
    ("9900k", 8, 0),
    ("9700k", 8, 0),
    ("8700k", 6, 0),
    ("7700k", 4, 0),
    ("6700k", 4, 0),
    ("4790k", 4, 0),
    ("4770", 4, 0),
    ("ultra 9 285", 24, 0),
    ("ultra 7 265", 20, 0),
    ("ultra 9 185h", 16, 0),
    ("ultra 7 155h", 16, 0),
    ("ultra 7 258v", 8, 0),
    ("n305", 8, 0),
    ("n100", 4, 0),
    ("n97", 4, 0),
    ("n95", 4, 0),
    ("raspberry pi 5", 4, 0),
    ("cortex-a76", 4, 0),
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
