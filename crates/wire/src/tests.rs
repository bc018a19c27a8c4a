//! Value to wire to value, the same bytes as prost's, and garbage.

mod golden;

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::Schema;
use bytes::Bytes;
use model::{Batch, BatchHeader, BatchId, FieldType, Ids, Operation, PushWindow, Records, RunId};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    DecodeError, Quarantined, Reason, decode, decode_header, decode_quarantined, encode,
    encode_quarantined, encode_records, record,
};

const TYPES: [FieldType; 10] = [
    FieldType::Boolean,
    FieldType::Integer,
    FieldType::Double,
    FieldType::Decimal { precision: 12, scale: 2 },
    FieldType::Decimal { precision: 38, scale: 9 },
    FieldType::Text,
    FieldType::Bytes,
    FieldType::Date,
    FieldType::Timestamp,
    FieldType::Json,
];

/// The largest decimal of 38 digits.
const NINES: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

fn values(random: &mut StdRng, field_type: FieldType, count: usize) -> ArrayRef {
    let nulls = random.random_bool(0.5);
    fn optional<T>(
        random: &mut StdRng,
        count: usize,
        nulls: bool,
        value: impl Fn(&mut StdRng) -> T,
    ) -> Vec<Option<T>> {
        (0..count).map(|_| (!nulls || random.random_bool(0.7)).then(|| value(random))).collect()
    }
    let text = |random: &mut StdRng| {
        (0..random.random_range(0..200_usize) / 9).map(|_| random.random::<char>()).collect()
    };
    match field_type {
        FieldType::Boolean => {
            Arc::new(BooleanArray::from(optional(random, count, nulls, Rng::random::<bool>)))
        }
        FieldType::Integer => {
            Arc::new(Int64Array::from(optional(random, count, nulls, Rng::random::<i64>)))
        }
        FieldType::Double => {
            Arc::new(Float64Array::from(optional(random, count, nulls, Rng::random::<f64>)))
        }
        FieldType::Decimal { precision, scale } => {
            let max = NINES / 10_i128.pow(38 - u32::from(precision));
            let value = move |random: &mut StdRng| match random.random_range(0..4) {
                0 => -max,
                1 => max,
                2 => -1,
                _ => random.random_range(-max..=max),
            };
            let array = Decimal128Array::from(optional(random, count, nulls, value));
            let scale = i8::try_from(scale).unwrap();
            Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
        }
        FieldType::Text | FieldType::Json => {
            let texts: Vec<Option<String>> = optional(random, count, nulls, text);
            Arc::new(StringArray::from(texts))
        }
        FieldType::Bytes => {
            let texts: Vec<Option<String>> = optional(random, count, nulls, text);
            Arc::new(
                texts
                    .iter()
                    .map(|text| text.as_ref().map(String::as_bytes))
                    .collect::<BinaryArray>(),
            )
        }
        FieldType::Date => {
            Arc::new(Date32Array::from(optional(random, count, nulls, Rng::random::<i32>)))
        }
        FieldType::Timestamp => {
            let array =
                TimestampMicrosecondArray::from(optional(random, count, nulls, Rng::random::<i64>));
            Arc::new(array.with_timezone("UTC"))
        }
    }
}

/// Makes records with columns of random types, sometimes sliced out of longer ones.
fn records(random: &mut StdRng) -> Records {
    let whole = random.random_range(0..40_usize);
    let types: Vec<_> = (0..random.random_range(0..TYPES.len()))
        .map(|_| TYPES[random.random_range(0..TYPES.len())])
        .collect();
    let fields: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(index, field_type)| field_type.arrow_field(&format!("f{index}")))
        .collect();
    let arrays: Vec<_> =
        types.iter().map(|field_type| values(random, *field_type, whole)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(whole));
    let columns =
        RecordBatch::try_new_with_options(Schema::new(fields).into(), arrays, &options).unwrap();
    // An absent value is null, so what is absent here is what is null anyway.
    let presence = columns
        .columns()
        .iter()
        .map(|column| {
            column.nulls().filter(|_| random.random_bool(0.5)).map(|nulls| nulls.inner().clone())
        })
        .collect();
    let first = random.random_range(0..1_u64 << 40);
    let records = Records {
        columns,
        presence,
        ids: if random.random_bool(0.5) {
            Ids::Positions { prefix: "orders.csv:".to_owned() }
        } else {
            Ids::Explicit((0..whole).map(|index| Some(format!("id {index}"))).collect())
        },
        positions: (0..whole as u64).map(|index| first + 3 * index).collect(),
        extraction_base: random.random(),
        versions: random.random_bool(0.5).then(|| (0..whole).map(|_| random.random()).collect()),
        operations: random.random_bool(0.5).then(|| {
            let all = [Operation::Upsert, Operation::Patch, Operation::Delete];
            (0..whole).map(|_| all[random.random_range(0..3)]).collect()
        }),
    };
    let offset = random.random_range(0..=whole / 2);
    let length = random.random_range(0..=whole - offset);
    records.slice(offset, length)
}

fn header() -> BatchHeader {
    let run = RunId::generate();
    BatchHeader {
        pipeline: "shop".parse().unwrap(),
        revision: 3,
        run,
        attempt: 1,
        batch: BatchId::new(run, 0, 1, 9, 7),
        part: 2,
        sequence: 5,
        cursor_before: String::new(),
        cursor_after: "{\"line\":9}".to_owned(),
        extracted: 9,
        push: None,
    }
}

/// Compares records by what they mean.
fn assert_same(left: &Records, right: &Records) {
    right.validate().unwrap();
    assert_eq!(left.columns, right.columns);
    for column in 0..left.columns.num_columns() {
        for index in 0..left.len() {
            assert_eq!(left.is_present(column, index), right.is_present(column, index));
        }
    }
    assert_eq!(left.positions, right.positions);
    for index in 0..left.len() {
        assert_eq!(left.id(index), right.id(index));
        assert_eq!(left.version(index), right.version(index));
        assert_eq!(left.operation(index), right.operation(index));
    }
}

/// Runs a check on many random batches, each made from its own seed.
fn for_many(check: impl Fn(&mut StdRng, Batch)) {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let batch = Batch { header: header(), records: records(&mut random) };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&mut random, batch);
        }));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn any_batch_survives_the_wire() {
    for_many(|_, batch| {
        let decoded = decode(encode(&batch)).unwrap();
        assert_eq!(decoded.header, batch.header);
        assert_same(&batch.records, &decoded.records);
    });
}

#[test]
fn the_bytes_are_those_of_prost() {
    for_many(|_, batch| {
        let message = encode(&batch);
        let prost = record::RecordBatch::decode(message.clone()).unwrap();
        assert_eq!(prost.encode_to_vec(), message);
    });
}

#[test]
fn equal_records_have_equal_hashes_however_they_lie_in_memory() {
    for_many(|_, batch| {
        let decoded = decode(encode(&batch)).unwrap();
        let (left, right) = (encode_records(&batch.records), encode_records(&decoded.records));
        assert_eq!(left.content_hash(), right.content_hash());
        assert_eq!(left.len(), right.len());
    });
}

#[test]
fn a_cut_message_is_refused_or_misses_only_what_is_optional() {
    for_many(|random, batch| {
        let message = encode(&batch);
        let cut = message.slice(..random.random_range(0..message.len()));
        if let Ok(decoded) = decode(cut) {
            decoded.records.validate().unwrap();
        }
    });
}

#[test]
fn a_message_with_flipped_bytes_is_refused_or_valid() {
    for_many(|random, batch| {
        let mut message = encode(&batch).to_vec();
        for _ in 0..random.random_range(1..8) {
            let place = random.random_range(0..message.len());
            message[place] = random.random();
        }
        if let Ok(decoded) = decode(message.into()) {
            decoded.records.validate().unwrap();
            // Whatever was let in can be read to the last value.
            let again = decode(encode(&decoded)).unwrap();
            assert_eq!(again.records.len(), decoded.records.len());
        }
    });
}

#[test]
fn garbage_is_refused() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let garbage: Vec<u8> = (0..random.random_range(0..64)).map(|_| random.random()).collect();
        assert!(decode(Bytes::from(garbage.clone())).is_err());
        if let Ok(quarantined) = decode_quarantined(garbage.into()) {
            assert!(quarantined.header.is_none());
        }
    }
}

#[test]
fn a_header_is_readable_where_the_records_are_not() {
    let header = header();
    let mut batch = record::RecordBatch {
        header: Some(crate::header::to_wire(&header)),
        records: Some(record::Records { count: 5, ..Default::default() }),
    };
    let message = Bytes::from(batch.encode_to_vec());
    assert_eq!(decode_header(&message).unwrap(), header);
    assert!(decode(message).unwrap_err().to_string().contains("records.positions"));

    batch.header.as_mut().unwrap().revision = 0;
    let error = decode_header(&batch.encode_to_vec().into()).unwrap_err();
    assert!(error.to_string().contains("header.revision"));
}

/// Spoils the first column of a good batch.
fn spoil(field_type: FieldType, change: impl Fn(&mut record::Column)) -> DecodeError {
    let mut random = StdRng::seed_from_u64(3);
    let array = values(&mut random, field_type, 3);
    let schema = Schema::new(vec![field_type.arrow_field("f")]);
    let records = Records {
        columns: RecordBatch::try_new(schema.into(), vec![array]).unwrap(),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: String::new() },
        positions: vec![1, 2, 3],
        extraction_base: 0,
        versions: None,
        operations: None,
    };
    let message = encode(&Batch { header: header(), records });
    let mut batch = record::RecordBatch::decode(message).unwrap();
    change(&mut batch.records.as_mut().unwrap().columns[0]);
    decode(batch.encode_to_vec().into()).unwrap_err()
}

#[test]
fn what_contradicts_the_contract_is_refused_with_its_field() {
    use record::column::Values;
    let text = |lengths: Vec<u32>, data: &'static [u8]| {
        Some(Values::Texts(record::TextValues { lengths, data: data.into() }))
    };
    let integers = Some(Values::Integers(record::IntegerValues { values: vec![1, 2, 3] }));
    let decimal = FieldType::Decimal { precision: 3, scale: 1 };
    let big =
        Some(Values::Decimals(record::DecimalValues { lows: vec![1, 1000, 3], highs: vec![] }));

    let errors = [
        (spoil(FieldType::Text, |c| c.name.clear()), "columns[0].name"),
        (spoil(FieldType::Text, |c| c.r#type = 77), "columns[0].type"),
        (spoil(FieldType::Text, |c| c.values = None), "columns[0]"),
        (spoil(FieldType::Text, |c| c.values = integers.clone()), "columns[0]"),
        (spoil(FieldType::Text, |c| c.values = text(vec![1, 1], b"ab")), "lengths"),
        (spoil(FieldType::Text, |c| c.values = text(vec![1, 1, 1], b"ab")), "lengths"),
        (spoil(FieldType::Text, |c| c.values = text(vec![u32::MAX; 3], b"ab")), "lengths"),
        (spoil(FieldType::Text, |c| c.values = text(vec![1, 1, 1], b"a\xff\xff")), "UTF-8"),
        // A character must not be shared by two texts.
        (spoil(FieldType::Text, |c| c.values = text(vec![1, 1, 0], "ä".as_bytes())), "UTF-8"),
        (spoil(FieldType::Text, |c| c.validity = vec![1, 1].into()), "columns[0].validity"),
        (spoil(FieldType::Text, |c| c.presence = vec![1, 1].into()), "columns[0].presence"),
        (spoil(decimal, |c| c.scale = 4), "columns[0].scale"),
        (spoil(decimal, |c| c.precision = 39), "columns[0].precision"),
        (
            spoil(decimal, |c| {
                c.validity.clear();
                c.values = big.clone();
            }),
            "digits",
        ),
    ];
    for (error, part) in errors {
        assert!(error.to_string().contains(part), "`{part}` in `{error}`");
    }
}

#[test]
fn an_absent_value_is_null() {
    let batch = Batch { header: header(), records: three_texts() };
    let mut message = record::RecordBatch::decode(encode(&batch)).unwrap();
    message.records.as_mut().unwrap().columns[0].presence = vec![0b101].into();
    let decoded = decode(message.encode_to_vec().into()).unwrap();
    assert!(!decoded.records.is_present(0, 1));
    assert!(decoded.records.columns.column(0).is_null(1));
}

fn three_texts() -> Records {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let schema = Schema::new(vec![FieldType::Text.arrow_field("f")]);
    Records {
        columns: RecordBatch::try_new(schema.into(), vec![texts]).unwrap(),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: String::new() },
        positions: vec![1, 2, 3],
        extraction_base: 0,
        versions: None,
        operations: None,
    }
}

#[test]
fn a_field_of_a_later_release_is_skipped() {
    let batch = Batch { header: header(), records: three_texts() };
    let mut message = encode(&batch).to_vec();
    // Field 100, a text; field 101, a number.
    message.extend_from_slice(&[0xa2, 0x06, 0x02, b'h', b'i', 0xa8, 0x06, 0x05]);
    assert_same(&batch.records, &decode(message.into()).unwrap().records);
}

#[test]
fn text_stays_in_the_message() {
    let message = encode(&Batch { header: header(), records: three_texts() });
    let range = message.as_ptr_range();
    let decoded = decode(message).unwrap();
    let column = decoded.records.columns.column(0).to_data();
    assert!(range.contains(&column.buffers()[1].as_ptr()));
}

#[test]
fn refused_records_survive_the_wire() {
    for_many(|random, batch| {
        let reason = |index| Reason {
            record: format!("f:{index}"),
            code: "type".to_owned(),
            message: "is no date".to_owned(),
            step: "2 (cast)".to_owned(),
            field: "born".to_owned(),
            raw: Bytes::from_static(b"raw"),
        };
        let with_records = random.random_bool(0.7);
        let quarantined = Quarantined {
            header: random.random_bool(0.8).then(|| batch.header.clone()),
            reasons: (0..batch.records.len()).map(reason).collect(),
            records: with_records.then(|| batch.records.clone()),
            stage: "transformer".to_owned(),
            target: String::new(),
        };
        let message = encode_quarantined(&quarantined);
        record::QuarantinedRecords::decode(message.clone()).unwrap();
        let decoded = decode_quarantined(message).unwrap();
        assert_eq!(decoded.header, quarantined.header);
        assert_eq!(decoded.reasons, quarantined.reasons);
        assert_eq!(decoded.stage, quarantined.stage);
        assert_eq!(decoded.records.is_some(), with_records);
        if let Some(records) = &decoded.records {
            assert_same(&batch.records, records);
        }
    });
}

#[test]
fn a_refused_record_without_a_reason_is_refused() {
    let quarantined = Quarantined {
        header: Some(header()),
        records: Some(three_texts()),
        reasons: Vec::new(),
        stage: "loader".to_owned(),
        target: "store".to_owned(),
    };
    let error = decode_quarantined(encode_quarantined(&quarantined)).unwrap_err();
    assert!(error.to_string().contains("reasons"));
}
