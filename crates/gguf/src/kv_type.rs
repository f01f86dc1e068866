//! The data types of a KV cache, named as GGUF names its tensor types.

use std::fmt;
use std::str::FromStr;

/// How a KV cache stores its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 4 bytes per number: for comparisons.
    F32,
    /// 2 bytes per number.
    #[default]
    F16,
    /// 34 bytes per block of 32 numbers.
    Q8_0,
}

impl KvType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8_0];
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        })
    }
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|ty| ty.to_string() == name)
            .ok_or_else(|| format!("unknown KV cache type `{name}`: use f32, f16 or q8_0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_parsed_from_its_name() {
        for ty in KvType::ALL {
            assert_eq!(ty.to_string().parse(), Ok(ty));
        }
        assert!("q4_0".parse::<KvType>().unwrap_err().contains("f32, f16 or q8_0"));
    }
}
