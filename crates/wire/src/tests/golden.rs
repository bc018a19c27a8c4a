//! Messages as released versions wrote them, which have to stay readable.

use std::{fs, path::PathBuf};

use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// A batch that has something of everything.
fn batch() -> Batch {
    let columns: Vec<(FieldType, ArrayRef)> = vec![
        (FieldType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        (FieldType::Integer, Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(7)]))),
        (FieldType::Double, Arc::new(Float64Array::from(vec![Some(-0.5), None, Some(1e300)]))),
        (
            FieldType::Decimal { precision: 38, scale: 9 },
            Arc::new(
                Decimal128Array::from(vec![Some(-NINES), None, Some(1)])
                    .with_precision_and_scale(38, 9)
                    .unwrap(),
            ),
        ),
        (FieldType::Text, Arc::new(StringArray::from(vec![Some("Ada"), None, Some("Björn")]))),
        (
            FieldType::Bytes,
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\0\xff"), None, Some(b"")])),
        ),
        (FieldType::Date, Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(20_000)]))),
        (
            FieldType::Timestamp,
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(-1), None, Some(1_700_000_000_000_001)])
                    .with_timezone("UTC"),
            ),
        ),
        (
            FieldType::Json,
            Arc::new(StringArray::from(vec![Some("{\"a\":[1.50]}"), None, Some("7")])),
        ),
    ];
    let fields: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(index, (field_type, _))| field_type.arrow_field(&format!("f{index}")))
        .collect();
    let arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, array)| array).collect();
    let number = arrays.len();
    let columns = RecordBatch::try_new(Schema::new(fields).into(), arrays).unwrap();
    let mut presence = vec![None; number];
    presence[4] = Some(vec![true, false, true].into());
    let run: RunId = "01a22fbd-3573-777a-9dd2-23cc6a1b5f4b".parse().unwrap();
    Batch {
        header: BatchHeader {
            run,
            batch: BatchId::new(run, 2, 1, 3, 0x0123_4567_89ab_cdef),
            push: Some(PushWindow { start_ms: 1_700_000_000_000, end_ms: 1_700_000_060_000 }),
            ..header()
        },
        records: Records {
            columns,
            presence,
            ids: Ids::Explicit(StringArray::from(vec!["a", "", "ü"])),
            positions: vec![1, 2, 5],
            extraction_base: 1_700_000_000_000_000_000,
            versions: Some(vec![i64::MIN, 0, i64::MAX]),
            operations: Some(vec![Operation::Upsert, Operation::Patch, Operation::Delete]),
        },
    }
}

fn quarantined() -> Quarantined {
    let Batch { header, records } = batch();
    let reason = |index: usize| Reason {
        record: format!("f:{index}"),
        code: "type".to_owned(),
        message: "is no date".to_owned(),
        step: "2 (cast)".to_owned(),
        field: "born".to_owned(),
        raw: Bytes::from_static(b"\xff raw"),
    };
    Quarantined {
        header: Some(header),
        reasons: (0..records.len()).map(reason).collect(),
        records: Some(records),
        stage: "transformer".to_owned(),
        target: "store".to_owned(),
    }
}

#[test]
fn what_released_versions_wrote_is_read() {
    let read = |name: &str| Bytes::from(fs::read(folder().join(name)).unwrap());
    let mut versions = 0;
    for file in fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let Some(version) = name.strip_suffix("-batch.bin") else { continue };
        versions += 1;
        let decoded = decode(read(&name)).unwrap();
        assert_eq!(decoded.header, batch().header, "{version}");
        assert_same(&batch().records, &decoded.records);
        let decoded = decode_quarantined(read(&format!("{version}-quarantined.bin"))).unwrap();
        assert_eq!(decoded.header, quarantined().header, "{version}");
        assert_eq!(decoded.reasons, quarantined().reasons);
        assert_eq!((decoded.stage.as_str(), decoded.target.as_str()), ("transformer", "store"));
        assert_same(&batch().records, &decoded.records.unwrap());
    }
    assert!(versions > 0, "there are messages to read");
}

/// Before a release: `cargo test -p wire -- --ignored` adds the messages of its version.
#[test]
#[ignore = "writes a file"]
fn this_version_writes_its_messages() {
    let name = |what: &str| folder().join(format!("{}-{what}.bin", env!("CARGO_PKG_VERSION")));
    for (what, message) in
        [("batch", encode(&batch())), ("quarantined", encode_quarantined(&quarantined()))]
    {
        let path = name(what);
        assert!(!path.exists(), "{} is released and stays as it is", path.display());
        fs::write(path, message).unwrap();
    }
}
