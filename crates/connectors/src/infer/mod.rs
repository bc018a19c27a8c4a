//! Guesses the types of fields from a sample, carefully: a type is taken only if every value of the
//! sample would come back from it digit by digit. What is in doubt is text.

use std::collections::HashMap;

use arrow_array::{Array, RecordBatch, StringArray};
use connect::{Error, Limits, Stream};
use model::{Field, FieldType, Schema};

use crate::files::{Files, Format, blocking};

mod guess;

use self::guess::Guess;

/// Records that are looked at for a schema, over all files.
const SAMPLE: usize = 10_000;

/// Files that share the sample.
const SAMPLED_FILES: usize = 20;

/// Records that are looked at for one file of the menu.
const MENU_SAMPLE: usize = 1_000;

/// Records whose fields were looked at.
#[derive(Default)]
struct Sample {
    fields: Vec<(String, Guess)>,
    index: HashMap<String, usize>,
    records: usize,
}

impl Sample {
    /// Looks at some more records. Columns are of type text or JSON.
    fn add(&mut self, records: &RecordBatch) {
        self.records += records.num_rows();
        for (field, column) in records.schema().fields().iter().zip(records.columns()) {
            let Some(values) = column.as_any().downcast_ref::<StringArray>() else {
                continue;
            };
            let guess = self.field(field.name());
            let is_json = FieldType::of(field) == Some(FieldType::Json);
            for value in values.iter().flatten() {
                if is_json {
                    guess.add_json(value);
                } else {
                    guess.add_text(value);
                }
            }
        }
    }

    /// Returns what is known of a field, which it adds if it is new.
    fn field(&mut self, name: &str) -> &mut Guess {
        let index = match self.index.get(name) {
            Some(index) => *index,
            None => {
                self.index.insert(name.to_owned(), self.fields.len());
                self.fields.push((name.to_owned(), Guess::default()));
                self.fields.len() - 1
            }
        };
        &mut self.fields[index].1
    }

    /// Returns the fields in the order in which they came.
    fn schema(&self) -> Schema {
        Schema {
            fields: self
                .fields
                .iter()
                .map(|(name, guess)| Field::new(name, guess.field_type()))
                .collect(),
        }
    }
}

/// Guesses the schema of records that were read; nothing if there are none.
pub(crate) fn of_records<'a>(records: impl IntoIterator<Item = &'a RecordBatch>) -> Option<Schema> {
    let mut sample = Sample::default();
    for records in records {
        sample.add(records);
    }
    (sample.records > 0).then(|| sample.schema())
}

/// Guesses the schema of all files from some records of some of them, the first and the last file
/// included.
///
/// # Errors
///
/// When a file cannot be read, or there are no records.
pub(crate) async fn schema<F: Format>(files: &Files<F>) -> Result<Schema, Error> {
    let files = files.clone();
    blocking(move || {
        let paths = files.list()?;
        let chosen = spread(&paths, SAMPLED_FILES);
        let mut sample = Sample::default();
        for path in &chosen {
            read(&files, path, SAMPLE / chosen.len(), &mut sample)?;
        }
        if sample.records == 0 {
            return Err(Error::stop(
                format!("{} without a readable record", count(&chosen)),
                "declare the fields in `schema`, or wait until there are records",
            ));
        }
        Ok(sample.schema())
    })
    .await
}

/// Lists every file as a stream, with the fields that its first records have.
///
/// # Errors
///
/// When a file cannot be read.
pub(crate) async fn discover<F: Format>(files: &Files<F>) -> Result<Vec<Stream>, Error> {
    let files = files.clone();
    blocking(move || {
        let mut streams = Vec::new();
        for path in files.list()? {
            let mut sample = Sample::default();
            read(&files, &path, MENU_SAMPLE, &mut sample)?;
            streams.push(Stream { name: path, schema: sample.schema(), key: Vec::new() });
        }
        Ok(streams)
    })
    .await
}

/// Tells a number of files.
pub(crate) fn count<T>(paths: &[T]) -> String {
    match paths.len() {
        1 => "1 file".to_owned(),
        several => format!("{several} files"),
    }
}

fn read<F: Format>(
    files: &Files<F>,
    path: &str,
    records: usize,
    sample: &mut Sample,
) -> Result<(), Error> {
    let mut text = files.begin(path, Limits::default())?;
    for name in text.known_fields() {
        sample.field(&name);
    }
    let mut seen = 0;
    while seen < records {
        let Some(cut) = text.next()? else { break };
        seen += cut.positions.len() + cut.refused.len();
        sample.add(&cut.columns);
    }
    Ok(())
}

/// Chooses at most `most` of the paths, evenly, with the first and the last.
fn spread(paths: &[String], most: usize) -> Vec<&String> {
    if paths.len() <= most {
        return paths.iter().collect();
    }
    (0..most).map(|index| &paths[index * (paths.len() - 1) / (most - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_spans_the_first_and_the_last_file() {
        let paths: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        let chosen = spread(&paths, 20);
        assert_eq!(chosen.len(), 20);
        assert_eq!((chosen[0].as_str(), chosen[19].as_str()), ("0", "999"));
    }
}
