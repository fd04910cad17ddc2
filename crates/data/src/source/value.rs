//! Values of Arrow as JSON.
//!
//! A struct of Arrow has every field of every row, so a null in it is a field that was absent. Nulls of JSON stay.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTemporalType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, StructArray, downcast_dictionary_array};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Value};

/// Why a value has no form in JSON.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the column does: "holds binary data".
    pub(super) message: String,
    /// What to do.
    pub(super) hint: &'static str,
}

type Result<T> = std::result::Result<T, Fault>;

/// One value of an array. Times are ISO 8601 text, decimals exact text, and a
/// float that is no number is null.
pub(super) fn of(array: &dyn Array, at: usize) -> Result<Value> {
    use DataType as T;
    if array.is_null(at) {
        return Ok(Value::Null);
    }
    match array.data_type() {
        T::Null => Ok(Value::Null),
        T::Boolean => Ok(array.as_boolean().value(at).into()),
        T::Int8 => primitive::<Int8Type>(array, at),
        T::Int16 => primitive::<Int16Type>(array, at),
        T::Int32 => primitive::<Int32Type>(array, at),
        T::Int64 => primitive::<Int64Type>(array, at),
        T::UInt8 => primitive::<UInt8Type>(array, at),
        T::UInt16 => primitive::<UInt16Type>(array, at),
        T::UInt32 => primitive::<UInt32Type>(array, at),
        T::UInt64 => primitive::<UInt64Type>(array, at),
        T::Float16 => short_float(array.as_primitive::<Float16Type>().value(at).to_f32()),
        T::Float32 => short_float(array.as_primitive::<Float32Type>().value(at)),
        T::Float64 => float(array.as_primitive::<Float64Type>().value(at)),
        T::Utf8 => Ok(array.as_string::<i32>().value(at).into()),
        T::LargeUtf8 => Ok(array.as_string::<i64>().value(at).into()),
        T::Utf8View => Ok(array.as_string_view().value(at).into()),
        T::List(_) => list(&array.as_list::<i32>().value(at)),
        T::LargeList(_) => list(&array.as_list::<i64>().value(at)),
        T::ListView(_) => list(&array.as_list_view::<i32>().value(at)),
        T::LargeListView(_) => list(&array.as_list_view::<i64>().value(at)),
        T::FixedSizeList(..) => list(&array.as_fixed_size_list().value(at)),
        T::Struct(_) => object(array.as_struct(), at),
        T::Map(..) => map(&array.as_map().value(at)),
        T::Dictionary(..) => dictionary(array, at),
        T::Date32 => date::<Date32Type>(array, at),
        T::Date64 => date::<Date64Type>(array, at),
        T::Time32(TimeUnit::Second) => time::<Time32SecondType>(array, at),
        T::Time32(_) => time::<Time32MillisecondType>(array, at),
        T::Time64(TimeUnit::Microsecond) => time::<Time64MicrosecondType>(array, at),
        T::Time64(_) => time::<Time64NanosecondType>(array, at),
        T::Timestamp(unit, zone) => {
            let text = match unit {
                TimeUnit::Second => timestamp::<TimestampSecondType>(array, at),
                TimeUnit::Millisecond => timestamp::<TimestampMillisecondType>(array, at),
                TimeUnit::Microsecond => timestamp::<TimestampMicrosecondType>(array, at),
                TimeUnit::Nanosecond => timestamp::<TimestampNanosecondType>(array, at),
            }?;
            // With a zone the number counts in UTC, whatever the zone is.
            Ok(format!("{text}{}", if zone.is_some() { "Z" } else { "" }).into())
        }
        T::Decimal32(..) => Ok(array.as_primitive::<Decimal32Type>().value_as_string(at).into()),
        T::Decimal64(..) => Ok(array.as_primitive::<Decimal64Type>().value_as_string(at).into()),
        T::Decimal128(..) => Ok(array.as_primitive::<Decimal128Type>().value_as_string(at).into()),
        T::Decimal256(..) => Ok(array.as_primitive::<Decimal256Type>().value_as_string(at).into()),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => {
            fault("holds binary data", "write it as text, or leave the column out")
        }
        other => fault(
            format!("has the type {other}, which JSON cannot hold"),
            "cast it to text, or leave the column out",
        ),
    }
}

fn fault<T>(message: impl Into<String>, hint: &'static str) -> Result<T> {
    Err(Fault { message: message.into(), hint })
}

fn primitive<T: ArrowPrimitiveType<Native: Into<Value>>>(
    array: &dyn Array,
    at: usize,
) -> Result<Value> {
    Ok(array.as_primitive::<T>().value(at).into())
}

fn float(number: f64) -> Result<Value> {
    if number.is_infinite() {
        return fault(super::INFINITE, super::INFINITE_HINT);
    }
    Ok(serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number))
}

/// The shortest decimal of a narrow float: 0.1 and not 0.10000000149011612.
fn short_float(number: f32) -> Result<Value> {
    float(number.to_string().parse().unwrap_or(f64::from(number)))
}

fn list(items: &dyn Array) -> Result<Value> {
    let items: Result<Vec<Value>> = (0..items.len()).map(|at| of(items, at)).collect();
    items.map(Value::Array)
}

/// A struct has every field of every row, so that null is what stands where a row had none: such a
/// field is left out.
fn object(fields: &StructArray, at: usize) -> Result<Value> {
    let mut object = Map::new();
    for (name, column) in fields.column_names().into_iter().zip(fields.columns()) {
        if column.is_null(at) {
            continue;
        }
        insert(&mut object, name.to_owned(), of(column, at)?)?;
    }
    Ok(Value::Object(object))
}

/// An object of a map's entries; keys that are no text are written as JSON.
fn map(entries: &StructArray) -> Result<Value> {
    let mut object = Map::new();
    for at in 0..entries.len() {
        let key = match of(entries.column(0), at)? {
            Value::String(key) => key,
            other => other.to_string(),
        };
        insert(&mut object, key, of(entries.column(1), at)?)?;
    }
    Ok(Value::Object(object))
}

fn insert(object: &mut Map<String, Value>, key: String, value: Value) -> Result<()> {
    if object.contains_key(&key) {
        return fault(format!("has `{key}` twice in one value"), "rename or remove one of them");
    }
    object.insert(key, value);
    Ok(())
}

fn dictionary(array: &dyn Array, at: usize) -> Result<Value> {
    downcast_dictionary_array!(
        array => match array.key(at) {
            Some(key) => of(array.values(), key),
            None => Ok(Value::Null),
        },
        other => fault(format!("has the type {other}, which JSON cannot hold"), "cast it to text"),
    )
}

fn date<T: ArrowTemporalType>(array: &dyn Array, at: usize) -> Result<Value>
where
    i64: From<T::Native>,
{
    match array.as_primitive::<T>().value_as_date(at) {
        Some(date) => Ok(date.to_string().into()),
        None => out_of_range(),
    }
}

fn time<T: ArrowTemporalType>(array: &dyn Array, at: usize) -> Result<Value>
where
    i64: From<T::Native>,
{
    match array.as_primitive::<T>().value_as_time(at) {
        Some(time) => Ok(time.to_string().into()),
        None => out_of_range(),
    }
}

fn timestamp<T: ArrowTemporalType>(array: &dyn Array, at: usize) -> Result<String>
where
    i64: From<T::Native>,
{
    match array.as_primitive::<T>().value_as_datetime(at) {
        // `Debug` is the form with a `T`.
        Some(moment) => Ok(format!("{moment:?}")),
        None => out_of_range(),
    }
}

fn out_of_range<T>() -> Result<T> {
    fault("holds a time that no calendar has", "correct it or leave it empty")
}
