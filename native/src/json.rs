//! One event as relaxed Extended JSON v2, written as `app/formats/extended_json.py` writes it.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use bson::raw::{RawBsonRef, RawDocument, RawElement, RawIter};
use bson::spec::{BinarySubtype, ElementType};

/// How deep documents may lie within each other: more than MongoDB stores (180), and little of any thread's stack.
pub const MAX_DEPTH: usize = 200;

/// The last millisecond of the year 9999, from where on dates are written as numbers.
const LAST_DATE: i64 = 253_402_300_799_999;
/// The integers that a double holds exactly.
const EXACT: i64 = 1 << 53;

/// What an event says about itself, beside its body.
#[derive(Debug)]
pub struct Event<'a> {
    /// The resume token's `_data`.
    pub token: &'a str,
    /// `operationType`.
    pub operation: &'a str,
    /// `wallTime` in seconds since 1970; 0 where it is absent or no date.
    pub wall_time: f64,
}

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// Damaged, or of a kind that the reference handles.
    ToReference,
    /// Not a fault of the event: an allocation failed.
    OutOfMemory,
}

impl From<bson::error::Error> for Left {
    fn from(_: bson::error::Error) -> Self {
        Left::ToReference
    }
}

impl From<std::collections::TryReserveError> for Left {
    fn from(_: std::collections::TryReserveError) -> Self {
        Left::OutOfMemory
    }
}

type Written = Result<(), Left>;

/// Appends the event's JSON to `out`. After an error, `out` may end in a part of it.
pub fn encode<'a>(raw: &'a [u8], out: &mut Vec<u8>) -> Result<Event<'a>, Left> {
    let event = RawDocument::from_bytes(raw)?;
    let (mut token, mut operation, mut wall_time) = (None, None, 0.0);
    put(out, b"{")?;
    for (index, element) in event.iter_elements().enumerate() {
        let element = element?;
        let name = element.key().as_str();
        let value = value_of(&element)?;
        key(out, index, name)?;
        // Of a name that comes twice the last one counts, as in Python.
        match name {
            "_id" => token = token_of(value)?,
            "operationType" => operation = value.as_str(),
            "wallTime" => wall_time = seconds(value)?,
            _ => {}
        }
        write(out, value, 1)?;
    }
    put(out, b"}")?;
    match (token, operation) {
        (Some(token), Some(operation)) => Ok(Event {
            token,
            operation,
            wall_time,
        }),
        _ => Err(Left::ToReference),
    }
}

/// The element's value, unless it is of a kind that no current driver writes; and these make `bson` panic when damaged.
fn value_of<'a>(element: &RawElement<'a>) -> Result<RawBsonRef<'a>, Left> {
    match element.element_type() {
        ElementType::JavaScriptCodeWithScope | ElementType::DbPointer => Err(Left::ToReference),
        _ => Ok(element.value()?),
    }
}

fn token_of(id: RawBsonRef<'_>) -> Result<Option<&str>, Left> {
    let RawBsonRef::Document(id) = id else {
        return Ok(None);
    };
    let mut token = None;
    for element in id.iter_elements() {
        let element = element?;
        if element.key().as_str() == "_data" {
            token = value_of(&element)?.as_str();
        }
    }
    Ok(token)
}

fn seconds(wall: RawBsonRef<'_>) -> Result<f64, Left> {
    match wall {
        RawBsonRef::DateTime(date) => {
            let millis = date.timestamp_millis();
            if (-EXACT..=EXACT).contains(&millis) {
                Ok(millis as f64 / 1000.0)
            } else {
                Err(Left::ToReference)
            }
        }
        _ => Ok(0.0),
    }
}

fn document(out: &mut Vec<u8>, elements: RawIter<'_>, depth: usize) -> Written {
    put(out, b"{")?;
    for (index, element) in elements.enumerate() {
        let element = element?;
        key(out, index, element.key().as_str())?;
        write(out, value_of(&element)?, depth)?;
    }
    put(out, b"}")
}

fn array(out: &mut Vec<u8>, elements: RawIter<'_>, depth: usize) -> Written {
    put(out, b"[")?;
    for (index, element) in elements.enumerate() {
        if index > 0 {
            put(out, b",")?;
        }
        write(out, value_of(&element?)?, depth)?;
    }
    put(out, b"]")
}

fn key(out: &mut Vec<u8>, index: usize, name: &str) -> Written {
    if index > 0 {
        put(out, b",")?;
    }
    text(out, name)?;
    put(out, b":")
}

fn write(out: &mut Vec<u8>, value: RawBsonRef<'_>, depth: usize) -> Written {
    match value {
        RawBsonRef::Document(_) | RawBsonRef::Array(_) if depth >= MAX_DEPTH => Err(Left::ToReference),
        RawBsonRef::Document(value) => document(out, value.iter_elements(), depth + 1),
        RawBsonRef::Array(value) => array(out, value.iter_elements(), depth + 1),
        RawBsonRef::String(value) | RawBsonRef::Symbol(value) => text(out, value),
        RawBsonRef::Int32(value) => integer(out, value),
        RawBsonRef::Int64(value) => integer(out, value),
        RawBsonRef::Double(value) => double(out, value),
        RawBsonRef::Boolean(true) => put(out, b"true"),
        RawBsonRef::Boolean(false) => put(out, b"false"),
        RawBsonRef::Null | RawBsonRef::Undefined => put(out, b"null"),
        RawBsonRef::ObjectId(value) => object_id(out, value.bytes()),
        RawBsonRef::DateTime(value) => date(out, value.timestamp_millis()),
        RawBsonRef::Timestamp(value) => {
            put(out, b"{\"$timestamp\":{\"t\":")?;
            integer(out, value.time)?;
            put(out, b",\"i\":")?;
            integer(out, value.increment)?;
            put(out, b"}}")
        }
        RawBsonRef::Decimal128(value) => {
            put(out, b"{\"$numberDecimal\":\"")?;
            put(out, value.to_string().as_bytes())?;
            put(out, b"\"}")
        }
        RawBsonRef::Binary(value) => binary(out, value.bytes, value.subtype),
        RawBsonRef::RegularExpression(value) => {
            put(out, b"{\"$regularExpression\":{\"pattern\":")?;
            text(out, value.pattern.as_str())?;
            put(out, b",\"options\":\"")?;
            let options = value.options.as_str();
            for letter in ["i", "l", "m", "s", "u", "x"] {
                if options.contains(letter) {
                    put(out, letter.as_bytes())?;
                }
            }
            put(out, b"\"}}")
        }
        RawBsonRef::JavaScriptCode(value) => {
            put(out, b"{\"$code\":")?;
            text(out, value)?;
            put(out, b"}")
        }
        RawBsonRef::MinKey => put(out, b"{\"$minKey\":1}"),
        RawBsonRef::MaxKey => put(out, b"{\"$maxKey\":1}"),
        // See value_of; and what may be added to BSON one day.
        _ => Err(Left::ToReference),
    }
}

/// Every byte goes through here: a failed allocation is an error, where Vec alone would end the process.
#[inline(always)]
fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Written {
    if out.capacity() - out.len() < bytes.len() {
        grow(out, bytes.len())?;
    }
    out.extend_from_slice(bytes);
    Ok(())
}

#[cold]
fn grow(out: &mut Vec<u8>, by: usize) -> Written {
    Ok(out.try_reserve(by)?)
}

fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) -> Written {
    put(out, itoa::Buffer::new().format(value).as_bytes())
}

fn double(out: &mut Vec<u8>, value: f64) -> Written {
    let name: &[u8] = match value {
        _ if value.is_finite() => return finite(out, value),
        f64::INFINITY => b"{\"$numberDouble\":\"Infinity\"}",
        f64::NEG_INFINITY => b"{\"$numberDouble\":\"-Infinity\"}",
        _ => b"{\"$numberDouble\":\"NaN\"}",
    };
    put(out, name)
}

/// The shortest digits that read back as the same double; a positive exponent with its sign, as the reference has it.
fn finite(out: &mut Vec<u8>, value: f64) -> Written {
    let mut buffer = ryu::Buffer::new();
    let form = buffer.format_finite(value);
    match form.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => {
            put(out, digits.as_bytes())?;
            put(out, b"e+")?;
            put(out, exponent.as_bytes())
        }
        _ => put(out, form.as_bytes()),
    }
}

fn object_id(out: &mut Vec<u8>, id: [u8; 12]) -> Written {
    let mut form = *b"{\"$oid\":\"........................\"}";
    for (place, byte) in form[9..33].chunks_exact_mut(2).zip(id) {
        place.copy_from_slice(&hexadecimal(byte));
    }
    put(out, &form)
}

fn hexadecimal(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

fn binary(out: &mut Vec<u8>, bytes: &[u8], subtype: BinarySubtype) -> Written {
    put(out, b"{\"$binary\":{\"base64\":\"")?;
    let (from, length) = (out.len(), bytes.len().div_ceil(3) * 4);
    out.try_reserve(length)?;
    out.resize(from + length, 0);
    STANDARD
        .encode_slice(bytes, &mut out[from..])
        .map_err(|_| Left::ToReference)?;
    put(out, b"\",\"subType\":\"")?;
    put(out, &hexadecimal(u8::from(subtype)))?;
    put(out, b"\"}}")
}

fn date(out: &mut Vec<u8>, millis: i64) -> Written {
    if !(0..=LAST_DATE).contains(&millis) {
        put(out, b"{\"$date\":{\"$numberLong\":\"")?;
        integer(out, millis)?;
        return put(out, b"\"}}");
    }
    let (seconds, fraction) = (millis / 1000, millis % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut form = *b"{\"$date\":\"0000-00-00T00:00:00.000Z\"}";
    digits(&mut form[10..14], year);
    digits(&mut form[15..17], month);
    digits(&mut form[18..20], day);
    digits(&mut form[21..23], second / 3600);
    digits(&mut form[24..26], second / 60 % 60);
    digits(&mut form[27..29], second % 60);
    digits(&mut form[30..33], fraction);
    // The zeros at the end of the fraction are not written, and neither is a fraction of nothing but zeros.
    let end = match fraction {
        0 => 29,
        _ if fraction % 100 == 0 => 31,
        _ if fraction % 10 == 0 => 32,
        _ => 33,
    };
    put(out, &form[..end])?;
    put(out, b"Z\"}")
}

fn digits(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day from the days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn text(out: &mut Vec<u8>, value: &str) -> Written {
    let mut bytes = value.as_bytes();
    put(out, b"\"")?;
    loop {
        let (plain, rest) = bytes.split_at(plain_prefix(bytes));
        put(out, plain)?;
        let Some((&byte, rest)) = rest.split_first() else {
            return put(out, b"\"");
        };
        escape(out, byte)?;
        bytes = rest;
    }
}

/// How many bytes from the front need no escape.
fn plain_prefix(bytes: &[u8]) -> usize {
    let mut from = 0;
    // Without an exit in its middle, the inner loop becomes a few vector instructions.
    for chunk in bytes.chunks_exact(32) {
        if chunk.iter().fold(false, |found, byte| found | special(*byte)) {
            break;
        }
        from += 32;
    }
    let rest = &bytes[from..];
    from + rest.iter().position(|byte| special(*byte)).unwrap_or(rest.len())
}

#[inline(always)]
fn special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn escape(out: &mut Vec<u8>, byte: u8) -> Written {
    match byte {
        b'"' => put(out, b"\\\""),
        b'\\' => put(out, b"\\\\"),
        0x08 => put(out, b"\\b"),
        b'\t' => put(out, b"\\t"),
        b'\n' => put(out, b"\\n"),
        0x0c => put(out, b"\\f"),
        b'\r' => put(out, b"\\r"),
        _ => {
            put(out, b"\\u00")?;
            put(out, &hexadecimal(byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fields: &[u8]) -> Vec<u8> {
        let mut raw = vec![0; 4];
        raw.extend_from_slice(b"\x03_id\0\x13\0\0\0\x02_data\0\x03\0\0\082\0\0");
        raw.extend_from_slice(b"\x02operationType\0\x07\0\0\0insert\0");
        raw.extend_from_slice(fields);
        raw.push(0);
        let length = (raw.len() as i32).to_le_bytes();
        raw[..4].copy_from_slice(&length);
        raw
    }

    fn body(fields: &[u8]) -> Result<String, Left> {
        let mut out = Vec::new();
        encode(&event(fields), &mut out)?;
        Ok(String::from_utf8(out).expect("JSON is UTF-8"))
    }

    fn date_of(millis: i64) -> String {
        let mut out = Vec::new();
        date(&mut out, millis).expect("there is memory");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn an_event_names_itself() {
        let raw = event(b"\x09wallTime\0\xc4\x09\0\0\0\0\0\0");
        let mut out = b"before".to_vec();
        let event = encode(&raw, &mut out).expect("a good event");
        assert_eq!((event.token, event.operation, event.wall_time), ("82", "insert", 2.5));
        assert!(out.starts_with(b"before{\"_id\":{\"_data\":\"82\"},\"operationType\":\"insert\""));
    }

    #[test]
    fn texts_are_escaped_wherever_the_byte_is() {
        for length in 0..100 {
            let mut out = Vec::new();
            text(
                &mut out,
                &format!("{}\"\u{1}\n{}", "a".repeat(length), "b".repeat(length)),
            )
            .expect("memory");
            let expected = format!("\"{}\\\"\\u0001\\n{}\"", "a".repeat(length), "b".repeat(length));
            assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
        }
    }

    #[test]
    fn dates_are_texts_from_1970_to_9999_only() {
        assert_eq!(date_of(0), r#"{"$date":"1970-01-01T00:00:00Z"}"#);
        assert_eq!(date_of(951_782_400_120), r#"{"$date":"2000-02-29T00:00:00.12Z"}"#);
        assert_eq!(date_of(LAST_DATE), r#"{"$date":"9999-12-31T23:59:59.999Z"}"#);
        assert_eq!(date_of(LAST_DATE + 1), r#"{"$date":{"$numberLong":"253402300800000"}}"#);
        assert_eq!(date_of(-1), r#"{"$date":{"$numberLong":"-1"}}"#);
    }

    #[test]
    fn what_is_cut_or_too_deep_is_left() {
        let whole = event(b"\x10n\0\x01\0\0\0");
        for length in 0..whole.len() {
            assert!(encode(&whole[..length], &mut Vec::new()).is_err());
        }
        let mut nested = b"\x05\0\0\0\0".to_vec();
        for depth in 1..=MAX_DEPTH + 1 {
            let field = [b"\x03d\0", &nested[..]].concat();
            assert_eq!(body(&field).is_ok(), depth < MAX_DEPTH, "{depth}");
            nested = [&(field.len() as i32 + 5).to_le_bytes(), &field[..], b"\0"].concat();
        }
    }

    #[test]
    fn what_no_driver_writes_is_left_unread() {
        assert_eq!(
            body(b"\x0fc\0\x0e\0\0\0\x7f\0\0\0\0\x05\0\0\0\0"),
            Err(Left::ToReference)
        );
        assert_eq!(body(b"\x0cp\0\x01\0\0\0\0............"), Err(Left::ToReference));
    }
}
