//! Which instructions this machine has, asked once at start.
//!
//! A [`Tier`] is a proof: one above `Scalar` comes only from [`Tier::detect`] or [`Tier::at_most`],
//! so the kernels that it selects may run.

use std::fmt;
use std::str::FromStr;

/// A level of instructions; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Level {
    Scalar,
    Avx2,
    Avx512,
    Amx,
}

impl Tier {
    /// The reference kernels in f32: the specification of everything else, available everywhere.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// The best tier of this machine.
    pub fn detect() -> Self {
        if !avx2() {
            Self::SCALAR
        } else if !avx512() {
            Self(Level::Avx2)
        } else if !amx::enable() {
            Self(Level::Avx512)
        } else {
            Self(Level::Amx)
        }
    }

    /// The named tier, or the best one below it that this machine has.
    pub fn at_most(name: TierName) -> Self {
        Self(name.0.min(Self::detect().0))
    }

    /// All tiers of this machine, the scalar one first.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = Self::detect();
        [Level::Scalar, Level::Avx2, Level::Avx512, Level::Amx]
            .into_iter()
            .map(Self)
            .filter(move |&tier| tier <= best)
    }

    /// AVX2, FMA and F16C may be used.
    pub fn has_avx2(self) -> bool {
        self.0 >= Level::Avx2
    }

    /// AVX-512 F, BW, DQ, VL, VBMI and VNNI, and BMI2 may be used (Ice Lake, Zen 4 and later).
    pub fn has_avx512(self) -> bool {
        self.0 >= Level::Avx512
    }

    /// AMX tiles with bf16 and AVX-512 BF16 may be used (Sapphire Rapids and later).
    pub fn has_amx(self) -> bool {
        self.0 >= Level::Amx
    }

    /// Everything is computed by the reference kernels in f32.
    pub fn is_scalar(self) -> bool {
        self.0 == Level::Scalar
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
        })
    }
}

/// A tier by its name, whether or not this machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierName(Level);

impl FromStr for TierName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(Self(match name {
            "scalar" => Level::Scalar,
            "avx2" => Level::Avx2,
            "avx512" => Level::Avx512,
            "amx" => Level::Amx,
            _ => return Err(format!("no CPU tier `{name}`: use scalar, avx2, avx512 or amx")),
        }))
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("bmi2")
}

#[cfg(target_arch = "x86_64")]
mod amx {
    //! Tiles must be asked for: the kernel enlarges a process's saved state only on request.

    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    /// Asks Linux once for the right to use tiles; whether it was given.
    pub(super) fn enable() -> bool {
        static ENABLED: OnceLock<bool> = OnceLock::new();
        *ENABLED.get_or_init(|| is_x86_feature_detected!("avx512bf16") && has_tiles() && request())
    }

    /// CPUID leaf 7: EDX bit 22 AMX-BF16, bit 24 AMX-TILE (Intel SDM, volume 2, CPUID).
    fn has_tiles() -> bool {
        let edx = __cpuid_count(7, 0).edx;
        edx >> 22 & 1 == 1 && edx >> 24 & 1 == 1
    }

    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`: Linux, Documentation/arch/x86/xstate.rst.
    #[cfg(target_os = "linux")]
    fn request() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XTILEDATA: libc::c_ulong = 18;
        // SAFETY: the call reads no memory of ours and changes only this process's permission to
        // use tile registers.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
    }

    /// Nowhere else is it known how to ask.
    #[cfg(not(target_os = "linux"))]
    fn request() -> bool {
        false
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
mod amx {
    pub(super) fn enable() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_asked_for_is_never_above_what_the_machine_has() {
        for name in ["scalar", "avx2", "avx512", "amx"] {
            assert!(Tier::at_most(name.parse().unwrap()) <= Tier::detect());
        }
        assert_eq!(Tier::at_most("scalar".parse().unwrap()), Tier::SCALAR);
        assert!("sse9".parse::<TierName>().is_err());
    }
}
