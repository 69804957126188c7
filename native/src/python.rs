//! The module that Python sees: `transcode` makes the changes of a batch one by one, `pack` a block of a regular one,
//! `pack_rows` one of a snapshot's documents.

use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::block::{self, Rules};
use crate::frames::{Frames, Numbered};
use crate::json::{encode, Event, Left};
use crate::rows::{self, Head};
use crate::split::split as take_apart;
use crate::subject::Template;

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

/// A text with a number in it: prefix, the first number, suffix.
type Text = (String, u64, String);

fn numbered(text: &Text) -> Numbered<'_> {
    Numbered {
        prefix: &text.0,
        first: text.1,
        suffix: &text.2,
    }
}

/// The subjects of a watcher's changes, where they depend on database or collection. Never changes.
#[pyclass(frozen)]
struct Subjects(Template);

#[pymethods]
impl Subjects {
    /// `pieces` are text and name of a field by turns (`Template.pieces`).
    #[new]
    fn new(pieces: Vec<String>) -> PyResult<Self> {
        Template::of(&pieces)
            .map(Subjects)
            .ok_or_else(|| PyValueError::new_err("a subject's fields are database, collection and operation"))
    }

    /// The subject of a change with these names, or None where that is left to the reference.
    fn subject(&self, database: &str, collection: &str, operation: &str) -> Option<String> {
        self.0.subject(database, collection, operation)
    }
}

/// The changes of a regular batch. Never changes, so any thread may read it, also without the GIL.
#[pyclass(frozen)]
struct Block(block::Block);

/// A block of the events between these bounds of the buffer, or None where the batch is not regular.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn pack(
    py: Python<'_>,
    buffer: &Bound<'_, PyBytes>,
    bounds: (Vec<usize>, Vec<usize>),
    id_suffix: &str,
    last: &str,
    operations: Vec<String>,
    fits: (usize, usize),
    subjects: Option<&Subjects>,
) -> PyResult<Option<Block>> {
    let buffer = buffer.as_bytes();
    let rules = Rules {
        suffix: id_suffix,
        last,
        operations: &operations,
        fits,
        template: subjects.map(|subjects| &subjects.0),
    };
    block_of(py.detach(|| block::pack(buffer, &bounds.0, &bounds.1, &rules)))
}

/// A block of a snapshot's rows, read as documents or as events of a pipeline; or None where they are not regular.
///
/// `place` is that of a row without its number, `time` the cluster time, `names` those of whole documents.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn pack_rows(
    py: Python<'_>,
    buffer: &Bound<'_, PyBytes>,
    bounds: (Vec<usize>, Vec<usize>),
    place: &str,
    time: (u32, u32),
    names: Option<(String, String)>,
    last: &str,
    fits: (usize, usize),
    subjects: Option<&Subjects>,
) -> PyResult<Option<Block>> {
    let buffer = buffer.as_bytes();
    let head = Head {
        place,
        time,
        names: names
            .as_ref()
            .map(|(database, collection)| (&database[..], &collection[..])),
    };
    let rules = Rules {
        suffix: "",
        last,
        operations: &[],
        fits,
        template: subjects.map(|subjects| &subjects.0),
    };
    block_of(py.detach(|| rows::pack_rows(buffer, &bounds.0, &bounds.1, &head, &rules)))
}

fn block_of(made: Result<block::Block, block::Refused>) -> PyResult<Option<Block>> {
    match made {
        Ok(block) => Ok(Some(Block(block))),
        Err(block::Refused::Irregular) => Ok(None),
        Err(block::Refused::OutOfMemory) => Err(PyMemoryError::new_err(())),
    }
}

type Taken<'py> = (
    String,
    String,
    Bound<'py, PyBytes>,
    Vec<usize>,
    Vec<usize>,
    String,
    String,
);

/// The events between these bounds of the buffer by collection, or None where that is left to the reference.
#[pyfunction]
fn split<'py>(
    py: Python<'py>,
    buffer: &Bound<'py, PyBytes>,
    bounds: (Vec<usize>, Vec<usize>),
) -> Option<Vec<Taken<'py>>> {
    let buffer = buffer.as_bytes();
    let parts = py.detach(|| take_apart(buffer, &bounds.0, &bounds.1)).ok()?;
    let taken = parts.into_iter().map(|part| {
        (
            part.database.to_owned(),
            part.collection.to_owned(),
            PyBytes::new(py, &part.events),
            part.starts,
            part.ends,
            part.first.to_owned(),
            part.last.to_owned(),
        )
    });
    Some(taken.collect())
}

impl Block {
    fn range(&self, start: usize, stop: usize) -> PyResult<Range<usize>> {
        if start <= stop && stop <= self.0.len() {
            Ok(start..stop)
        } else {
            Err(PyIndexError::new_err("a block has no such changes"))
        }
    }
}

#[pymethods]
impl Block {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// The names of the operations that are in it.
    #[getter]
    fn operations(&self) -> Vec<String> {
        self.0.operations().to_vec()
    }

    /// Token, operation, body, wall time, id and subject of a change; the subject is empty where its operation tells.
    #[allow(clippy::type_complexity)]
    fn change<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<(String, &str, Bound<'py, PyBytes>, f64, String, &str)> {
        let change = self
            .0
            .get(index)
            .ok_or_else(|| PyIndexError::new_err("a block has no such change"))?;
        let token = String::from_utf8_lossy(change.token).into_owned();
        let id = format!("{token}{}", self.0.suffix());
        let operation = &self.0.operations()[change.operation];
        let subject = self.0.subjects().map_or("", |subjects| &subjects[change.subject]);
        let body = PyBytes::new(py, change.body);
        Ok((token, operation, body, change.wall_time, id, subject))
    }

    fn size(&self, start: usize, stop: usize) -> PyResult<usize> {
        Ok(self.0.size(self.range(start, stop)?))
    }

    fn fitting(&self, start: usize, stop: usize, most: usize, beside: usize) -> PyResult<usize> {
        Ok(self.0.fitting(self.range(start, stop)?, most, beside))
    }

    fn counts(&self, start: usize, stop: usize) -> PyResult<Vec<usize>> {
        Ok(self.0.counts(self.range(start, stop)?))
    }

    fn wall_times(&self, start: usize, stop: usize) -> PyResult<Vec<f64>> {
        Ok(self.0.wall_times(self.range(start, stop)?))
    }

    /// The frames of the changes from `index` on, up to `stop`, until they come to `about` so many bytes; and how many they are.
    ///
    /// The change at `origin` has the first number. The bytes are written without the GIL.
    #[allow(clippy::too_many_arguments)]
    fn frames<'py>(
        &self,
        py: Python<'py>,
        places: (usize, usize, usize),
        about: usize,
        subjects: Vec<String>,
        reply: Option<Text>,
        lines: Text,
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        let (origin, index, stop) = places;
        let range = self.range(index, stop)?;
        if origin > index || subjects.len() != self.0.operations().len() {
            return Err(PyValueError::new_err(
                "a block's frames begin at their origin and have a subject for each operation",
            ));
        }
        let frames = Frames {
            block: &self.0,
            subjects: self.0.subjects().unwrap_or(&subjects),
            reply: reply.as_ref().map(numbered),
            lines: numbered(&lines),
            origin,
        };
        let (count, size) = frames.chunk(range, about);
        let written = PyBytes::new_with(py, size, |out| {
            py.detach(|| frames.write(index..index + count, out));
            Ok(())
        })?;
        Ok((written, count))
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Block>()?;
    module.add_class::<Subjects>()?;
    module.add_function(wrap_pyfunction!(pack, module)?)?;
    module.add_function(wrap_pyfunction!(pack_rows, module)?)?;
    module.add_function(wrap_pyfunction!(split, module)?)?;
    module.add_function(wrap_pyfunction!(transcode, module)?)
}
