//! One event as relaxed Extended JSON v2, written as `app/formats/extended_json.py` writes it.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

use crate::raw::{are_plain, kind, Damaged, Elements, Name};

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
    /// Kind and value of `ns`, if it has one.
    pub(crate) ns: Option<(u8, Elements<'a>)>,
}

impl<'a> Event<'a> {
    /// What `ns` holds; nothing where there is none.
    pub fn namespace(&self) -> Result<Elements<'a>, Left> {
        match self.ns {
            Some((kind::DOCUMENT, mut value)) => Ok(value.document()?),
            Some(_) => Err(Left::ToReference),
            None => Ok(Elements::default()),
        }
    }
}

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// Damaged, or of a kind that the reference handles.
    ToReference,
    /// Not a fault of the event: an allocation failed.
    OutOfMemory,
}

impl From<Damaged> for Left {
    fn from(_: Damaged) -> Self {
        Left::ToReference
    }
}

impl From<std::str::Utf8Error> for Left {
    fn from(_: std::str::Utf8Error) -> Self {
        Left::ToReference
    }
}

impl From<std::collections::TryReserveError> for Left {
    fn from(_: std::collections::TryReserveError) -> Self {
        Left::OutOfMemory
    }
}

pub(crate) type Written = Result<(), Left>;

/// Appends the event's JSON to `out`. After an error, `out` may end in a part of it.
pub fn encode<'a>(raw: &'a [u8], out: &mut Vec<u8>) -> Result<Event<'a>, Left> {
    let mut elements = Elements::of(raw)?;
    let (mut token, mut operation, mut wall_time, mut ns) = (None, None, 0.0, None);
    put(out, b"{")?;
    let mut first = true;
    while let Some((kind, name)) = elements.next_element()? {
        let value = elements; // to be read a second time
        key(out, first, name)?;
        first = false;
        write(out, kind, &mut elements, 1)?;
        // Of a name that comes twice the last one counts, as in Python.
        match name.bytes {
            b"_id" => token = token_of(kind, value)?,
            b"operationType" => operation = text_of(kind, value)?,
            b"ns" => ns = Some((kind, value)),
            b"wallTime" => wall_time = seconds(kind, value)?,
            _ => {}
        }
    }
    put(out, b"}")?;
    match (token, operation) {
        (Some(token), Some(operation)) => Ok(Event {
            token,
            operation,
            wall_time,
            ns,
        }),
        _ => Err(Left::ToReference),
    }
}

fn token_of(kind: u8, mut value: Elements<'_>) -> Result<Option<&str>, Left> {
    if kind != kind::DOCUMENT {
        return Ok(None);
    }
    let mut id = value.document()?;
    let mut token = None;
    while let Some((kind, name)) = id.next_element()? {
        if name.bytes == b"_data" {
            token = text_of(kind, id)?;
        }
        pass(kind, &mut id)?;
    }
    Ok(token)
}

pub fn text_of(kind: u8, mut value: Elements<'_>) -> Result<Option<&str>, Left> {
    match kind {
        kind::STRING => Ok(Some(std::str::from_utf8(value.string()?)?)),
        _ => Ok(None),
    }
}

pub(crate) fn seconds(kind: u8, mut value: Elements<'_>) -> Result<f64, Left> {
    if kind != kind::DATE {
        return Ok(0.0);
    }
    let millis = i64::from_le_bytes(value.fixed()?);
    if (-EXACT..=EXACT).contains(&millis) {
        Ok(millis as f64 / 1000.0)
    } else {
        Err(Left::ToReference)
    }
}

/// Passes over a value in a resume token; there is nothing but texts and bytes in one.
fn pass(kind: u8, value: &mut Elements<'_>) -> Written {
    match kind {
        kind::STRING => value.string().map(drop)?,
        kind::BINARY => value.binary().map(drop)?,
        _ => return Err(Left::ToReference),
    }
    Ok(())
}

pub(crate) fn document(out: &mut Vec<u8>, mut elements: Elements<'_>, depth: usize) -> Written {
    put(out, b"{")?;
    let mut first = true;
    while let Some((kind, name)) = elements.next_element()? {
        key(out, first, name)?;
        first = false;
        write(out, kind, &mut elements, depth)?;
    }
    put(out, b"}")
}

fn array(out: &mut Vec<u8>, mut elements: Elements<'_>, depth: usize) -> Written {
    put(out, b"[")?;
    let mut first = true;
    while let Some((kind, name)) = elements.next_element()? {
        if !name.plain {
            return Err(Left::ToReference); // no index
        }
        if !first {
            put(out, b",")?;
        }
        first = false;
        write(out, kind, &mut elements, depth)?;
    }
    put(out, b"]")
}

#[inline(always)]
pub(crate) fn key(out: &mut Vec<u8>, first: bool, name: Name<'_>) -> Written {
    if !first {
        put(out, b",")?;
    }
    if name.plain {
        put(out, b"\"")?;
        put(out, name.bytes)?;
        return put(out, b"\":");
    }
    text(out, name.bytes)?;
    put(out, b":")
}

/// Writes the value of this type that comes next. Left to the reference is what no current driver writes.
pub(crate) fn write(out: &mut Vec<u8>, kind: u8, value: &mut Elements<'_>, depth: usize) -> Written {
    match kind {
        kind::DOCUMENT | kind::ARRAY if depth >= MAX_DEPTH => Err(Left::ToReference),
        kind::DOCUMENT => document(out, value.document()?, depth + 1),
        kind::ARRAY => array(out, value.document()?, depth + 1),
        kind::STRING | kind::SYMBOL => text(out, value.string()?),
        kind::INT32 => integer(out, i32::from_le_bytes(value.fixed()?)),
        kind::INT64 => integer(out, i64::from_le_bytes(value.fixed()?)),
        kind::DOUBLE => double(out, f64::from_le_bytes(value.fixed()?)),
        kind::BOOLEAN => match value.fixed()? {
            [0] => put(out, b"false"),
            [1] => put(out, b"true"),
            _ => Err(Left::ToReference),
        },
        kind::NULL | kind::UNDEFINED => put(out, b"null"),
        kind::OBJECT_ID => object_id(out, value.fixed()?),
        kind::DATE => date(out, i64::from_le_bytes(value.fixed()?)),
        kind::TIMESTAMP => {
            let increment = u32::from_le_bytes(value.fixed()?);
            put(out, b"{\"$timestamp\":{\"t\":")?;
            integer(out, u32::from_le_bytes(value.fixed()?))?;
            put(out, b",\"i\":")?;
            integer(out, increment)?;
            put(out, b"}}")
        }
        kind::DECIMAL128 => {
            put(out, b"{\"$numberDecimal\":\"")?;
            put(out, bson::Decimal128::from_bytes(value.fixed()?).to_string().as_bytes())?;
            put(out, b"\"}")
        }
        kind::BINARY => {
            let (bytes, subtype) = value.binary()?;
            binary(out, bytes, subtype)
        }
        kind::REGEX => {
            put(out, b"{\"$regularExpression\":{\"pattern\":")?;
            text(out, value.c_string()?)?;
            put(out, b",\"options\":\"")?;
            let options = std::str::from_utf8(value.c_string()?)?;
            for letter in ["i", "l", "m", "s", "u", "x"] {
                if options.contains(letter) {
                    put(out, letter.as_bytes())?;
                }
            }
            put(out, b"\"}}")
        }
        kind::CODE => {
            put(out, b"{\"$code\":")?;
            text(out, value.string()?)?;
            put(out, b"}")
        }
        kind::MIN_KEY => put(out, b"{\"$minKey\":1}"),
        kind::MAX_KEY => put(out, b"{\"$maxKey\":1}"),
        _ => Err(Left::ToReference),
    }
}

/// Every byte goes through here: a failed allocation is an error, where Vec alone would end the process.
#[inline(always)]
pub(crate) fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Written {
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

pub(crate) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) -> Written {
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
    if let Some(hundredths) = hundredths(value) {
        if value < 0.0 {
            put(out, b"-")?;
        }
        integer(out, hundredths / 100)?;
        let (tenth, rest) = (hundredths / 10 % 10, hundredths % 10);
        let digits = [b'.', b'0' + tenth as u8, b'0' + rest as u8];
        return put(out, if rest == 0 { &digits[..2] } else { &digits });
    }
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

/// The value times a hundred where it is a number of hundredths, as most amounts are: its digits are known then.
///
/// A quotient is the double that is nearest to it, so the value is what these digits are read as. And two texts of up to
/// fifteen digits are never read as the same double, so no shorter one is.
fn hundredths(value: f64) -> Option<u64> {
    let size = value.abs();
    let hundredths = (size * 100.0 + 0.5) as u64;
    (size > 0.0 && size < 1e13 && hundredths as f64 / 100.0 == size).then_some(hundredths)
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

fn binary(out: &mut Vec<u8>, bytes: &[u8], subtype: u8) -> Written {
    put(out, b"{\"$binary\":{\"base64\":\"")?;
    let (from, length) = (out.len(), bytes.len().div_ceil(3) * 4);
    out.try_reserve(length)?;
    out.resize(from + length, 0);
    STANDARD
        .encode_slice(bytes, &mut out[from..])
        .map_err(|_| Left::ToReference)?;
    put(out, b"\",\"subType\":\"")?;
    put(out, &hexadecimal(subtype))?;
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

/// A text. Only one that is not ASCII has to be looked at a second time, for whether it is UTF-8.
pub(crate) fn text(out: &mut Vec<u8>, value: &[u8]) -> Written {
    put(out, b"\"")?;
    if !are_plain(value) {
        escaped(out, utf8(value)?)?;
    } else {
        put(out, value)?;
    }
    put(out, b"\"")
}

fn utf8(bytes: &[u8]) -> Result<&[u8], Left> {
    let valid = if bytes.len() < 64 {
        std::str::from_utf8(bytes).is_ok()
    } else {
        simdutf8::basic::from_utf8(bytes).is_ok()
    };
    valid.then_some(bytes).ok_or(Left::ToReference)
}

fn escaped(out: &mut Vec<u8>, mut bytes: &[u8]) -> Written {
    loop {
        let (plain, rest) = bytes.split_at(unescaped(bytes));
        put(out, plain)?;
        let Some((&byte, rest)) = rest.split_first() else {
            return Ok(());
        };
        escape(out, byte)?;
        bytes = rest;
    }
}

/// How many bytes from the front need no escape.
fn unescaped(bytes: &[u8]) -> usize {
    let mut from = 0;
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
            let value = format!("{}\"\u{1}\n{}", "a".repeat(length), "b".repeat(length));
            text(&mut out, value.as_bytes()).expect("memory");
            let expected = format!("\"{}\\\"\\u0001\\n{}\"", "a".repeat(length), "b".repeat(length));
            assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
        }
    }

    #[test]
    fn amounts_are_written_as_every_other_double() {
        let written = |value: f64| {
            let mut out = Vec::new();
            finite(&mut out, value).expect("there is memory");
            String::from_utf8(out).expect("ASCII")
        };
        for (value, expected) in [
            (0.01, "0.01"),
            (-0.1, "-0.1"),
            (34.5, "34.5"),
            (345.0, "345.0"),
            (-7.25, "-7.25"),
        ] {
            assert_eq!(written(value), expected);
        }
        for value in [
            0.0,
            -0.0,
            0.001,
            0.005,
            1e-7,
            1.005,
            0.1 + 0.2,
            1e13,
            9_999_999_999_999.99,
            1e15,
            0.07,
            1.15,
        ] {
            assert_eq!(written(value), ryu::Buffer::new().format_finite(value).to_owned());
        }
        let mut state = 1_u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let value = (state >> 20) as f64 / [1.0, 10.0, 100.0, 1000.0, 1e7][(state % 5) as usize];
            assert_eq!(
                written(value),
                ryu::Buffer::new().format_finite(value).replace("e1", "e+1"),
                "{value:?}"
            );
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
