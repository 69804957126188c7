//! A block of a snapshot's rows, out of the documents as they were read. The reference is `app/domain/row_events.py`.
//!
//! A row is the JSON of an event that never exists as BSON: its head is written here, and the document after it.

use crate::block::{pack_with, Block, Refused, Rules};
use crate::json::{document, integer, key, put, seconds, text, write, Event, Left};
use crate::raw::{are_plain, kind, Elements};

/// The operation of every row.
pub const OPERATION: &str = "snapshot";
/// The digits of a row's number, which ends its place.
const DIGITS: usize = 6;
/// About how many bytes the JSON of a row has before its document.
const HEAD_BYTES: usize = 320;

/// What the rows of a chunk have in common.
pub struct Head<'a> {
    /// Their places, without the number at the end.
    pub place: &'a str,
    /// The cluster time that they were read as of: seconds, and the increment.
    pub time: (u32, u32),
    /// Database and collection of whole documents. None where what was read are events, which a pipeline has made.
    pub names: Option<(&'a str, &'a str)>,
}

/// Makes a block of what was read, found between these bounds of `buffer`. Of `rules` the operations are not looked at.
///
/// Refused is what `block::pack` would refuse, and a document without an `_id`.
pub fn pack_rows(
    buffer: &[u8],
    starts: &[usize],
    ends: &[usize],
    head: &Head<'_>,
    rules: &Rules<'_>,
) -> Result<Block, Refused> {
    let (places, width) = places(head.place, starts.len())?;
    let (between, namespace) = match head.names {
        Some(names) => (between(head.time, names).map_err(Refused::from)?, namespace(names)),
        None => (Vec::new(), Vec::new()),
    };
    let operations = [OPERATION.to_owned()];
    let rules = Rules {
        operations: &operations,
        ..*rules
    };
    let beside = HEAD_BYTES * starts.len();
    pack_with(buffer, starts, ends, &rules, beside, |index, raw, out| {
        let place = &places[index * width..(index + 1) * width];
        match head.names {
            Some(_) => of_document(raw, place, &between, &namespace, out),
            None => of_event(raw, place, out),
        }
    })
}

impl From<Left> for Refused {
    fn from(left: Left) -> Self {
        match left {
            Left::ToReference => Refused::Irregular,
            Left::OutOfMemory => Refused::OutOfMemory,
        }
    }
}

/// The places of so many rows behind one another, and the bytes of each.
fn places(before: &str, count: usize) -> Result<(String, usize), Refused> {
    if count > 10_usize.pow(DIGITS as u32) || !are_plain(before.as_bytes()) {
        return Err(Refused::Irregular);
    }
    let width = before.len() + DIGITS;
    let mut places = String::new();
    places.try_reserve_exact(width * count)?;
    for row in 0..count {
        places.push_str(before);
        let mut power = 10_usize.pow(DIGITS as u32 - 1);
        while power > 0 {
            places.push(char::from(b'0' + (row / power % 10) as u8));
            power /= 10;
        }
    }
    Ok((places, width))
}

/// The JSON between a row's place and its key.
fn between((seconds, increment): (u32, u32), (database, collection): (&str, &str)) -> Result<Vec<u8>, Left> {
    let mut out = Vec::new();
    put(
        &mut out,
        b"\"},\"operationType\":\"snapshot\",\"clusterTime\":{\"$timestamp\":{\"t\":",
    )?;
    integer(&mut out, seconds)?;
    put(&mut out, b",\"i\":")?;
    integer(&mut out, increment)?;
    put(&mut out, b"}},\"ns\":{\"db\":")?;
    text(&mut out, database.as_bytes())?;
    put(&mut out, b",\"coll\":")?;
    text(&mut out, collection.as_bytes())?;
    put(&mut out, b"},\"documentKey\":{\"_id\":")?;
    Ok(out)
}

/// The `ns` of these names as an event has it.
fn namespace((database, collection): (&str, &str)) -> Vec<u8> {
    let mut fields = Vec::new();
    for (name, value) in [("db", database), ("coll", collection)] {
        fields.push(kind::STRING);
        fields.extend_from_slice(name.as_bytes());
        fields.push(0);
        fields.extend_from_slice(&(value.len() as i32 + 1).to_le_bytes());
        fields.extend_from_slice(value.as_bytes());
        fields.push(0);
    }
    let mut whole = (fields.len() as i32 + 5).to_le_bytes().to_vec();
    whole.append(&mut fields);
    whole.push(0);
    whole
}

/// Appends the row of a document.
fn of_document<'a>(
    raw: &'a [u8],
    place: &'a str,
    between: &[u8],
    namespace: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<Event<'a>, Left> {
    let whole = Elements::of(raw)?;
    let mut elements = whole;
    let (kind, mut id) = loop {
        let (kind, name) = elements.next_element()?.ok_or(Left::ToReference)?;
        if name.bytes == b"_id" {
            break (kind, elements);
        }
        elements.skip(kind)?;
    };
    put(out, b"{\"_id\":{\"_data\":\"")?;
    put(out, place.as_bytes())?;
    put(out, between)?;
    write(out, kind, &mut id, 2)?;
    put(out, b"},\"fullDocument\":")?;
    document(out, whole, 2)?;
    put(out, b"}")?;
    Ok(Event {
        token: place,
        operation: OPERATION,
        wall_time: 0.0,
        ns: Some((kind::DOCUMENT, Elements::at(namespace))),
    })
}

/// Appends the row of an event: place and operation are the row's.
fn of_event<'a>(raw: &'a [u8], place: &'a str, out: &mut Vec<u8>) -> Result<Event<'a>, Left> {
    let mut elements = Elements::of(raw)?;
    let (mut wall_time, mut ns) = (0.0, None);
    put(out, b"{\"_id\":{\"_data\":\"")?;
    put(out, place.as_bytes())?;
    put(out, b"\"},\"operationType\":\"snapshot\"")?;
    while let Some((kind, name)) = elements.next_element()? {
        let value = elements; // to be read a second time
        match name.bytes {
            b"_id" | b"operationType" => {
                elements.skip(kind)?;
                continue;
            }
            b"ns" => ns = Some((kind, value)),
            b"wallTime" => wall_time = seconds(kind, value)?,
            _ => {}
        }
        key(out, false, name)?;
        write(out, kind, &mut elements, 1)?;
    }
    put(out, b"}")?;
    Ok(Event {
        token: place,
        operation: OPERATION,
        wall_time,
        ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::event;
    use crate::subject::Template;

    const HEAD: Head<'_> = Head {
        place: "82M:0:s:0123456789ab:00000003.",
        time: (17, 4),
        names: Some(("shop", "orders")),
    };
    const RULES: Rules<'_> = Rules {
        suffix: "",
        last: "82M",
        operations: &[],
        fits: (1000, 100),
        template: None,
    };
    /// `{"a": 1, "_id": "k"}`
    const DOCUMENT: &[u8] = b"\x17\0\0\0\x10a\0\x01\0\0\0\x02_id\0\x02\0\0\0k\0\0";

    fn twice(raw: &[u8], head: &Head<'_>, rules: &Rules<'_>) -> Result<Block, Refused> {
        let length = raw.len();
        let (starts, ends) = ([0, length + 1], [length, 2 * length + 1]);
        pack_rows(&[raw, b"-", raw].concat(), &starts, &ends, head, rules)
    }

    fn body(block: &Block, index: usize) -> String {
        String::from_utf8(block.get(index).expect("there").body.to_vec()).expect("JSON is UTF-8")
    }

    #[test]
    fn a_document_becomes_a_row_with_its_place_and_its_key() {
        let block = twice(DOCUMENT, &HEAD, &RULES).expect("regular");
        assert_eq!((block.len(), block.operations()), (2, &[OPERATION.to_owned()][..]));
        let place = format!("{}000001", HEAD.place);
        assert_eq!(block.get(1).expect("there").token, place.as_bytes());
        assert_eq!(
            body(&block, 1),
            format!(
                "{{\"_id\":{{\"_data\":\"{place}\"}},\"operationType\":\"snapshot\",\
                 \"clusterTime\":{{\"$timestamp\":{{\"t\":17,\"i\":4}}}},\"ns\":{{\"db\":\"shop\",\"coll\":\"orders\"}},\
                 \"documentKey\":{{\"_id\":\"k\"}},\"fullDocument\":{{\"a\":1,\"_id\":\"k\"}}}}"
            )
        );
    }

    #[test]
    fn an_event_keeps_all_but_its_id_and_its_operation() {
        let head = Head { names: None, ..HEAD };
        let block = twice(&event("82B", "insert", 2), &head, &RULES).expect("regular");
        let place = format!("{}000000", HEAD.place);
        assert_eq!(
            body(&block, 0),
            format!("{{\"_id\":{{\"_data\":\"{place}\"}},\"operationType\":\"snapshot\",\"text\":\"xx\"}}")
        );
    }

    #[test]
    fn rows_have_the_subject_of_their_collection() {
        let template = Template::of(&["S.", "database", ".", "collection", ".", "operation", ""]);
        let rules = Rules {
            template: template.as_ref(),
            ..RULES
        };
        let block = twice(DOCUMENT, &HEAD, &rules).expect("regular");
        assert_eq!(block.subjects(), Some(&["S.shop.orders.snapshot".to_owned()][..]));
    }

    #[test]
    fn what_is_not_regular_is_refused() {
        let refused = |raw: &[u8], rules: &Rules<'_>| twice(raw, &HEAD, rules).err() == Some(Refused::Irregular);
        assert!(refused(b"\x05\0\0\0\0", &RULES), "without an _id");
        assert!(refused(&DOCUMENT[1..], &RULES), "damaged");
        assert!(
            refused(DOCUMENT, &Rules { last: "82N", ..RULES }),
            "not later than the last"
        );
        assert!(
            refused(
                DOCUMENT,
                &Rules {
                    fits: (200, 100),
                    ..RULES
                }
            ),
            "too large"
        );
        assert!(
            refused(
                DOCUMENT,
                &Rules {
                    fits: (1000, 36),
                    ..RULES
                }
            ),
            "too long an id"
        );
    }
}
