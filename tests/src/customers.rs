//! Made-up customers: the same for the same seed.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

use crate::{Fingerprint, Seed};

const FIRST_NAMES: &[&str] = &[
    "Anna",
    "Björn",
    "Chloé",
    "Dmitri",
    "Elif",
    "François",
    "Grace",
    "Håkon",
    "Ines",
    "Jürgen",
    "Kateřina",
    "Łukasz",
    "Mei",
    "Nuno",
    "Olga",
    "Păun",
    "Quentin",
    "Rania",
    "Søren",
    "玲奈",
];
const LAST_NAMES: &[&str] = &[
    "Andersson",
    "Brown",
    "Çelik",
    "Díaz",
    "Eriksen",
    "Fischer",
    "García",
    "Hoffmann",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "López",
    "Müller",
    "Nagy",
    "O'Brien",
    "Petrov",
    "Rossi",
    "Smith-Jones",
    "Tanaka",
    "van der Berg",
];
const CITIES: &[(&str, &str)] = &[
    ("DE", "Berlin"),
    ("DE", "Frankfurt, Main"),
    ("FR", "Paris"),
    ("ES", "A Coruña"),
    ("PL", "Łódź"),
    ("GB", "London"),
    ("US", "Portland, \"OR\""),
    ("JP", "東京"),
    ("TR", "İzmir"),
    ("NO", "Ålesund"),
];

/// The schema of a pipeline that reads the customers.
pub const SCHEMA: &str = "{id: integer, email: text, first_name: text, last_name: text, \
     phone: text, country: text, city: text, birth_date: date, points: integer, \
     balance: \"decimal(12,2)\", newsletter: boolean, updated_at: timestamp}";

/// 2026-01-01 00:00 UTC in seconds since 1970-01-01.
const YEAR_START: u64 = 1_767_225_600;
const MONTH: u64 = 30 * 86_400;

/// A number of customers, with ids from `first` on.
#[derive(Debug, Clone, Copy)]
pub struct Customers {
    /// Decides what they are like.
    pub seed: u64,
    /// The lowest id.
    pub first: u64,
    /// How many they are.
    pub count: u64,
}

/// The state of the customers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// As they are at first.
    First,
    /// A month later one of ten has changed, and his `updated_at` with him.
    Second,
}

/// A customer: a row of twelve columns.
#[derive(Debug, Clone)]
pub struct Customer {
    id: u64,
    email: String,
    first_name: &'static str,
    last_name: &'static str,
    phone: Option<String>,
    country: &'static str,
    city: &'static str,
    birth_date: Option<String>,
    points: u64,
    balance_cents: i64,
    newsletter: bool,
    updated_at: String,
}

impl Customers {
    /// Makes `count` customers with ids from 1 on.
    #[must_use]
    pub fn new(seed: u64, count: u64) -> Self {
        Self { seed, first: 1, count }
    }

    /// Splits the customers into `parts` of about the same size.
    #[must_use]
    pub fn split(self, parts: u64) -> Vec<Self> {
        let at = |part: u64| self.count * part / parts;
        (0..parts)
            .map(|part| Self {
                first: self.first + at(part),
                count: at(part + 1) - at(part),
                ..self
            })
            .collect()
    }

    /// Returns the customers of one edition, by id.
    pub fn rows(self, edition: Edition) -> impl Iterator<Item = Customer> {
        (self.first..self.first + self.count).map(move |id| self.customer(id, edition))
    }

    /// Returns how many differ between the editions.
    #[must_use]
    pub fn changed(self) -> u64 {
        (self.first..self.first + self.count).filter(|id| self.changes(*id)).count() as u64
    }

    /// Writes a CSV file with a header.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write_csv(self, path: &Path, edition: Edition) -> io::Result<()> {
        let mut file = io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
        writeln!(file, "{}", Customer::HEADER)?;
        let mut line = String::new();
        for customer in self.rows(edition) {
            line.clear();
            customer.write_csv(&mut line);
            file.write_all(line.as_bytes())?;
        }
        file.into_inner()?.sync_all()
    }

    /// Returns the fingerprint of one edition.
    #[must_use]
    pub fn fingerprint(self, edition: Edition) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for customer in self.rows(edition) {
            fingerprint.add(&customer.canonical());
        }
        fingerprint
    }

    fn changes(self, id: u64) -> bool {
        Seed::new(self.seed ^ id.rotate_left(32)).number().is_multiple_of(10)
    }

    fn customer(self, id: u64, edition: Edition) -> Customer {
        let changed = edition == Edition::Second && self.changes(id);
        let mut seed = Seed::new(self.seed.wrapping_add(id.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let (first_name, last_name) = (*seed.pick(FIRST_NAMES), *seed.pick(LAST_NAMES));
        let phone = (seed.between(0, 20) > 0)
            .then(|| format!("+{}{:09}", seed.between(1, 99), seed.between(0, 1_000_000_000)));
        let (country, city) = *seed.pick(CITIES);
        let birth_date = (seed.between(0, 30) > 0).then(|| {
            let (year, month) = (seed.between(1930, 2010), seed.between(1, 13));
            format!("{year}-{month:02}-{:02}", seed.between(1, 29))
        });
        let (points, balance) = (seed.between(0, 100_000), seed.between(0, 2_000_000));
        let seconds = seed.between(0, MONTH);
        Customer {
            id,
            email: format!("customer.{id}@{}.example", if changed { "new" } else { "mail" }),
            first_name,
            last_name,
            phone,
            country,
            city,
            birth_date,
            points: if changed { points + 100 } else { points },
            balance_cents: i64::try_from(balance).expect("a small number") - 500_000,
            newsletter: (seed.number() & 1 == 1) != changed,
            updated_at: timestamp(YEAR_START + seconds + if changed { MONTH } else { 0 }),
        }
    }
}

impl Customer {
    /// The first line of a CSV file.
    pub const HEADER: &str = "id,email,first_name,last_name,phone,country,city,birth_date,points,\
                              balance,newsletter,updated_at";

    /// The columns of a PostgreSQL table, for `create table`.
    pub const COLUMNS: &str = "id bigint primary key, email text, first_name text, last_name text, \
         phone text, country text, city text, birth_date date, points bigint, \
         balance numeric(12,2), newsletter boolean, updated_at timestamptz";

    /// SQL for PostgreSQL that writes a row as [`Customer::canonical`] does.
    pub const CANONICAL_SQL: &str = "concat_ws('|', id, email, first_name, last_name, \
         coalesce(phone, '~'), country, city, coalesce(birth_date::text, '~'), points, balance, \
         newsletter::int, to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))";

    /// Returns the row as one text for fingerprints.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!(
            "{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
            self.id,
            self.email,
            self.first_name,
            self.last_name,
            self.phone.as_deref().unwrap_or("~"),
            self.country,
            self.city,
            self.birth_date.as_deref().unwrap_or("~"),
            self.points,
            money(self.balance_cents),
            u8::from(self.newsletter),
            self.updated_at,
        )
    }

    /// Appends the row as a line of CSV.
    ///
    /// # Panics
    ///
    /// Never: a string takes everything.
    pub fn write_csv(&self, line: &mut String) {
        let (first_name, last_name) = (quoted(self.first_name), quoted(self.last_name));
        writeln!(
            line,
            "{},{},{first_name},{last_name},{},{},{},{},{},{},{},{}",
            self.id,
            self.email,
            self.phone.as_deref().unwrap_or_default(),
            self.country,
            quoted(self.city),
            self.birth_date.as_deref().unwrap_or_default(),
            self.points,
            money(self.balance_cents),
            self.newsletter,
            self.updated_at,
        )
        .expect("a string takes everything");
    }
}

fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

/// Writes seconds since 1970 of the year 2026 as text.
fn timestamp(seconds: u64) -> String {
    const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (mut day, time) = ((seconds - YEAR_START) / 86_400, seconds % 86_400);
    let mut month = 0;
    while day >= MONTHS[month] {
        day -= MONTHS[month];
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("2026-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_ten_changes_and_only_he() {
        let customers = Customers::new(7, 5_000);
        let (first, second) = (customers.rows(Edition::First), customers.rows(Edition::Second));
        let changed = first.zip(second).filter(|(a, b)| a.canonical() != b.canonical()).count();
        assert_eq!(changed as u64, customers.changed());
        assert!((400..600).contains(&changed), "{changed}");
    }

    #[test]
    fn the_parts_are_the_whole() {
        let customers = Customers::new(7, 1_001);
        let mut sum = Fingerprint::default();
        for part in customers.split(3) {
            for row in part.rows(Edition::First) {
                sum.add(&row.canonical());
            }
        }
        assert_eq!(sum, customers.fingerprint(Edition::First));
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(timestamp(YEAR_START), "2026-01-01T00:00:00Z");
        assert_eq!(timestamp(YEAR_START + 59 * 86_400 + 3_661), "2026-03-01T01:01:01Z");
    }
}
