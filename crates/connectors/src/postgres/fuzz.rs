use super::decode::{Builder, CopyRows, Format};

const FORMATS: [Format; 11] = [
    Format::Boolean,
    Format::Int2,
    Format::Int4,
    Format::Int8,
    Format::Double,
    Format::Numeric { precision: 12, scale: 2 },
    Format::Text,
    Format::Json,
    Format::Bytes,
    Format::Date,
    Format::Timestamp,
];

/// Reads a COPY of any content, as a whole and in pieces, each field as every type.
///
/// # Panics
///
/// When the rows depend on the pieces, or a value that is in range cannot be written.
pub fn read_copy(content: &[u8]) {
    let whole = rows(content, content.len().max(1));
    assert_eq!(whole, rows(content, 7), "however it is cut");
    for field in whole.iter().flatten().map(Option::as_deref) {
        for format in FORMATS {
            let mut builder = Builder::new(format);
            let is_in_range = field.is_none_or(|bytes| !format.is_out_of_range(bytes));
            if is_in_range {
                builder.append(field);
                assert_eq!(builder.finish().len(), 1);
            }
            if let Some(bytes) = field {
                format.write_text(bytes, &mut String::new());
            }
        }
    }
}

fn rows(content: &[u8], size: usize) -> Vec<Vec<Option<Vec<u8>>>> {
    let (mut copy, mut fields, mut found) = (CopyRows::default(), Vec::new(), Vec::new());
    for piece in content.chunks(size) {
        copy.push(piece);
        while copy.next(&mut fields) {
            let field = |range: &Option<std::ops::Range<usize>>| {
                range.clone().map(|range| copy.bytes()[range].to_vec())
            };
            found.push(fields.iter().map(field).collect());
        }
    }
    found
}
