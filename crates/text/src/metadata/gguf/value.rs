//! Metadata values.

use super::reader::Reader;
use crate::Result;

/// A metadata value. Numbers are widened; a widened number is exact.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `u8`, `u16`, `u32` or `u64`.
    Unsigned(u64),
    /// `i8`, `i16`, `i32` or `i64`.
    Signed(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// A text.
    String(String),
    /// A list of values of one type.
    Array(Array),
}

/// A list of metadata values.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Of unsigned numbers.
    Unsigned(Vec<u64>),
    /// Of signed numbers.
    Signed(Vec<i64>),
    /// Of floats.
    Float(Vec<f64>),
    /// Of flags.
    Bool(Vec<bool>),
    /// Of texts.
    String(Vec<String>),
    /// Of lists.
    Array(Vec<Array>),
}

/// Lists of lists deeper than this are damage, not data.
const MAX_DEPTH: usize = 4;

impl Value {
    /// The shortest entry: length of the key, type, one byte.
    pub(super) const MIN_ENTRY_BYTES: usize = 8 + 4 + 1;

    pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self> {
        let what = format!("the value of `{key}`");
        let type_id = reader.u32(&what)?;
        Ok(match type_id {
            0 => Value::Unsigned(u8::from_le_bytes(reader.array(&what)?).into()),
            1 => Value::Signed(i8::from_le_bytes(reader.array(&what)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(reader.array(&what)?).into()),
            3 => Value::Signed(i16::from_le_bytes(reader.array(&what)?).into()),
            4 => Value::Unsigned(u32::from_le_bytes(reader.array(&what)?).into()),
            5 => Value::Signed(i32::from_le_bytes(reader.array(&what)?).into()),
            6 => Value::Float(f32::from_le_bytes(reader.array(&what)?).into()),
            7 => Value::Bool(reader.array::<1>(&what)? != [0]),
            8 => Value::String(reader.string(&what)?),
            9 => Value::Array(Array::read(reader, key, 1)?),
            10 => Value::Unsigned(u64::from_le_bytes(reader.array(&what)?)),
            11 => Value::Signed(i64::from_le_bytes(reader.array(&what)?)),
            12 => Value::Float(f64::from_le_bytes(reader.array(&what)?)),
            _ => {
                return Err(reader.error(format!("`{key}` has the unknown value type {type_id}")));
            }
        })
    }

    /// What kind of value it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "a whole number",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a flag",
            Value::String(_) => "a string",
            Value::Array(Array::String(_)) => "a list of strings",
            Value::Array(_) => "a list",
        }
    }
}

impl Array {
    fn read(reader: &mut Reader<'_>, key: &str, depth: usize) -> Result<Self> {
        let what = format!("elements of `{key}`");
        let type_id = reader.u32(&what)?;
        if depth > MAX_DEPTH {
            return Err(reader.error(format!("`{key}` nests lists deeper than {MAX_DEPTH}")));
        }
        let element_bytes = match type_id {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => {
                let message = format!("`{key}` is a list of the unknown value type {type_id}");
                return Err(reader.error(message));
            }
        };
        let count = reader.count(&what, element_bytes)?;
        match type_id {
            8 => {
                let texts = (0..count).map(|_| reader.string(&what)).collect::<Result<_>>()?;
                Ok(Array::String(texts))
            }
            9 => {
                let lists = (0..count).map(|_| Array::read(reader, key, depth + 1));
                Ok(Array::Array(lists.collect::<Result<_>>()?))
            }
            _ => Ok(Array::numbers(type_id, reader.take(count * element_bytes, &what)?)),
        }
    }

    /// Elements of a fixed size, one after another in `bytes`.
    fn numbers(type_id: u32, bytes: &[u8]) -> Self {
        fn each<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
        }
        match type_id {
            0 => Array::Unsigned(each(bytes, |b| u8::from_le_bytes(b).into())),
            1 => Array::Signed(each(bytes, |b| i8::from_le_bytes(b).into())),
            2 => Array::Unsigned(each(bytes, |b| u16::from_le_bytes(b).into())),
            3 => Array::Signed(each(bytes, |b| i16::from_le_bytes(b).into())),
            4 => Array::Unsigned(each(bytes, |b| u32::from_le_bytes(b).into())),
            5 => Array::Signed(each(bytes, |b| i32::from_le_bytes(b).into())),
            6 => Array::Float(each(bytes, |b| f32::from_le_bytes(b).into())),
            7 => Array::Bool(each(bytes, |b: [u8; 1]| b != [0])),
            10 => Array::Unsigned(each(bytes, u64::from_le_bytes)),
            11 => Array::Signed(each(bytes, i64::from_le_bytes)),
            _ => Array::Float(each(bytes, f64::from_le_bytes)),
        }
    }
}
