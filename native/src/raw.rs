//! BSON as it lies in memory, element by element, without an object for anything.
//!
//! Every read is checked against the bounds of what holds it. What is not as BSON has it is `Damaged`, and nothing more is
//! said about it: the reference says it.

/// The bytes are not as BSON has them.
#[derive(Debug, PartialEq, Eq)]
pub struct Damaged;

type Read<T> = Result<T, Damaged>;

/// The types of elements.
pub mod kind {
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOLEAN: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0a;
    pub const REGEX: u8 = 0x0b;
    pub const DB_POINTER: u8 = 0x0c;
    pub const CODE: u8 = 0x0d;
    pub const SYMBOL: u8 = 0x0e;
    pub const CODE_WITH_SCOPE: u8 = 0x0f;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL128: u8 = 0x13;
    pub const MAX_KEY: u8 = 0x7f;
    pub const MIN_KEY: u8 = 0xff;
}

/// The name of an element, without the NUL behind it.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pub bytes: &'a [u8],
    /// Whether it is ASCII and JSON has it as it is.
    pub plain: bool,
}

/// The rest of a document's elements. A copy of it reads the same ones again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The elements of the document that these bytes are.
    pub fn of(document: &'a [u8]) -> Read<Self> {
        let (length, rest) = document.split_first_chunk().ok_or(Damaged)?;
        match rest.split_last() {
            Some((0, elements)) if usize::try_from(i32::from_le_bytes(*length)) == Ok(document.len()) => {
                Ok(Elements(elements))
            }
            _ => Err(Damaged),
        }
    }

    /// A value that is these bytes, to be read next.
    pub(crate) fn at(value: &'a [u8]) -> Self {
        Elements(value)
    }

    /// The bytes of these elements.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Type and name of the next element, whose value has to be read next.
    #[inline(always)]
    pub fn next_element(&mut self) -> Read<Option<(u8, Name<'a>)>> {
        let Some((&kind, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        let (name, rest) = name(rest)?;
        self.0 = rest;
        Ok(Some((kind, name)))
    }

    /// A value of `N` bytes.
    #[inline(always)]
    pub fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*value)
    }

    /// A text with its length in front: its bytes, without the NUL behind it.
    #[inline(always)]
    pub fn string(&mut self) -> Read<&'a [u8]> {
        let length = self.length()?;
        match self.take(length)?.split_last() {
            Some((0, text)) => Ok(text),
            _ => Err(Damaged),
        }
    }

    /// The elements of a document or an array.
    #[inline(always)]
    pub fn document(&mut self) -> Read<Elements<'a>> {
        let length = i32::from_le_bytes(*self.0.first_chunk().ok_or(Damaged)?);
        Elements::of(self.take(usize::try_from(length).map_err(|_| Damaged)?)?)
    }

    /// Bytes, and their subtype. Those of subtype 2 have their length a second time in front, which is left out.
    pub fn binary(&mut self) -> Read<(&'a [u8], u8)> {
        let length = self.length()?;
        let [subtype] = self.fixed()?;
        let bytes = self.take(length)?;
        if subtype != 2 {
            return Ok((bytes, subtype));
        }
        let mut inner = Elements(bytes);
        match inner.length()? == inner.0.len() {
            true => Ok((inner.0, subtype)),
            false => Err(Damaged),
        }
    }

    /// A text that ends with a NUL.
    pub fn c_string(&mut self) -> Read<&'a [u8]> {
        let (text, rest) = name(self.0)?;
        self.0 = rest;
        Ok(text.bytes)
    }

    /// Passes over the value of an element.
    #[inline(always)]
    pub fn skip(&mut self, kind: u8) -> Read<()> {
        match kind {
            kind::DOCUMENT | kind::ARRAY | kind::CODE_WITH_SCOPE => {
                let length = i32::from_le_bytes(*self.0.first_chunk().ok_or(Damaged)?);
                self.take(usize::try_from(length).map_err(|_| Damaged)?)?;
            }
            kind::STRING | kind::CODE | kind::SYMBOL => drop(self.string()?),
            kind::BINARY => {
                let length = self.length()?;
                self.take(length.checked_add(1).ok_or(Damaged)?)?;
            }
            kind::REGEX => {
                self.c_string()?;
                self.c_string()?;
            }
            kind::DB_POINTER => {
                self.string()?;
                self.take(12)?;
            }
            kind::OBJECT_ID => drop(self.take(12)?),
            kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => drop(self.take(8)?),
            kind::DECIMAL128 => drop(self.take(16)?),
            kind::INT32 => drop(self.take(4)?),
            kind::BOOLEAN => drop(self.take(1)?),
            kind::NULL | kind::UNDEFINED | kind::MIN_KEY | kind::MAX_KEY => {}
            _ => return Err(Damaged),
        }
        Ok(())
    }

    #[inline(always)]
    fn length(&mut self) -> Read<usize> {
        usize::try_from(i32::from_le_bytes(self.fixed()?)).map_err(|_| Damaged)
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// The high bit of each of eight bytes that JSON does not have as it is, or that is not ASCII. Above the lowest such byte
/// there may be bits too many.
#[inline(always)]
fn odd(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (word | control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')))) & HIGH
}

/// Whether JSON has the byte as it is, and it is ASCII.
#[inline(always)]
pub fn is_plain(byte: u8) -> bool {
    (0x20..0x80).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

/// Whether JSON has all of these bytes as they are, and they are ASCII.
#[inline(always)]
pub fn are_plain(bytes: &[u8]) -> bool {
    let chunks = bytes.chunks_exact(32);
    let rest = chunks.remainder();
    // Without an exit in its middle, the inner loop becomes a few vector instructions.
    for chunk in chunks {
        if !chunk.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
            return false;
        }
    }
    let words = rest.chunks_exact(8);
    let few = words.remainder();
    let mut found = 0;
    for word in words {
        found |= odd(u64::from_le_bytes(word.try_into().unwrap_or_default()));
    }
    found == 0 && few.iter().all(|byte| is_plain(*byte))
}

/// The text before the next NUL, and what follows it.
#[inline(always)]
fn name(bytes: &[u8]) -> Read<(Name<'_>, &[u8])> {
    let (mut from, mut found) = (0, 0);
    // Eight bytes at a time: a name is short, and there are as many names as values.
    while let Some(word) = bytes[from..].first_chunk() {
        let word = u64::from_le_bytes(*word);
        let nul = word.wrapping_sub(ONES) & !word & HIGH;
        if nul != 0 {
            let before = nul.trailing_zeros() & !7;
            found |= odd(word) & ((1 << before) - 1);
            return Ok(split(bytes, from + (before / 8) as usize, found == 0));
        }
        found |= odd(word);
        from += 8;
    }
    let end = from + bytes[from..].iter().position(|byte| *byte == 0).ok_or(Damaged)?;
    Ok(split(
        bytes,
        end,
        found == 0 && bytes[from..end].iter().all(|byte| is_plain(*byte)),
    ))
}

#[inline(always)]
fn split(bytes: &[u8], end: usize, plain: bool) -> (Name<'_>, &[u8]) {
    let (text, rest) = bytes.split_at(end);
    (Name { bytes: text, plain }, &rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_nul_and_knows_whether_it_is_plain() {
        for length in 0..40 {
            for behind in 0..20 {
                let mut bytes = vec![b'a'; length];
                bytes.push(0);
                bytes.extend(vec![b'"'; behind]);
                let (found, rest) = name(&bytes).expect("there is a NUL");
                assert_eq!((found.bytes.len(), rest.len(), found.plain), (length, behind, true));
                for place in 0..length {
                    for odd in [b'"', b'\\', 0x1f, 0x80, 0xff, 1] {
                        bytes[place] = odd;
                        let (found, _) = name(&bytes).expect("there is a NUL");
                        assert_eq!((found.bytes.len(), found.plain), (length, false));
                    }
                    bytes[place] = b'a';
                }
            }
            assert!(name(&vec![b'a'; length]).is_err());
        }
    }

    #[test]
    fn a_value_of_any_kind_is_passed_over() {
        let values: [(u8, &[u8]); 21] = [
            (kind::DOUBLE, &[0; 8]),
            (kind::STRING, b"\x02\0\0\0a\0"),
            (kind::DOCUMENT, b"\x05\0\0\0\0"),
            (kind::ARRAY, b"\x05\0\0\0\0"),
            (kind::BINARY, b"\x01\0\0\0\x80a"),
            (kind::UNDEFINED, b""),
            (kind::OBJECT_ID, &[0; 12]),
            (kind::BOOLEAN, b"\x01"),
            (kind::DATE, &[0; 8]),
            (kind::NULL, b""),
            (kind::REGEX, b"a\0i\0"),
            (kind::DB_POINTER, b"\x02\0\0\0a\0............"),
            (kind::CODE, b"\x02\0\0\0a\0"),
            (kind::SYMBOL, b"\x02\0\0\0a\0"),
            (kind::CODE_WITH_SCOPE, b"\x0f\0\0\0\x02\0\0\0a\0\x05\0\0\0\0"),
            (kind::INT32, &[0; 4]),
            (kind::TIMESTAMP, &[0; 8]),
            (kind::INT64, &[0; 8]),
            (kind::DECIMAL128, &[0; 16]),
            (kind::MAX_KEY, b""),
            (kind::MIN_KEY, b""),
        ];
        for (kind, value) in values {
            let mut behind = Elements(value);
            assert!(behind.skip(kind).is_ok(), "{kind:#04x}");
            assert!(behind.0.is_empty(), "{kind:#04x}");
            if let Some((_, short)) = value.split_last() {
                assert!(Elements(short).skip(kind).is_err(), "{kind:#04x}");
            }
        }
    }

    #[test]
    fn every_byte_is_plain_or_not_wherever_it_is() {
        for byte in 0..=255 {
            let plain = (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
            for length in 1..70 {
                for place in [0, length / 2, length - 1] {
                    let mut bytes = vec![b'~'; length];
                    bytes[place] = byte;
                    assert_eq!(are_plain(&bytes), plain, "{byte} at {place} of {length}");
                }
            }
        }
        assert!(are_plain(b""));
    }

    #[test]
    fn a_length_that_does_not_fit_is_damage() {
        assert!(Elements::of(b"\x05\0\0\0\0").is_ok());
        for bytes in [
            &b""[..],
            b"\0",
            b"\x04\0\0\0",
            b"\x06\0\0\0\0",
            b"\x05\0\0\0\x01",
            b"\xff\xff\xff\xff\0",
        ] {
            assert!(Elements::of(bytes).is_err());
        }
        for text in [
            &b"\0\0\0\0"[..],
            b"\x02\0\0\0a",
            b"\x01\0\0\0a",
            b"\xff\xff\xff\xff\0",
            b"\x01\0\0",
        ] {
            assert!(Elements(text).string().is_err());
        }
        assert_eq!(Elements(b"\x02\0\0\0a\0rest").string(), Ok(&b"a"[..]));
        for bytes in [&b"\x02\0\0\0\x02ab"[..], b"\x05\0\0\0\x02\x02\0\0\0a", b"\x02\0\0\0\0a"] {
            assert!(Elements(bytes).binary().is_err());
        }
        assert_eq!(Elements(b"\x05\0\0\0\x02\x01\0\0\0a").binary(), Ok((&b"a"[..], 2)));
    }
}
