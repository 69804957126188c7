//! Change events from raw BSON to relaxed Extended JSON, a batch at a time.
//!
//! The encoder in `app/formats/extended_json.py` is the reference: what is made here equals what is made there, byte for byte but where
//! it says otherwise. What is rare, damaged or doubtful is not made here at all, but left to the reference, which either
//! can or says what is wrong. So nothing here decides whether an event is good.
//!
//! `json` writes one event, `python` is the module that Python sees. Not its business: reduced events, and everything
//! around the body.
#![forbid(unsafe_code)]

pub mod json;
#[cfg(feature = "python")]
mod python;
