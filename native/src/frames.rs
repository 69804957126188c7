//! The frames of a block's changes in the NATS client protocol, written as `app/jetstream/frames.py` writes them.

use std::ops::Range;

use crate::block::Block;

/// A text with a number in it, which grows by one from message to message.
#[derive(Clone, Copy)]
pub struct Numbered<'a> {
    pub prefix: &'a str,
    /// The number of the first message.
    pub first: u64,
    pub suffix: &'a str,
}

impl Numbered<'_> {
    fn length(&self, index: usize) -> usize {
        self.prefix.len() + digits(self.number(index)) + self.suffix.len()
    }

    fn number(&self, index: usize) -> u64 {
        self.first + index as u64
    }
}

/// What the frames of some messages have in common.
pub struct Frames<'a> {
    pub block: &'a Block,
    /// The block's own subjects, or those of its operations.
    pub subjects: &'a [String],
    pub reply: Option<Numbered<'a>>,
    pub lines: Numbered<'a>,
    /// The change that has the first number.
    pub origin: usize,
}

const VERSION: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: ";
const VERB: &[u8] = b"HPUB ";
const BREAK: &[u8] = b"\r\n";

impl Frames<'_> {
    /// How many messages from `range.start` on come to at least `bytes`, and how many bytes their frames take.
    pub fn chunk(&self, range: Range<usize>, bytes: usize) -> (usize, usize) {
        let (mut count, mut size) = (0, 0);
        for index in range {
            size += self.size(index);
            count += 1;
            if size >= bytes {
                break;
            }
        }
        (count, size)
    }

    /// Writes the frames of these messages; `out` has exactly the bytes that `chunk` told.
    pub fn write(&self, range: Range<usize>, out: &mut [u8]) {
        let mut out = Writer(out);
        for index in range {
            self.frame(index, &mut out);
        }
    }

    fn head(&self, index: usize, token: usize) -> usize {
        let lines = self.lines.length(index - self.origin);
        VERSION.len() + token + self.block.suffix().len() + BREAK.len() + lines + BREAK.len()
    }

    fn size(&self, index: usize) -> usize {
        let Some(change) = self.block.get(index) else { return 0 };
        let head = self.head(index, change.token.len());
        let reply = self.reply.map_or(0, |reply| 1 + reply.length(index - self.origin));
        let all = head + change.body.len();
        let sizes = 1 + digits(head as u64) + 1 + digits(all as u64);
        VERB.len() + self.subjects[change.subject].len() + reply + sizes + BREAK.len() + all + BREAK.len()
    }

    fn frame(&self, index: usize, out: &mut Writer<'_>) {
        let Some(change) = self.block.get(index) else { return };
        let head = self.head(index, change.token.len());
        out.put(VERB);
        out.put(self.subjects[change.subject].as_bytes());
        if let Some(reply) = self.reply {
            out.put(b" ");
            out.numbered(reply, index - self.origin);
        }
        out.put(b" ");
        out.number(head as u64);
        out.put(b" ");
        out.number((head + change.body.len()) as u64);
        out.put(BREAK);
        out.put(VERSION);
        out.put(change.token);
        out.put(self.block.suffix().as_bytes());
        out.put(BREAK);
        out.numbered(self.lines, index - self.origin);
        out.put(BREAK);
        out.put(change.body);
        out.put(BREAK);
    }
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let (place, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        self.0 = rest;
    }

    fn number(&mut self, value: u64) {
        self.put(itoa::Buffer::new().format(value).as_bytes());
    }

    fn numbered(&mut self, text: Numbered<'_>, index: usize) {
        self.put(text.prefix.as_bytes());
        self.number(text.number(index));
        self.put(text.suffix.as_bytes());
    }
}

fn digits(value: u64) -> usize {
    value.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::{block, event};

    #[test]
    fn numbers_grow_from_frame_to_frame() {
        let block = block(
            &[
                event("82A", "insert", 1),
                event("82B", "update", 1),
                event("82C", "insert", 2),
            ],
            ":2",
        );
        let subjects = ["S.insert".to_owned(), "S.update".to_owned()];
        let frames = Frames {
            block: &block,
            subjects: &subjects,
            reply: Some(Numbered {
                prefix: "I.",
                first: 9,
                suffix: ".$FI",
            }),
            lines: Numbered {
                prefix: "N: ",
                first: 99,
                suffix: "\r\n",
            },
            origin: 1,
        };
        let (count, size) = frames.chunk(1..3, usize::MAX);
        let mut out = vec![0; size];
        frames.write(1..1 + count, &mut out);
        let body = |token: &str, operation: &str, text: &str| {
            format!(r#"{{"_id":{{"_data":"{token}"}},"operationType":"{operation}","text":"{text}"}}"#)
        };
        let expected = format!(
            "HPUB S.update I.9.$FI 39 98\r\nNATS/1.0\r\nNats-Msg-Id: 82B:2\r\nN: 99\r\n\r\n{}\r\n\
             HPUB S.insert I.10.$FI 40 100\r\nNATS/1.0\r\nNats-Msg-Id: 82C:2\r\nN: 100\r\n\r\n{}\r\n",
            body("82B", "update", "x"),
            body("82C", "insert", "xx"),
        );
        assert_eq!(String::from_utf8(out).expect("text"), expected);
        assert_eq!(frames.chunk(1..3, 1).0, 1);
        assert_eq!(frames.chunk(3..3, 1), (0, 0));
    }

    #[test]
    fn a_number_has_as_many_digits_as_it_is_written_with() {
        for value in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(digits(value), value.to_string().len());
        }
    }
}
