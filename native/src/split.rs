//! The events of a change stream's reply, taken apart by collection. The reference is `app/mongodb/feeds/parts.py`.

use std::collections::HashMap;

use crate::raw::{kind, Damaged, Elements};

/// Events of one collection, or one event that concerns several or none: its names are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part<'a> {
    pub database: &'a str,
    pub collection: &'a str,
    /// The events behind one another, and where each begins and ends.
    pub events: Vec<u8>,
    pub starts: Vec<usize>,
    pub ends: Vec<usize>,
    pub first: &'a str,
    pub last: &'a str,
}

impl<'a> Part<'a> {
    fn of(database: &'a str, collection: &'a str, token: &'a str) -> Self {
        Part {
            database,
            collection,
            first: token,
            ..Part::default()
        }
    }

    fn add(&mut self, raw: &[u8], token: &'a str) {
        self.starts.push(self.events.len());
        self.events.extend_from_slice(raw);
        self.ends.push(self.events.len());
        self.last = token;
    }
}

/// What tells where an event belongs.
struct Event<'a> {
    token: &'a str,
    operation: &'a str,
    /// Database and collection.
    namespace: Option<(&'a str, &'a str)>,
}

/// Takes the events between these bounds apart: each collection's together, in the order in which these first appear.
///
/// Anything unusual is `Damaged`: the reference says what it is.
pub fn split<'a>(buffer: &'a [u8], starts: &[usize], ends: &[usize]) -> Result<Vec<Part<'a>>, Damaged> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    // Of the collections since the last event that stood alone: where their part is.
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for (start, end) in starts.iter().zip(ends) {
        let raw = buffer.get(*start..*end).ok_or(Damaged)?;
        let event = read(raw)?;
        let several = matches!(event.operation, "rename" | "dropDatabase" | "invalidate");
        match event.namespace.filter(|_| !several) {
            Some(name) => {
                let place = *places.entry(name).or_insert_with(|| {
                    parts.push(Part::of(name.0, name.1, event.token));
                    parts.len() - 1
                });
                parts[place].add(raw, event.token);
            }
            None => {
                places.clear();
                let mut alone = Part::of("", "", event.token);
                alone.add(raw, event.token);
                parts.push(alone);
            }
        }
    }
    Ok(parts)
}

fn read(raw: &[u8]) -> Result<Event<'_>, Damaged> {
    let (mut token, mut operation, mut database, mut collection) = (None, None, None, None);
    let mut elements = Elements::of(raw)?;
    while let Some((kind, name)) = elements.next_element()? {
        match (name.bytes, kind) {
            (b"_id", kind::DOCUMENT) => {
                let mut inner = elements.document()?;
                while let Some((kind, name)) = inner.next_element()? {
                    match (name.bytes, kind) {
                        (b"_data", kind::STRING) => token = Some(text(inner.string()?)?),
                        _ => inner.skip(kind)?,
                    }
                }
            }
            (b"operationType", kind::STRING) => operation = Some(text(elements.string()?)?),
            (b"ns", kind::DOCUMENT) => {
                let mut inner = elements.document()?;
                while let Some((kind, name)) = inner.next_element()? {
                    match (name.bytes, kind) {
                        (b"db", kind::STRING) => database = Some(text(inner.string()?)?),
                        (b"coll", kind::STRING) => collection = Some(text(inner.string()?)?),
                        _ => inner.skip(kind)?,
                    }
                }
            }
            _ => elements.skip(kind)?,
        }
    }
    Ok(Event {
        token: token.ok_or(Damaged)?,
        operation: operation.ok_or(Damaged)?,
        namespace: database.zip(collection),
    })
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged)
}
