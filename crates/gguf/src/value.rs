//! The key-value pairs: typed values, typed access.
//!
//! Arrays are vectors of their element type, since vocabularies have 10^5 entries. The errors of
//! the typed getters name the key, because files without an expected key are common.

use std::collections::HashMap;

use crate::Error;
use crate::cursor::{Cursor, Reading};

/// Known files do not nest arrays; the format allows it.
const ARRAY_DEPTH_MAX: u32 = 4;

/// Defines [`Value`], [`Array`] and what is the same for each type of number.
macro_rules! values {
    ($($variant:ident($type:ty) = $id:literal, $name:literal;)*) => {
        /// One value of the metadata.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Value {
            $($variant($type),)*
            Bool(bool),
            String(String),
            Array(Array),
        }

        /// An array of the metadata, all elements of one type.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Array {
            $($variant(Vec<$type>),)*
            Bool(Vec<bool>),
            String(Vec<String>),
            /// Arrays of arrays, each with a type of its own.
            Array(Vec<Array>),
        }

        impl Value {
            /// The type's id in files.
            pub(crate) fn type_id(&self) -> u32 {
                match self {
                    $(Self::$variant(_) => $id,)*
                    Self::Bool(_) => BOOL,
                    Self::String(_) => STRING,
                    Self::Array(_) => ARRAY,
                }
            }

            /// The name of the type: `u32`, `string`, `array of f32`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                    Self::Bool(_) => "bool",
                    Self::String(_) => "string",
                    Self::Array(array) => array.type_name(),
                }
            }

            pub(crate) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(number) => out.extend(number.to_le_bytes()),)*
                    Self::Bool(bool) => out.push(u8::from(*bool)),
                    Self::String(string) => write_str(string, out),
                    Self::Array(array) => array.write(out),
                }
            }
        }

        impl Array {
            /// Number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$variant(elements) => elements.len(),)*
                    Self::Bool(elements) => elements.len(),
                    Self::String(elements) => elements.len(),
                    Self::Array(elements) => elements.len(),
                }
            }

            /// The name of the type: `array of u32`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => concat!("array of ", $name),)*
                    Self::Bool(_) => "array of bool",
                    Self::String(_) => "array of string",
                    Self::Array(_) => "array of array",
                }
            }

            fn write(&self, out: &mut Vec<u8>) {
                let element_type: u32 = match self {
                    $(Self::$variant(_) => $id,)*
                    Self::Bool(_) => BOOL,
                    Self::String(_) => STRING,
                    Self::Array(_) => ARRAY,
                };
                out.extend(element_type.to_le_bytes());
                out.extend((self.len() as u64).to_le_bytes());
                match self {
                    $(Self::$variant(elements) => {
                        elements.iter().for_each(|element| out.extend(element.to_le_bytes()));
                    })*
                    Self::Bool(elements) => out.extend(elements.iter().copied().map(u8::from)),
                    Self::String(elements) => elements.iter().for_each(|s| write_str(s, out)),
                    Self::Array(elements) => elements.iter().for_each(|array| array.write(out)),
                }
            }
        }

        $(impl From<$type> for Value {
            fn from(number: $type) -> Self {
                Self::$variant(number)
            }
        }
        impl From<Vec<$type>> for Value {
            fn from(elements: Vec<$type>) -> Self {
                Self::Array(Array::$variant(elements))
            }
        })*

        fn read_value(cursor: &mut Cursor<'_>) -> Result<Value, Error> {
            let offset = cursor.at();
            Ok(match cursor.u32()? {
                $($id => Value::$variant(<$type>::from_le_bytes(cursor.array()?)),)*
                BOOL => Value::Bool(read_bool(cursor)?),
                STRING => Value::String(cursor.str()?.to_owned()),
                ARRAY => Value::Array(read_array(cursor, 1)?),
                id => return Err(unknown_type(cursor, id, offset)),
            })
        }

        fn read_array(cursor: &mut Cursor<'_>, depth: u32) -> Result<Array, Error> {
            if depth > ARRAY_DEPTH_MAX {
                let reading = cursor.reading.to_string();
                return Err(Error::TooDeep { reading, limit: ARRAY_DEPTH_MAX });
            }
            let offset = cursor.at();
            Ok(match cursor.u32()? {
                $($id => {
                    let bytes = read_elements(cursor, size_of::<$type>() as u64)?;
                    let (elements, _) = bytes.as_chunks();
                    Array::$variant(elements.iter().map(|e| <$type>::from_le_bytes(*e)).collect())
                })*
                BOOL => Array::Bool(read_list(cursor, 1, read_bool)?),
                STRING => {
                    Array::String(read_list(cursor, 8, |cursor| cursor.str().map(str::to_owned))?)
                }
                ARRAY => {
                    Array::Array(read_list(cursor, 12, |cursor| read_array(cursor, depth + 1))?)
                }
                id => return Err(unknown_type(cursor, id, offset)),
            })
        }
    };
}

const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

values! {
    U8(u8) = 0, "u8";
    I8(i8) = 1, "i8";
    U16(u16) = 2, "u16";
    I16(i16) = 3, "i16";
    U32(u32) = 4, "u32";
    I32(i32) = 5, "i32";
    F32(f32) = 6, "f32";
    U64(u64) = 10, "u64";
    I64(i64) = 11, "i64";
    F64(f64) = 12, "f64";
}

/// The bytes of an array of numbers of `size` bytes each.
fn read_elements<'a>(cursor: &mut Cursor<'a>, size: u64) -> Result<&'a [u8], Error> {
    let count = cursor.count(size)?;
    cursor.take(count * size) // `count` has checked that the product fits
}

/// A list of elements of at least `bytes_min` bytes each. Memory is allocated only once that many
/// bytes were passed in, so that it stays in proportion to what was read.
fn read_list<'a, T>(
    cursor: &mut Cursor<'a>,
    bytes_min: u64,
    mut read: impl FnMut(&mut Cursor<'a>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let count = cursor.count(bytes_min)?;
    cursor.require(count * bytes_min)?;
    let mut list = Vec::with_capacity(count as usize);
    for _ in 0..count {
        list.push(read(cursor)?);
    }
    Ok(list)
}

fn read_bool(cursor: &mut Cursor<'_>) -> Result<bool, Error> {
    let offset = cursor.at();
    match cursor.array()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [byte] => Err(Error::NotBool { reading: cursor.reading.to_string(), byte, offset }),
    }
}

fn unknown_type(cursor: &Cursor<'_>, id: u32, offset: u64) -> Error {
    Error::ValueType { reading: cursor.reading.to_string(), id, offset }
}

pub(crate) fn write_str(string: &str, out: &mut Vec<u8>) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend(string.as_bytes());
}

pub(crate) fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, Error> {
    let mut metadata = Metadata::default();
    for number in 0..count {
        cursor.reading = Reading::Key(number);
        let key = cursor.name()?;
        cursor.reading = Reading::Value(key);
        let value = read_value(cursor)?;
        if metadata.insert(key, value).is_some() {
            return Err(Error::DuplicateKey { key: key.to_owned() });
        }
    }
    Ok(metadata)
}

impl Array {
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<Vec<String>> for Value {
    fn from(elements: Vec<String>) -> Self {
        Self::Array(Array::String(elements))
    }
}

/// The key-value pairs of a file, in its order.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// Sets a key; the value that it had is returned, and its place in the order kept.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) -> Option<Value> {
        let value = value.into();
        if let Some(&at) = self.index.get(key) {
            return Some(std::mem::replace(&mut self.entries[at].1, value));
        }
        self.index.insert(key.to_owned(), self.entries.len());
        self.entries.push((key.to_owned(), value));
        None
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// Keys and values, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A whole number of any integer type.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::WrongType`] for another type or a negative number; the
    /// same for all typed getters. [`Optional::optional`] accepts the absence of a key.
    pub fn u64(&self, key: &str) -> Result<u64, Error> {
        self.typed(key, "a whole number", |value| match *value {
            Value::U8(number) => Some(number.into()),
            Value::U16(number) => Some(number.into()),
            Value::U32(number) => Some(number.into()),
            Value::U64(number) => Some(number),
            Value::I8(number) => number.try_into().ok(),
            Value::I16(number) => number.try_into().ok(),
            Value::I32(number) => number.try_into().ok(),
            Value::I64(number) => number.try_into().ok(),
            _ => None,
        })
    }

    /// A floating-point number, stored in 4 or 8 bytes.
    pub fn f32(&self, key: &str) -> Result<f32, Error> {
        self.typed(key, "a floating-point number", |value| match *value {
            Value::F32(number) => Some(number),
            Value::F64(number) => Some(number as f32),
            _ => None,
        })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<bool, Error> {
        self.typed(key, "a boolean", |value| match *value {
            Value::Bool(bool) => Some(bool),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        self.typed(key, "a string", |value| match value {
            Value::String(string) => Some(string.as_str()),
            _ => None,
        })
    }

    /// An array of any type.
    pub fn array(&self, key: &str) -> Result<&Array, Error> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// An array of strings, such as `tokenizer.ggml.tokens`.
    pub fn strings(&self, key: &str) -> Result<&[String], Error> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(elements)) => Some(elements.as_slice()),
            _ => None,
        })
    }

    /// An array of `i32`, such as `tokenizer.ggml.token_type`.
    pub fn i32s(&self, key: &str) -> Result<&[i32], Error> {
        self.typed(key, "an array of i32", |value| match value {
            Value::Array(Array::I32(elements)) => Some(elements.as_slice()),
            _ => None,
        })
    }

    /// An array of `f32`, such as `tokenizer.ggml.scores`.
    pub fn f32s(&self, key: &str) -> Result<&[f32], Error> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(elements)) => Some(elements.as_slice()),
            _ => None,
        })
    }

    /// The architecture, `general.architecture`: the prefix of the model's own keys.
    pub fn arch(&self) -> Result<&str, Error> {
        self.str("general.architecture")
    }

    /// The full name of one of the model's own keys: `block_count` -> `deepseek2.block_count`.
    pub fn arch_key(&self, key: &str) -> Result<String, Error> {
        Ok(format!("{}.{key}", self.arch()?))
    }

    /// [`u64`](Self::u64) of one of the model's own keys, such as `attention.head_count`.
    pub fn arch_u64(&self, key: &str) -> Result<u64, Error> {
        self.u64(&self.arch_key(key)?)
    }

    /// [`f32`](Self::f32) of one of the model's own keys, such as `rope.freq_base`.
    pub fn arch_f32(&self, key: &str) -> Result<f32, Error> {
        self.f32(&self.arch_key(key)?)
    }

    /// [`bool`](Self::bool) of one of the model's own keys, such as `expert_weights_norm`.
    pub fn arch_bool(&self, key: &str) -> Result<bool, Error> {
        self.bool(&self.arch_key(key)?)
    }

    /// [`str`](Self::str) of one of the model's own keys, such as `rope.scaling.type`.
    pub fn arch_str(&self, key: &str) -> Result<&str, Error> {
        self.str(&self.arch_key(key)?)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        let value = self.get(key).ok_or_else(|| Error::MissingKey { key: key.to_owned() })?;
        convert(value).ok_or_else(|| Error::WrongType {
            key: key.to_owned(),
            expected,
            found: found(value),
        })
    }
}

impl std::fmt::Display for Value {
    /// As errors quote it: with its type, and shortened.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&found(self))
    }
}

/// A value as errors quote it: with its type, and shortened.
fn found(value: &Value) -> String {
    let kind = value.type_name();
    match value {
        Value::Array(array) => format!("{kind} with {} elements", array.len()),
        Value::String(string) => {
            format!("the string {:.40?}", string.chars().take(40).collect::<String>())
        }
        number => {
            let debug = format!("{number:?}"); // `U32(7)`
            let digits = debug.split(['(', ')']).nth(1).unwrap_or(&debug);
            format!("{digits} ({kind})")
        }
    }
}

/// Turns the absence of a key into `None`; all other errors stay.
pub trait Optional<T> {
    /// `metadata.arch_u64("expert_group_count").optional()?` is `None` if the file has no such key.
    fn optional(self) -> Result<Option<T>, Error>;
}

impl<T> Optional<T> for Result<T, Error> {
    fn optional(self) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::MissingKey { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "deepseek2");
        metadata.insert("deepseek2.block_count", 61_u32);
        metadata.insert("deepseek2.expert_weights_scale", 2.5_f32);
        metadata.insert("count", -3_i32);
        metadata.insert("split.no", 2_u16);
        metadata.insert("list", vec![1_u8, 2, 3]);
        metadata
    }

    #[test]
    fn getters_convert_what_loses_nothing() {
        let metadata = metadata();
        assert_eq!(metadata.arch_u64("block_count").unwrap(), 61);
        assert_eq!(metadata.u64("split.no").unwrap(), 2);
        assert_eq!(metadata.arch_f32("expert_weights_scale").unwrap(), 2.5);
    }

    #[test]
    fn errors_name_key_expected_and_found() {
        let metadata = metadata();
        let negative = metadata.u64("count").unwrap_err().to_string();
        assert_eq!(negative, "the key `count` should be a whole number, but is -3 (i32)");
        let array = metadata.str("list").unwrap_err().to_string();
        assert_eq!(array, "the key `list` should be a string, but is array of u8 with 3 elements");
        let missing = metadata.arch_u64("vocab_size").unwrap_err().to_string();
        assert_eq!(missing, "the file has no key `deepseek2.vocab_size`");
    }

    #[test]
    fn optional_accepts_absence_only() {
        let metadata = metadata();
        assert_eq!(metadata.arch_u64("vocab_size").optional().unwrap(), None);
        assert_eq!(metadata.arch_u64("block_count").optional().unwrap(), Some(61));
        assert!(metadata.u64("list").optional().is_err());
    }

    #[test]
    fn inserting_again_replaces_in_place() {
        let mut metadata = metadata();
        assert_eq!(metadata.insert("count", 4_u64), Some(Value::I32(-3)));
        assert_eq!(metadata.u64("count").unwrap(), 4);
        assert_eq!(metadata.iter().nth(3).unwrap().0, "count");
    }
}
