//! Change events from raw BSON to relaxed Extended JSON, and to frames of the NATS protocol, a batch at a time.
//!
//! The encoder in `app/formats/extended_json.py` is the reference: the output here equals its output byte for byte, with the
//! exceptions that it lists. Rare, damaged or doubtful events are not encoded here but left to the reference, which either
//! encodes them or says what is wrong. So nothing here decides whether an event is valid. The reference of the frames is
//! `app/jetstream/frames.py`.
//!
//! `raw` reads BSON, `split` takes a reply apart by collection, `json` writes one event, `subject` says where it goes,
//! `block` holds the changes of a batch, `rows` makes one of a snapshot's documents, `frames` writes its messages, `python` is
//! the module that Python sees.
#![forbid(unsafe_code)]

pub mod block;
pub mod frames;
pub mod json;
#[cfg(feature = "python")]
mod python;
pub mod raw;
pub mod rows;
pub mod split;
pub mod subject;
