//! Whatever the bytes: no panic, no overflow, and where there is a body it is JSON.
#![no_main]

use changewire_native::json::encode;
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
        }
    }
});
