//! What was pushed, on its way to a batch.

use arrow_array::StringArray;
use bytes::Bytes;
use connectors::pushed::{Gathering, Object};
use model::{Ids, Operation, Records};
use wire::EncodedRecords;

use super::answer::Rejection;

/// Rough size of the values of a batch. Half of what a message can hold, for the names of fields and
/// what every record has besides.
const BATCH_BYTES: usize = 256 * 1024;

/// Rough size of a record. A batch of one such record fits a message.
pub(crate) const RECORD_BYTES: usize = 256 * 1024;

/// Bytes of records that a message has room for besides its header.
const ROOM: usize = bus::MAX_PAYLOAD - 8 * 1024;

/// What a field takes in a message besides its name and values, at most.
const FIELD_BYTES: usize = 64;

/// Records of a batch.
const BATCH_RECORDS: usize = 4_096;

/// One delivery: its records count together, and once.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Names the delivery; `None`: it cannot be told from another one.
    pub(crate) id: Option<String>,
    /// Hash of pipeline and id.
    pub(crate) delivery: Option<u128>,
    pub(crate) pushed: Vec<Pushed>,
}

/// One pushed thing.
#[derive(Debug, Clone)]
pub(crate) enum Pushed {
    /// A record: the text of a JSON object that was checked.
    Record { json: Bytes, operation: Operation },
    /// The id of an object that has changed.
    Hint(String),
}

/// Checks that a record fits a message.
pub(crate) fn fits(object: &Object<'_>) -> Result<(), Rejection> {
    let mut alone = Gathering::default();
    let bytes = alone.bytes_with(object);
    if bytes > RECORD_BYTES {
        return Err(Rejection::TooLarge(RECORD_BYTES));
    }
    // What a field has besides its name and value is far less than this.
    if bytes + object.len() * FIELD_BYTES <= ROOM {
        return Ok(());
    }
    alone.push(object);
    match wire::encode_records(&records(alone, vec![String::new()], Vec::new(), 0)).len() {
        size if size <= ROOM => Ok(()),
        _ => Err(Rejection::TooLarge(RECORD_BYTES)),
    }
}

/// Encodes records as few messages, each of which fits.
pub(crate) fn encode(records: &Records, encoded: &mut Vec<(EncodedRecords, usize)>) {
    let count = records.len();
    let whole = wire::encode_records(records);
    if whole.len() <= ROOM || count <= 1 {
        encoded.push((whole, count));
        return;
    }
    encode(&records.slice(0, count / 2), encoded);
    encode(&records.slice(count / 2, count - count / 2), encoded);
}

fn records(
    gathering: Gathering,
    ids: Vec<String>,
    operations: Vec<Operation>,
    extraction_base: i64,
) -> Records {
    let count = gathering.len() as u64;
    let (columns, presence) = gathering.finish();
    let upserts = operations.iter().all(|operation| *operation == Operation::Upsert);
    Records {
        columns,
        presence,
        ids: Ids::Explicit(StringArray::from(ids)),
        positions: (0..count).collect(),
        extraction_base,
        versions: None,
        operations: (!upserts).then_some(operations),
    }
}

/// Records that are gathered for one batch after the other.
pub(crate) struct Batches {
    /// Names of records without ids begin with it.
    prefix: String,
    /// Extraction time of the first record.
    base: i64,
    gathering: Gathering,
    ids: Vec<String>,
    operations: Vec<Operation>,
    finished: Vec<Records>,
}

impl Batches {
    /// Begins with a record of this extraction time; each record is one nanosecond newer.
    pub(crate) fn new(prefix: String, base: i64) -> Self {
        Self {
            prefix,
            base,
            gathering: Gathering::default(),
            ids: Vec::new(),
            operations: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Adds the records of a delivery. Hints are left out.
    pub(crate) fn push(&mut self, item: &Item) {
        let alone = item.pushed.len() == 1;
        for (index, pushed) in item.pushed.iter().enumerate() {
            let Pushed::Record { json, operation } = pushed else { continue };
            let text = std::str::from_utf8(json).expect("it was read as text");
            let object = Object::parse(text).expect("it was checked when it came");
            let full = self.gathering.len() == BATCH_RECORDS
                || self.gathering.bytes_with(&object)
                    + (self.gathering.fields() + object.len()) * FIELD_BYTES
                    > BATCH_BYTES;
            if full && !self.gathering.is_empty() {
                self.finish_one();
            }
            let id = match &item.id {
                Some(id) if alone => id.clone(),
                Some(id) => format!("{id}#{index}"),
                None => {
                    let next = self.base.saturating_add_unsigned(self.gathering.len() as u64);
                    format!("{}{next}", self.prefix)
                }
            };
            self.ids.push(id);
            self.operations.push(*operation);
            self.gathering.push(&object);
        }
    }

    /// Returns the batches, and the extraction time behind the last record.
    pub(crate) fn finish(mut self) -> (Vec<Records>, i64) {
        if !self.gathering.is_empty() {
            self.finish_one();
        }
        (self.finished, self.base)
    }

    fn finish_one(&mut self) {
        let gathering = std::mem::take(&mut self.gathering);
        let count = gathering.len() as u64;
        let (ids, operations) =
            (std::mem::take(&mut self.ids), std::mem::take(&mut self.operations));
        self.finished.push(records(gathering, ids, operations, self.base));
        self.base = self.base.saturating_add_unsigned(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: Option<&str>, records: &[String]) -> Item {
        let record = |json: &String| Pushed::Record {
            json: Bytes::from(json.clone()),
            operation: Operation::Upsert,
        };
        Item {
            id: id.map(str::to_owned),
            delivery: None,
            pushed: records.iter().map(record).collect(),
        }
    }

    #[test]
    fn records_of_any_size_make_batches_that_fit_a_message() {
        let mut batches = Batches::new("p:".to_owned(), 100);
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(RECORD_BYTES - 1_000));
        let records = [vec![large; 3], vec!["{\"b\":1}".to_owned(); 5_000]].concat();
        batches.push(&item(Some("d"), &records));
        let (batches, end) = batches.finish();
        assert_eq!(end, 100 + 5_003);
        assert_eq!(batches.iter().map(Records::len).sum::<usize>(), 5_003);
        for batch in &batches {
            batch.validate().unwrap();
            assert!(wire::encode_records(batch).len() < bus::MAX_PAYLOAD - 8 * 1024);
        }
        assert_eq!(batches[0].id(0), "d#0");
        assert_eq!(batches[1].extracted_at(0), 101);
    }

    #[test]
    fn records_without_an_id_are_named_by_their_time() {
        let mut batches = Batches::new("p:".to_owned(), 7);
        batches.push(&item(None, &["{}".to_owned(), "{}".to_owned()]));
        let (batches, _) = batches.finish();
        assert_eq!((batches[0].id(0), batches[0].id(1)), ("p:7".to_owned(), "p:8".to_owned()));
    }

    #[test]
    fn wide_records_that_have_nothing_in_common_fit_too() {
        let mut batches = Batches::new("p:".to_owned(), 7);
        for record in 0..40 {
            let members: Vec<String> =
                (0..4_000).map(|member| format!("\"f{record}_{member}\":1")).collect();
            batches.push(&item(None, &[format!("{{{}}}", members.join(","))]));
        }
        let mut encoded = Vec::new();
        for batch in batches.finish().0 {
            encode(&batch, &mut encoded);
        }
        assert_eq!(encoded.iter().map(|(_, count)| count).sum::<usize>(), 40);
        assert!(encoded.iter().all(|(encoded, _)| encoded.len() <= ROOM));
    }
}
