//! A source whose parts and faults are scripted.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use connect::{Chunk, Error, Limits, Part, PartCursor, Parts, Reader, RefusedRaw, Stream};
use model::{Field, FieldType, Schema};

use crate::{gate::Gate, records::records};

/// One record of a part.
#[derive(Debug, Clone)]
pub enum Record {
    /// A record with key and value.
    Row(String, String),
    /// A record that cannot be read, with its text.
    Refused(String),
}

/// What happens when a part is read.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Reading fails, and works when it is repeated.
    Retry,
    /// Reading fails for good, with this reason.
    Stop(&'static str),
    /// Reading waits at the gate, then goes on.
    Hold(Gate),
}

#[derive(Debug)]
struct Armed {
    part: String,
    index: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Script {
    parts: Vec<(String, Vec<Record>)>,
    faults: Vec<Armed>,
    /// Part and cursor of every time that a part was opened.
    opened: Vec<(String, String)>,
    /// Reason why looking for parts stops.
    misshapen: Option<&'static str>,
    chunk_records: usize,
}

/// A scripted source. Cloning gives a second handle to the same script.
///
/// The cursor of a part is the number of records before it. Records are at the positions 1, 2, ….
#[derive(Debug, Clone, Default)]
pub struct Source {
    script: Arc<Mutex<Script>>,
    looked: Arc<AtomicUsize>,
}

impl Source {
    /// Makes a source without parts that gives chunks of at most `chunk_records`.
    #[must_use]
    pub fn new(chunk_records: usize) -> Self {
        let source = Self::default();
        source.script().chunk_records = chunk_records;
        source
    }

    /// Adds a part.
    #[must_use]
    pub fn with_part(self, name: &str, records: Vec<Record>) -> Self {
        self.script().parts.push((name.to_owned(), records));
        self
    }

    /// Adds a part of `count` rows with the keys `<name>-1`, `<name>-2`, ….
    #[must_use]
    pub fn with_rows(self, name: &str, count: usize) -> Self {
        let row = |n| Record::Row(format!("{name}-{n}"), format!("value {n}"));
        self.with_part(name, (1..=count).map(row).collect())
    }

    /// Lets something happen once, before the chunk that would hold the record at `index` is given.
    pub fn arm(&self, part: &str, index: usize, fault: Fault) {
        self.script().faults.push(Armed { part: part.to_owned(), index, fault });
    }

    /// Lets looking for parts stop with this reason from now on.
    pub fn misshape(&self, reason: &'static str) {
        self.script().misshapen = Some(reason);
    }

    /// Returns part and cursor of every time that a part was opened.
    #[must_use]
    pub fn opened(&self) -> Vec<(String, String)> {
        self.script().opened.clone()
    }

    /// Returns how often somebody looked for parts.
    #[must_use]
    pub fn looked(&self) -> usize {
        self.looked.load(Ordering::SeqCst)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn schema() -> Schema {
    let field = |name: &str| Field::new(name, FieldType::Text);
    Schema { fields: vec![field("key"), field("value")] }
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        Ok(format!("{} parts", self.script().parts.len()))
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        let stream = |(name, _): &(String, Vec<Record>)| Stream {
            name: name.clone(),
            schema: schema(),
            key: vec!["key".to_owned()],
        };
        Ok(self.script().parts.iter().map(stream).collect())
    }

    async fn infer(&self) -> Result<Schema, Error> {
        Ok(schema())
    }

    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        let script = self.script();
        if let Some(reason) = script.misshapen {
            return Err(Error::stop(reason, "accept the column"));
        }
        let mut found = Parts::default();
        for (name, records) in &script.parts {
            let known = cursors.iter().find(|cursor| !full && cursor.part == *name);
            let cursor = known.map_or_else(String::new, |known| known.cursor.clone());
            if number(&cursor) < records.len() {
                let span = records.len() as u64;
                found.with_news.push(Part { name: name.clone(), cursor, span });
            }
        }
        Ok(found)
    }

    async fn open(
        &self,
        part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn Reader>, Error> {
        let mut script = self.script();
        script.opened.push((part.to_owned(), cursor.to_owned()));
        let records = script.parts.iter().find(|(name, _)| name == part);
        let (_, records) = records.ok_or_else(|| Error::stop("the part is gone", "add it"))?;
        Ok(Box::new(PartReader {
            source: self.clone(),
            part: part.to_owned(),
            records: records.clone(),
            next: number(cursor),
            chunk_records: script.chunk_records.min(limits.chunk_records),
            extraction_base,
        }))
    }
}

fn number(cursor: &str) -> usize {
    cursor.parse().unwrap_or(0)
}

struct PartReader {
    source: Source,
    part: String,
    records: Vec<Record>,
    next: usize,
    chunk_records: usize,
    extraction_base: i64,
}

#[async_trait]
impl Reader for PartReader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let end = (self.next + self.chunk_records).min(self.records.len());
        while let Some(fault) = self.due(end) {
            match fault {
                Fault::Retry => return Err(Error::retry("the line is down", "wait")),
                Fault::Stop(reason) => return Err(Error::stop(reason, "mend the file")),
                Fault::Hold(gate) => gate.pass().await,
            }
        }
        if self.next == end {
            return Ok(None);
        }
        let mut rows = Vec::new();
        let mut refused = Vec::new();
        for index in self.next..end {
            let position = index as u64 + 1;
            match &self.records[index] {
                Record::Row(key, value) => rows.push((position, key.clone(), value.clone())),
                Record::Refused(text) => refused.push(RefusedRaw {
                    id: format!("{}:{position}", self.part),
                    position,
                    code: "shape",
                    message: "the record has too many fields".to_owned(),
                    field: String::new(),
                    raw: text.clone().into_bytes(),
                }),
            }
        }
        self.next = end;
        let records = records(&format!("{}:", self.part), self.extraction_base, &rows);
        Ok(Some(Chunk { records, refused, cursor: end.to_string() }))
    }
}

impl PartReader {
    /// Takes what is armed for a record before `end`.
    fn due(&self, end: usize) -> Option<Fault> {
        let mut script = self.source.script();
        let due = |armed: &Armed| {
            armed.part == self.part && armed.index >= self.next && armed.index < end
        };
        let index = script.faults.iter().position(due)?;
        Some(script.faults.remove(index).fault)
    }
}
