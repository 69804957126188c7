//! The subject of a change where it depends on database or collection, written as `app/domain/subjects.py` writes it.

use crate::json::{text_of, Left};
use crate::raw::Elements;

/// What a template is made of.
#[derive(Debug)]
enum Piece {
    Text(String),
    Database,
    Collection,
    Operation,
}

/// A watcher's template, with everything filled in that is the same for all its changes.
#[derive(Debug)]
pub struct Template(Vec<Piece>);

/// Stands for a name that a change does not have.
const NAMELESS: &str = "_";
/// The first parts of subjects that belong to NATS.
const RESERVED: [&str; 3] = ["_INBOX", "_R_", "_GR_"];

impl Template {
    /// Reads text and name of a field by turns, as `Template.pieces` gives them. None where a field is unknown.
    pub fn of<S: AsRef<str>>(pieces: &[S]) -> Option<Self> {
        let read = |(index, piece): (usize, &S)| match (index % 2, piece.as_ref()) {
            (0, text) => Some(Piece::Text(text.to_owned())),
            (_, "database") => Some(Piece::Database),
            (_, "collection") => Some(Piece::Collection),
            (_, "operation") => Some(Piece::Operation),
            _ => None,
        };
        pieces.iter().enumerate().map(read).collect::<Option<_>>().map(Template)
    }

    /// The subject of a change with these names. None where it is reserved: the reference decides what becomes of it.
    pub fn subject(&self, database: &str, collection: &str, operation: &str) -> Option<String> {
        let mut subject = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => subject.push_str(text),
                Piece::Database => name(&mut subject, database),
                Piece::Collection => name(&mut subject, collection),
                Piece::Operation => subject.push_str(operation),
            }
        }
        let first = subject.split('.').next().unwrap_or_default();
        (!RESERVED.contains(&first)).then_some(subject)
    }
}

/// Database and collection of an event; empty where its `ns` has none.
pub fn names(mut namespace: Elements<'_>) -> Result<(&str, &str), Left> {
    let (mut database, mut collection) = ("", "");
    while let Some((kind, field)) = namespace.next_element()? {
        let text = text_of(kind, namespace)?.ok_or(Left::ToReference)?;
        namespace.string()?;
        match field.bytes {
            b"db" => database = text,
            b"coll" => collection = text,
            _ => {}
        }
    }
    Ok((database, collection))
}

fn name(out: &mut String, name: &str) {
    if name.is_empty() {
        return out.push_str(NAMELESS);
    }
    for (index, character) in name.chars().enumerate() {
        if (index == 0 && character == '$') || is_forbidden(character) {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(DIGITS[usize::from(byte >> 4)] as char);
                out.push(DIGITS[usize::from(byte & 15)] as char);
            }
        } else {
            out.push(character);
        }
    }
}

/// White space, control characters, the separator, the wildcards, the escape, a path's and a template's characters.
fn is_forbidden(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x20' | '\x7f' | '.' | '*' | '>' | '%' | '/' | '\\' | '{' | '}'
    ) || (!character.is_ascii() && character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_completed_with_escaped_names() {
        let template =
            Template::of(&["S.", "database", ".", "collection", "-", "operation", ""]).expect("known fields");
        let subject = |database, collection| template.subject(database, collection, "insert");
        assert_eq!(subject("shop", "app.events"), Some("S.shop.app%2Eevents-insert".into()));
        assert_eq!(
            subject("$d", "a$ \u{2003}ü"),
            Some("S.%24d.a$%20%E2%80%83ü-insert".into())
        );
        assert_eq!(subject("shop", ""), Some("S.shop._-insert".into()));
    }

    #[test]
    fn a_subject_of_nats_is_left_to_the_reference() {
        let template = Template::of(&["", "collection", ".", "operation", ""]).expect("known fields");
        assert_eq!(template.subject("d", "_INBOX", "insert"), None);
        assert_eq!(
            template.subject("d", "_INBOXES", "insert"),
            Some("_INBOXES.insert".into())
        );
        assert!(Template::of(&["", "stream", ""]).is_none());
    }
}
