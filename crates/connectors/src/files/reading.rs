//! Folders of files, and whole parts read into plain values, for tests.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use arrow_array::{Array, StringArray};
use connect::{Error, Limits, Part, PartCursor, RefusedRaw, Source};

/// A folder that is removed with the value.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that was last changed so many seconds after a time an hour ago.
    pub(crate) fn write_at(&self, name: &str, content: impl AsRef<[u8]>, seconds: u64) -> String {
        let path = PathBuf::from(self.path(name));
        std::fs::write(&path, content).unwrap();
        let time = SystemTime::now() - Duration::from_secs(3_600) + Duration::from_secs(seconds);
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.write_at(name, content, 0)
    }
}

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A record: position, id, and for each column its name with the value. Absent fields are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) position: u64,
    pub(crate) id: String,
    pub(crate) values: Vec<(String, Option<String>)>,
}

impl Row {
    /// Returns the values, with `~` for null.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.values.iter().map(|(_, value)| value.as_deref().unwrap_or("~")).collect()
    }
}

/// What came out of a part.
#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) rows: Vec<Row>,
    pub(crate) refused: Vec<RefusedRaw>,
    /// For each chunk its cursor, and the number of rows and of refused records up to there.
    pub(crate) cursors: Vec<(String, usize, usize)>,
}

impl Reading {
    pub(crate) fn texts(&self) -> Vec<Vec<&str>> {
        self.rows.iter().map(Row::texts).collect()
    }

    pub(crate) fn positions(&self) -> Vec<u64> {
        self.rows.iter().map(|row| row.position).collect()
    }

    /// Returns code and position of what was refused.
    pub(crate) fn codes(&self) -> Vec<(&'static str, u64)> {
        self.refused.iter().map(|refused| (refused.code, refused.position)).collect()
    }

    pub(crate) fn last_cursor(&self) -> &str {
        &self.cursors.last().unwrap().0
    }
}

/// Chunks of one record.
pub(crate) const ONE_BY_ONE: Limits =
    Limits { chunk_bytes: 256 * 1024, chunk_records: 1, record_bytes: 384 * 1024 };

/// Reads a part to its end. What came before an error comes with it.
pub(crate) async fn try_read(
    source: &dyn Source,
    part: &str,
    cursor: &str,
    limits: Limits,
) -> (Reading, Option<Error>) {
    let mut reading = Reading::default();
    let mut reader = match source.open(part, cursor, 1_000, limits).await {
        Ok(reader) => reader,
        Err(error) => return (reading, Some(error)),
    };
    loop {
        let chunk = match reader.next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return (reading, None),
            Err(error) => return (reading, Some(error)),
        };
        let records = chunk.records;
        records.validate().unwrap();
        assert_eq!(records.extraction_base, 1_000);
        assert!(records.len() + chunk.refused.len() > 0, "a chunk has records");
        assert!(records.len() + chunk.refused.len() <= limits.chunk_records);
        let schema = records.columns.schema();
        for index in 0..records.len() {
            let values = schema.fields().iter().zip(records.columns.columns()).enumerate();
            let values = values
                .filter(|(column, _)| records.is_present(*column, index))
                .map(|(_, (field, array))| {
                    let texts = array.as_any().downcast_ref::<StringArray>().unwrap();
                    let value = texts.is_valid(index).then(|| texts.value(index).to_owned());
                    (field.name().clone(), value)
                })
                .collect();
            reading.rows.push(Row {
                position: records.positions[index],
                id: records.id(index),
                values,
            });
        }
        reading.refused.extend(chunk.refused);
        reading.cursors.push((chunk.cursor, reading.rows.len(), reading.refused.len()));
    }
}

/// Reads a part that has no fault to its end.
pub(crate) async fn read(source: &dyn Source, part: &str, cursor: &str, limits: Limits) -> Reading {
    let (reading, error) = try_read(source, part, cursor, limits).await;
    assert!(error.is_none(), "{}", error.unwrap().chain());
    reading
}

/// Reads the only file of a source from its beginning.
pub(crate) async fn read_all(source: &dyn Source, limits: Limits) -> Reading {
    let parts = source.parts(&[], false).await.unwrap().with_news;
    assert_eq!(parts.len(), 1);
    read(source, &parts[0].name, &parts[0].cursor, limits).await
}

/// Reads the news of the only file since a cursor; nothing: there are none.
pub(crate) async fn read_news(
    source: &dyn Source,
    path: &str,
    cursor: &str,
) -> (Option<Part>, Reading, Vec<String>) {
    let cursors = [PartCursor { part: path.to_owned(), cursor: cursor.to_owned() }];
    let mut parts = source.parts(&cursors, false).await.unwrap();
    let part = parts.with_news.pop();
    let reading = match &part {
        Some(part) => read(source, &part.name, &part.cursor, Limits::default()).await,
        None => Reading::default(),
    };
    (part, reading, parts.notes)
}

/// Checks that reading behind every cursor gives exactly the rest.
pub(crate) async fn check_resuming(source: &dyn Source, limits: Limits) {
    let whole = read_all(source, limits).await;
    let part = source.parts(&[], false).await.unwrap().with_news.remove(0).name;
    assert!(whole.cursors.len() > 3, "there are cursors in the middle");
    for (cursor, rows, refused) in &whole.cursors {
        for limits in [limits, Limits::default()] {
            let rest = read(source, &part, cursor, limits).await;
            assert_eq!(rest.rows, whole.rows[*rows..]);
            let ids = |all: &[RefusedRaw]| -> Vec<String> {
                all.iter().map(|refused| refused.id.clone()).collect()
            };
            assert_eq!(ids(&rest.refused), ids(&whole.refused[*refused..]));
        }
    }
    let last = whole.last_cursor();
    let (news, ..) = read_news(source, &part, last).await;
    assert_eq!(news, None, "what was read to its end has no news");
}
