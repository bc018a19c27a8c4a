use model::FieldType;

/// What the catalog tells about a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    pub(crate) columns: Vec<Column>,
    /// Columns of each unique index that covers all rows.
    pub(crate) unique: Vec<Vec<String>>,
    /// Changes when a column does; 0 where the shape is looked at in every transaction.
    pub(crate) fingerprint: i64,
}

impl Shape {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Tells whether exactly these columns, in any order, identify a row.
    pub(crate) fn is_unique(&self, names: &[&str]) -> bool {
        self.unique.iter().any(|index| {
            index.len() == names.len() && names.iter().all(|name| index.iter().any(|c| c == name))
        })
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Type as the database writes it, with length and precision.
    pub(crate) declared: String,
    /// The same without length and precision, for casts.
    pub(crate) base: String,
    pub(crate) kind: Kind,
    /// Never null.
    pub(crate) required: bool,
}

/// What values a column takes, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    /// 64 bits.
    Integer,
    /// Fewer than 64 bits.
    SmallInteger,
    /// 64 bits.
    Double,
    /// 32 bits.
    Real,
    /// `None`: any number of digits.
    Decimal(Option<(u16, i16)>),
    /// Text of the type that is compared byte by byte or by its collation.
    Text,
    Bytes,
    Date,
    /// With or without a zone.
    Timestamp,
    Json,
    /// JSON that knows when two values are equal.
    Jsonb,
    /// Whatever text can be cast to.
    Other,
    /// SQLite: numbers are kept as numbers, and text that looks like one becomes one.
    Numeric,
}

/// How values of a field go into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// As they are.
    Same,
    /// After a cast, which never changes a value silently.
    Cast,
    /// After a cast, and only values with at most so many digits behind the point.
    Scale(u8),
    /// Not at all.
    Misfit,
}

impl Fit {
    /// Decides for a decimal field and a column with so many digits behind the point.
    pub(crate) fn of_scale(field: FieldType, column: Option<i16>) -> Self {
        match (field, column) {
            (FieldType::Decimal { scale, .. }, Some(kept)) if i16::from(scale) > kept => {
                u8::try_from(kept).map_or(Self::Misfit, Self::Scale)
            }
            _ => Self::Same,
        }
    }
}
