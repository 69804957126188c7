//! The module that Python sees: `transcode`, a batch in, its changes out.

use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::json::{encode, Event, Left};

/// How many bytes of events are encoded before their changes are created, so that no more than these exist twice.
const PORTION: usize = 1024 * 1024;

/// The changes of a batch of events, in its order; None for each event that is left to the reference.
///
/// `make` is called with token, operation, body, wall time and id. The bodies are made without the GIL.
#[pyfunction]
fn transcode<'py>(
    py: Python<'py>,
    events: Vec<Bound<'py, PyBytes>>,
    id_suffix: &str,
    make: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    let changes = PyList::empty(py);
    let mut operation: Option<Bound<'py, PyString>> = None; // mostly the same as that of the event before
    let mut out = Vec::new();
    let mut from = 0;
    while from < events.len() {
        let mut portion: Vec<&[u8]> = Vec::new();
        let mut size = 0;
        for event in &events[from..] {
            if size >= PORTION {
                break;
            }
            portion.push(event.as_bytes());
            size += event.as_bytes().len();
        }
        from += portion.len();
        let encoded = py.detach(|| encode_all(&portion, &mut out));
        for each in encoded.map_err(|_| PyMemoryError::new_err(()))? {
            let Some((event, body)) = each else {
                changes.append(py.None())?;
                continue;
            };
            let name = match operation.take() {
                Some(name) if name == event.operation => name,
                _ => PyString::new(py, event.operation),
            };
            let token = PyString::new(py, event.token);
            let id = if id_suffix.is_empty() {
                token.clone()
            } else {
                PyString::new(py, &format!("{}{id_suffix}", event.token))
            };
            let body = PyBytes::new(py, &out[body]);
            changes.append(make.call1((token, &name, body, event.wall_time, id))?)?;
            operation = Some(name);
        }
    }
    Ok(changes)
}

type Encoded<'a> = Option<(Event<'a>, Range<usize>)>;

fn encode_all<'a>(events: &[&'a [u8]], out: &mut Vec<u8>) -> Result<Vec<Encoded<'a>>, Left> {
    out.clear();
    let mut encoded = Vec::with_capacity(events.len());
    for raw in events {
        let from = out.len();
        // A panic is a bug here or in a library. It affects one event only, which is left to the reference.
        match catch_unwind(AssertUnwindSafe(|| encode(raw, out))) {
            Ok(Ok(event)) => encoded.push(Some((event, from..out.len()))),
            Ok(Err(Left::OutOfMemory)) => return Err(Left::OutOfMemory),
            Ok(Err(Left::ToReference)) | Err(_) => {
                out.truncate(from);
                encoded.push(None);
            }
        }
    }
    Ok(encoded)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(transcode, module)?)
}
