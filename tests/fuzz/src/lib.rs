//! What several targets need.

use std::{fs, path::PathBuf};

use arrow_array::StringArray;
use bytes::Bytes;
use connect::{Limits, Source};
use connectors::pushed::{Gathering, Object};
use http::{HeaderMap, HeaderName, HeaderValue};
use model::{Ids, Records};

/// Returns objects as the records of a batch.
///
/// # Panics
///
/// When a text is no object.
#[must_use]
pub fn records(objects: &[&str]) -> Records {
    let mut gathering = Gathering::default();
    for object in objects {
        gathering.push(&Object::parse(object).expect("an object"));
    }
    let (columns, presence) = gathering.finish();
    Records {
        columns,
        presence,
        ids: Ids::Explicit(StringArray::from_iter_values(objects)),
        positions: (0..objects.len() as u64).collect(),
        extraction_base: 0,
        versions: None,
        operations: None,
    }
}

/// What was read of a file: ids and reasons of refusal, in order, and why no more.
type Read = (Vec<String>, Vec<(u64, &'static str)>, Option<String>);

/// Reads a file of any content by a pipeline's `source`, as a whole and record by record, which has to
/// give the same.
///
/// # Panics
///
/// When it does not, or a chunk is not well formed.
pub fn read(extension: &str, source: &str, content: &[u8]) {
    let path = file(extension);
    fs::write(&path, content).expect("a temporary file");
    let yaml = format!(
        "pipeline: fuzz\nsource: {{{}}}\nschema: {{id: integer, name: text}}\nkey: [id]\n\
         targets: {{store: {{sqlite: {{path: store.db, table: t}}}}}}\n",
        source.replace("FILE", path.to_str().expect("a path in ASCII"))
    );
    let pipeline = spec::parse("fuzz.yaml", &yaml).expect("the pipeline is right");
    let context = connectors::Context::alone(std::sync::Arc::new(|_| None));
    let source = connectors::source(&pipeline, pipeline.schema.as_ref(), &[], &context);
    let source = source.expect("it needs nothing");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let limits = |chunk_records| Limits { chunk_records, ..Limits::default() };
    let part = path.to_str().expect("a path in ASCII");
    let whole = runtime.block_on(read_by(source.as_ref(), part, limits(16 * 1024)));
    let single = runtime.block_on(read_by(source.as_ref(), part, limits(1)));
    match (&whole.2, &single.2) {
        // What stands before an error comes as far as whole chunks did.
        (Some(_), Some(_)) => assert_eq!(whole.2, single.2, "however it is cut"),
        _ => assert_eq!(whole, single, "however it is cut"),
    }
}

async fn read_by(source: &dyn Source, part: &str, limits: Limits) -> Read {
    let (mut ids, mut refused) = (Vec::new(), Vec::new());
    let mut reader = match source.open(part, "", 0, limits).await {
        Ok(reader) => reader,
        Err(error) => return (ids, refused, Some(error.what)),
    };
    loop {
        match reader.next().await {
            Ok(None) => return (ids, refused, None),
            Err(error) => return (ids, refused, Some(error.what)),
            Ok(Some(chunk)) => {
                chunk.records.validate().expect("its parts fit each other");
                ids.extend((0..chunk.records.len()).map(|index| chunk.records.id(index)));
                refused.extend(chunk.refused.iter().map(|record| (record.position, record.code)));
            }
        }
    }
}

/// Takes a message of HTTP apart: lines of headers, an empty line, the body. What is no header is left
/// out.
#[must_use]
pub fn message(content: &[u8]) -> (HeaderMap, Bytes) {
    let end = content.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) =
        end.map_or((content, &b""[..]), |end| (&content[..end], &content[end + 2..]));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.map(|colon| (&line[..colon], &line[colon + 1..])) else {
            continue;
        };
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    (headers, Bytes::copy_from_slice(body))
}

fn file(extension: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tributary-fuzz-{}.{extension}", std::process::id()))
}
