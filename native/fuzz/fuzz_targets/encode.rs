//! Whatever the bytes: no panic, no overflow, and where there is a body it is JSON, also in a block and its frames.
#![no_main]

use changewire_native::block::{pack, Block, Rules};
use changewire_native::frames::{Frames, Numbered};
use changewire_native::json::encode;
use changewire_native::subject::Template;
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, IgnoredAny};

fuzz_target!(|raw: &[u8]| {
    let mut out = Vec::new();
    // With its own length in front, or hardly any input would be read beyond it.
    let mut whole = raw.to_vec();
    if let Some(length) = whole.get_mut(..4) {
        length.copy_from_slice(&(raw.len() as i32).to_le_bytes());
    }
    for raw in [raw, &whole] {
        out.clear();
        if encode(raw, &mut out).is_ok() {
            let mut json = serde_json::Deserializer::from_slice(&out);
            json.disable_recursion_limit();
            IgnoredAny::deserialize(&mut json)
                .and_then(|_| json.end())
                .expect("the body is JSON");
            packed(raw, &out);
        }
    }
});

/// An event that has a body is a block of one with the same body, and its frame ends with it.
fn packed(raw: &[u8], body: &[u8]) {
    let operations: Vec<String> = encode(raw, &mut Vec::new())
        .iter()
        .map(|event| event.operation.to_owned())
        .collect();
    let template = Template::of(&["S.", "database", ".", "collection", ".", "operation", ""]);
    for template in [None, template.as_ref()] {
        let rules = Rules {
            suffix: ":2",
            last: "",
            operations: &operations,
            fits: (usize::MAX, usize::MAX),
            template,
        };
        // An empty token is not later than nothing; names that are no texts are left to the reference.
        if let Ok(block) = pack(raw, &[0], &[raw.len()], &rules) {
            framed(&block, &operations, body);
        }
    }
}

fn framed(block: &Block, operations: &[String], body: &[u8]) {
    assert_eq!(block.get(0).map(|change| change.body), Some(body));
    let lines = Numbered {
        prefix: "",
        first: 9,
        suffix: "\r\n",
    };
    let frames = Frames {
        block,
        subjects: block.subjects().unwrap_or(operations),
        reply: Some(lines),
        lines,
        origin: 0,
    };
    let (count, size) = frames.chunk(0..1, 1);
    let mut frame = vec![0; size];
    frames.write(0..count, &mut frame);
    assert!(frame.strip_suffix(b"\r\n").is_some_and(|frame| frame.ends_with(body)));
}
