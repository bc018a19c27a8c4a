use super::{
    super::{
        catalog::CatalogColumn,
        decode::{Builder, Format},
    },
    message::{self, Message, Old, Tuple, Value},
    value::Column,
};

/// Types by their names in the catalog, with the modifier.
const TYPES: [(&str, i32); 10] = [
    ("bool", -1),
    ("int4", -1),
    ("float8", -1),
    // Twelve digits, two of them behind the point.
    ("numeric", (12 << 16 | 2) + 4),
    ("text", -1),
    ("bpchar", -1),
    ("bytea", -1),
    ("date", -1),
    ("timestamptz", -1),
    ("json", -1),
];

/// Reads a message of the log of any content, each value as every type.
///
/// # Panics
///
/// When something is not refused that cannot be read.
pub fn read_log(message: &[u8]) {
    let tuples: Vec<Tuple<'_>> = match message::read(message) {
        Ok(Message::Insert { new, .. } | Message::Update { old: None, new, .. }) => vec![new],
        Ok(Message::Update { old: Some(Old::Key(old) | Old::Full(old)), new, .. }) => {
            vec![old, new]
        }
        Ok(Message::Delete { old: Old::Key(old) | Old::Full(old), .. }) => vec![old],
        Ok(Message::Relation(relation)) => {
            assert_eq!(relation.columns.len(), relation.identity.len());
            return;
        }
        Ok(Message::Truncate { .. } | Message::Other) | Err(_) => return,
    };
    let columns = TYPES.map(|(name, modifier)| Column::new(&column(name, modifier)));
    for value in tuples.iter().flatten() {
        let Value::Text(bytes) = value else { continue };
        for column in &columns {
            let Ok(cell) = column.read(bytes) else { continue };
            let format = if column.convert.is_some() { Format::Text } else { column.format };
            let mut builder = Builder::new(format);
            builder.append_cell(&cell);
            assert_eq!(builder.finish().len(), 1);
        }
    }
}

fn column(type_name: &str, modifier: i32) -> CatalogColumn {
    CatalogColumn {
        name: "c".to_owned(),
        declared: type_name.to_owned(),
        base: type_name.to_owned(),
        type_name: type_name.to_owned(),
        modifier,
        required: false,
        category: "S".to_owned(),
        toastable: false,
        generated: false,
    }
}
