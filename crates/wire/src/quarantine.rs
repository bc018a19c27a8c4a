use bytes::Bytes;
use model::{BatchHeader, Records};
use prost::Message;

use crate::{
    DecodeError,
    decode::decode_records,
    encode_records, header,
    protobuf::{Fields, Malformed, Writer},
    record,
};

/// Records of one batch that a stage refused.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// Header of the batch that the records came in; `None` where not even that could be decoded.
    pub header: Option<BatchHeader>,
    /// The records as the stage received them; `None` where they could not be decoded.
    pub records: Option<Records>,
    /// Why, one per record, in the order of `records`.
    pub reasons: Vec<Reason>,
    /// Stage that refused them: `extractor`, `transformer` or `loader`.
    pub stage: String,
    /// Target that refused them; empty in the transformer and the extractor.
    pub target: String,
}

/// Why a record was quarantined. Holds no values of the record, except in `raw`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reason {
    /// Id of the record, which is also its place in the source.
    pub record: String,
    /// A short name from a small closed set: `type`, `constraint`, `size`, `shape`, ….
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// Transform step, such as `2 (cast)`; empty where no step is to blame.
    pub step: String,
    /// Field; empty where no single field is to blame.
    pub field: String,
    /// The text of a record that could not be parsed at all; empty otherwise.
    pub raw: Bytes,
}

/// Encodes refused records, which must be [valid](Records::validate).
#[must_use]
pub fn encode_quarantined(quarantined: &Quarantined) -> Bytes {
    let rest = record::QuarantinedRecords {
        header: quarantined.header.as_ref().map(header::to_wire),
        records: None,
        reasons: quarantined.reasons.iter().cloned().map(Into::into).collect(),
        stage: quarantined.stage.clone(),
        target: quarantined.target.clone(),
    };
    let records = quarantined.records.as_ref().map(encode_records);
    let size = records.as_ref().map_or(0, |records| records.len() + 6);
    let mut message = Writer::with_capacity(size + rest.encoded_len());
    if let Some(records) = records {
        message.bytes(2, records.as_slice());
    }
    let mut message = message.finish();
    rest.encode(&mut message).expect("a vector has room");
    message.into()
}

/// Decodes refused records. They keep `message` alive.
///
/// # Errors
///
/// [`DecodeError`] names the first field that is not as it should be.
pub fn decode_quarantined(message: Bytes) -> Result<Quarantined, DecodeError> {
    let mut quarantined = Quarantined {
        header: None,
        records: None,
        reasons: Vec::new(),
        stage: String::new(),
        target: String::new(),
    };
    for field in Fields::of(&message) {
        let malformed = |Malformed| DecodeError::malformed("quarantined");
        let (tag, found) = field.map_err(malformed)?;
        if !(1..=5).contains(&tag) {
            continue;
        }
        let bytes = message.slice_ref(found.bytes().map_err(malformed)?);
        match tag {
            1 => quarantined.header = Some(header::decode(bytes)?),
            2 => quarantined.records = Some(decode_records(&bytes)?),
            3 => quarantined.reasons.push(
                record::QuarantineReason::decode(bytes)
                    .map_err(|_| DecodeError::malformed("reasons"))?
                    .into(),
            ),
            4 => quarantined.stage = text(&bytes, "stage")?,
            _ => quarantined.target = text(&bytes, "target")?,
        }
    }
    if let Some(records) = &quarantined.records
        && records.len() != quarantined.reasons.len()
    {
        let (found, count) = (quarantined.reasons.len(), records.len());
        let reason = format!("there are {found} for {count} records");
        return Err(DecodeError::invalid("reasons", reason));
    }
    Ok(quarantined)
}

fn text(bytes: &[u8], field: &str) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::invalid(field, "it is not UTF-8"))
}

impl From<Reason> for record::QuarantineReason {
    fn from(reason: Reason) -> Self {
        let Reason { record, code, message, step, field, raw } = reason;
        Self { record, code, message, step, field, raw }
    }
}

impl From<record::QuarantineReason> for Reason {
    fn from(reason: record::QuarantineReason) -> Self {
        let record::QuarantineReason { record, code, message, step, field, raw } = reason;
        Self { record, code, message, step, field, raw }
    }
}
