//! A batch of changes in one piece: the bodies behind one another, and of each change where it begins and what it is.
//!
//! Only a regular batch becomes a block (`pack` says which is). So each change of a block is a message without headers of
//! its own, and nothing about it has to be decided any more.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::json::{encode, Event, Left};
use crate::subject::{names, Template};

/// What a batch has to be like to become a block.
pub struct Rules<'a> {
    /// What follows the token in an id.
    pub suffix: &'a str,
    /// All tokens are later than this one.
    pub last: &'a str,
    /// The operations that are published; changes with others are left out.
    pub operations: &'a [String],
    /// The bytes of a body, and of an id, below which a message surely fits.
    pub fits: (usize, usize),
    /// What a change's subject is completed from, where it depends on the change's database or collection.
    pub template: Option<&'a Template>,
}

/// Why there is no block.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The batch is not regular: it has to be looked at event by event.
    Irregular,
    /// An allocation failed.
    OutOfMemory,
}

impl From<std::collections::TryReserveError> for Refused {
    fn from(_: std::collections::TryReserveError) -> Self {
        Refused::OutOfMemory
    }
}

/// The changes of a batch.
#[derive(Debug)]
pub struct Block {
    bodies: Vec<u8>,
    tokens: Vec<u8>,
    suffix: String,
    changes: Vec<Entry>,
    operations: Vec<String>,
    /// The subjects of the changes, where they have their own: each one once.
    subjects: Option<Vec<String>>,
}

#[derive(Debug)]
struct Entry {
    /// Where the body and the token end; they begin where those of the change before end.
    body: usize,
    token: usize,
    /// The place of its operation's name, and that of its subject.
    operation: u32,
    subject: u32,
    wall_time: f64,
}

/// One change of a block.
pub struct Change<'a> {
    pub token: &'a [u8],
    pub operation: usize,
    /// The place of its subject: among the block's own ones, or else that of its operation.
    pub subject: usize,
    pub body: &'a [u8],
    pub wall_time: f64,
}

/// Makes a block of the events between these bounds of `buffer`.
///
/// A batch is regular if each of its events is encoded here, if the tokens strictly grow, and if each message surely fits.
pub fn pack(buffer: &[u8], starts: &[usize], ends: &[usize], rules: &Rules<'_>) -> Result<Block, Refused> {
    pack_with(buffer, starts, ends, rules, 0, |_, raw, out| encode(raw, out))
}

/// The same, of whatever `encode` makes an event of: it is given the index, the bytes and where the body goes. `beside`:
/// about how many bytes the bodies have beside what is in the buffer.
pub(crate) fn pack_with<'a>(
    buffer: &'a [u8],
    starts: &[usize],
    ends: &[usize],
    rules: &Rules<'_>,
    beside: usize,
    encode: impl Fn(usize, &'a [u8], &mut Vec<u8>) -> Result<Event<'a>, Left>,
) -> Result<Block, Refused> {
    let mut block = Block {
        bodies: Vec::new(),
        tokens: Vec::new(),
        suffix: rules.suffix.to_owned(),
        changes: Vec::new(),
        operations: Vec::new(),
        subjects: rules.template.map(|_| Vec::new()),
    };
    let mut places = Places::default();
    block.changes.try_reserve_exact(starts.len())?;
    // JSON is mostly a little longer than BSON; where it is more, the piece grows.
    block
        .bodies
        .try_reserve_exact(buffer.len() + buffer.len() / 4 + beside)?;
    let mut last = rules.last.as_bytes();
    for (index, (&start, &end)) in starts.iter().zip(ends).enumerate() {
        let raw = buffer.get(start..end).ok_or(Refused::Irregular)?;
        let from = block.bodies.len();
        // A panic is a bug here or in a library. The batch is left to the reference.
        let event = match catch_unwind(AssertUnwindSafe(|| encode(index, raw, &mut block.bodies))) {
            Ok(Ok(event)) => event,
            Ok(Err(Left::OutOfMemory)) => return Err(Refused::OutOfMemory),
            Ok(Err(Left::ToReference)) | Err(_) => return Err(Refused::Irregular),
        };
        if event.token.as_bytes() <= last {
            return Err(Refused::Irregular);
        }
        last = event.token.as_bytes();
        if !rules.operations.iter().any(|one| one == event.operation) {
            block.bodies.truncate(from);
            continue;
        }
        if block.bodies.len() - from >= rules.fits.0 || last.len() + rules.suffix.len() >= rules.fits.1 {
            return Err(Refused::Irregular);
        }
        block.tokens.try_reserve(last.len())?;
        block.tokens.extend_from_slice(last);
        let operation = block.place_of(event.operation);
        let subject = match (rules.template, &mut block.subjects) {
            (Some(template), Some(subjects)) => places.of(template, &event, operation, subjects)?,
            _ => operation,
        };
        block.changes.push(Entry {
            body: block.bodies.len(),
            token: block.tokens.len(),
            operation,
            subject,
            wall_time: event.wall_time,
        });
    }
    block.bodies.shrink_to_fit();
    Ok(block)
}

impl Block {
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The names of the operations that are in it.
    pub fn operations(&self) -> &[String] {
        &self.operations
    }

    /// The subjects of the changes, where they depend on more than the operation.
    pub fn subjects(&self) -> Option<&[String]> {
        self.subjects.as_deref()
    }

    /// What follows the token in the ids.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// The change with this index, if there is one.
    pub fn get(&self, index: usize) -> Option<Change<'_>> {
        let entry = self.changes.get(index)?;
        let (body, token) = self.begin(index);
        Some(Change {
            token: &self.tokens[token..entry.token],
            operation: entry.operation as usize,
            subject: entry.subject as usize,
            body: &self.bodies[body..entry.body],
            wall_time: entry.wall_time,
        })
    }

    /// The bytes of bodies and ids of these changes.
    pub fn size(&self, range: Range<usize>) -> usize {
        let ((from_body, from_token), (to_body, to_token)) = (self.begin(range.start), self.begin(range.end));
        to_body - from_body + to_token - from_token + range.len() * self.suffix.len()
    }

    /// How many of these changes, from the front, stay within `bytes`, counted with `beside` for each; at least one.
    pub fn fitting(&self, range: Range<usize>, bytes: usize, beside: usize) -> usize {
        let most = range.len();
        let (mut low, mut high) = (most.min(1), most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.size(range.start..range.start + middle) + middle * beside <= bytes {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    /// How many of these changes each operation has, in the order of `operations`.
    pub fn counts(&self, range: Range<usize>) -> Vec<usize> {
        let mut counts = vec![0; self.operations.len()];
        for entry in &self.changes[range] {
            counts[entry.operation as usize] += 1;
        }
        counts
    }

    /// When the server made these changes, earliest first.
    pub fn wall_times(&self, range: Range<usize>) -> Vec<f64> {
        let mut times: Vec<f64> = self.changes[range].iter().map(|entry| entry.wall_time).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// Where body and token of the change with this index begin; behind the last one, where it ends.
    fn begin(&self, index: usize) -> (usize, usize) {
        match index.checked_sub(1).map(|before| &self.changes[before]) {
            Some(before) => (before.body, before.token),
            None => (0, 0),
        }
    }

    fn place_of(&mut self, operation: &str) -> u32 {
        if let Some(place) = self.operations.iter().position(|name| name == operation) {
            return place as u32;
        }
        self.operations.push(operation.to_owned());
        self.operations.len() as u32 - 1
    }
}

/// Which subject belongs to which operation and `ns`, as that stands in the events. Of a batch there are at most as many
/// as there are events.
#[derive(Default)]
struct Places<'a> {
    known: HashMap<(u32, &'a [u8]), u32>,
    /// Mostly one collection is written several times in a row.
    last: Option<((u32, &'a [u8]), u32)>,
}

impl<'a> Places<'a> {
    /// The place of an event's subject among `subjects`, where a new one is added.
    fn of(
        &mut self,
        template: &Template,
        event: &Event<'a>,
        operation: u32,
        subjects: &mut Vec<String>,
    ) -> Result<u32, Refused> {
        let namespace = event.namespace().map_err(|_| Refused::Irregular)?;
        let key = (operation, namespace.bytes());
        if let Some((known, place)) = self.last {
            if known == key {
                return Ok(place);
            }
        }
        let place = match self.known.get(&key) {
            Some(&place) => place,
            None => {
                let (database, collection) = names(namespace).map_err(|_| Refused::Irregular)?;
                let subject = template.subject(database, collection, event.operation);
                subjects.push(subject.ok_or(Refused::Irregular)?);
                self.known.insert(key, subjects.len() as u32 - 1);
                subjects.len() as u32 - 1
            }
        };
        self.last = Some((key, place));
        Ok(place)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An event with this token and operation, and a text of so many bytes.
    pub fn event(token: &str, operation: &str, size: usize) -> Vec<u8> {
        fn text(name: &str, value: &str) -> Vec<u8> {
            let length = (value.len() as i32 + 1).to_le_bytes();
            [b"\x02", name.as_bytes(), b"\0", &length, value.as_bytes(), b"\0"].concat()
        }
        fn document(fields: &[u8]) -> Vec<u8> {
            [&(fields.len() as i32 + 5).to_le_bytes(), fields, b"\0"].concat()
        }
        let fields = [
            b"\x03_id\0".to_vec(),
            document(&text("_data", token)),
            text("operationType", operation),
            text("text", &"x".repeat(size)),
        ];
        document(&fields.concat())
    }

    pub fn packed(events: &[Vec<u8>], rules: &Rules<'_>) -> Result<Block, Refused> {
        let (mut starts, mut ends, mut end) = (Vec::new(), Vec::new(), 0);
        for event in events {
            starts.push(end);
            end += event.len();
            ends.push(end);
        }
        pack(&events.concat(), &starts, &ends, rules)
    }

    pub fn block(events: &[Vec<u8>], suffix: &str) -> Block {
        let operations = ["insert".to_owned(), "update".to_owned()];
        let rules = Rules {
            suffix,
            last: "",
            operations: &operations,
            fits: (1000, 100),
            template: None,
        };
        packed(events, &rules).expect("a regular batch")
    }

    #[test]
    fn a_block_has_the_changes_that_are_selected() {
        let block = block(
            &[
                event("82A", "insert", 3),
                event("82B", "delete", 3),
                event("82C", "update", 5),
                event("82D", "insert", 0),
            ],
            ":2",
        );
        assert_eq!(
            (block.len(), block.operations()),
            (3, &["insert".to_owned(), "update".to_owned()][..])
        );
        let tokens: Vec<_> = (0..3)
            .map(|index| block.get(index).expect("there").token.to_vec())
            .collect();
        assert_eq!(tokens, [b"82A", b"82C", b"82D"]);
        let second = block.get(1).expect("there");
        let body: &[u8] = br#"{"_id":{"_data":"82C"},"operationType":"update","text":"xxxxx"}"#;
        assert_eq!((second.body, second.operation), (body, 1));
        assert!(block.get(3).is_none());
        assert_eq!(block.size(1..2), body.len() + 5);
        assert_eq!(
            block.size(0..3),
            (0..3).map(|index| block.size(index..index + 1)).sum::<usize>()
        );
        assert_eq!((block.size(3..3), block.size(0..0)), (0, 0));
        assert_eq!((block.counts(0..3), block.counts(1..2)), (vec![2, 1], vec![0, 1]));
    }

    #[test]
    fn as_many_fit_as_stay_within_the_bytes_and_one_always() {
        let events: Vec<_> = (100..200)
            .map(|number| event(&format!("82{number}"), "insert", number))
            .collect();
        let block = block(&events, "");
        for bytes in [0, 1, 200, 201, 1000, 5_000, 100_000] {
            let count = block.fitting(3..100, bytes, 10);
            assert!(count == 1 || block.size(3..3 + count) + 10 * count <= bytes);
            assert!(count == 97 || block.size(3..4 + count) + 10 * (count + 1) > bytes);
        }
        assert_eq!(block.fitting(5..5, 10, 1), 0);
    }

    #[test]
    fn what_is_not_regular_is_refused() {
        let operations = ["insert".to_owned()];
        let rules = Rules {
            suffix: ":2",
            last: "82A",
            operations: &operations,
            fits: (100, 6),
            template: None,
        };
        let refused = |events: &[Vec<u8>]| packed(events, &rules).err() == Some(Refused::Irregular);
        assert!(!refused(&[event("82B", "insert", 1), event("82C", "insert", 1)]));
        assert!(refused(&[event("82A", "insert", 1)]), "not later than the last");
        assert!(
            refused(&[event("82B", "insert", 1), event("82B", "insert", 1)]),
            "twice the same"
        );
        assert!(
            refused(&[event("82C", "delete", 1), event("82B", "insert", 1)]),
            "earlier than one left out"
        );
        assert!(refused(&[event("82B", "insert", 100)]), "too large");
        assert!(refused(&[event("82BB", "insert", 1)]), "too long an id");
        let whole = event("82B", "insert", 1);
        assert!(refused(&[whole[..whole.len() - 1].to_vec()]), "damaged");
        assert_eq!(
            pack(&whole, &[0], &[whole.len() + 1], &rules).err(),
            Some(Refused::Irregular)
        );
        assert!(
            !refused(&[event("82B", "delete", 500)]),
            "what is left out may be large"
        );
        assert!(!refused(&[]));
    }
}
