//! The functions that Tributary adds to CEL. `spec::FUNCTIONS` lists their names.
//!
//! Those whose first argument is the thing they work on can also be called on it:
//! `name.lower()` is `lower(name)`.

use std::{cell::RefCell, collections::HashMap};

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{
            BYTES_TYPE, CelBool, CelBytes, CelInt, CelList, CelNull, CelString, CelTimestamp,
            DOUBLE_TYPE, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE, TIMESTAMP_TYPE, Type,
        },
        value::{CowVal, Val},
    },
};
use chrono::{DateTime, Datelike, Days, FixedOffset, Months, Timelike};
use sha2::{Digest, Sha256};
use spec::format::Format;

use super::{
    bind::MAX_LIST,
    decimal::{DECIMAL, Decimal, MAX_DIGITS},
    work::MAX_TEXT,
};
use crate::steps::hexadecimal;

/// Takes the place of CEL's `matches`, which reads its pattern anew for every record.
pub(super) const MATCHES: &str = "@matches";
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
type Function = for<'b, 'v> fn(Arguments<'b, 'v>) -> Outcome<'b, 'v>;

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    let text = || STRING_TYPE;
    let time = || TIMESTAMP_TYPE;
    let int = || INT_TYPE;
    let both: [(&str, Vec<Type>, Function); 28] = [
        ("lower", vec![text()], |a| made(text_of(&a, 0).to_lowercase())),
        ("upper", vec![text()], |a| made(text_of(&a, 0).to_uppercase())),
        ("trim", vec![text()], |a| made(text_of(&a, 0).trim().to_owned())),
        ("length", vec![text()], |a| whole(text_of(&a, 0).chars().count())),
        ("replace", vec![text(), text(), text()], replace),
        ("split", vec![text(), text()], split),
        ("substring", vec![text(), int()], substring),
        ("substring", vec![text(), int(), int()], substring),
        ("indexOf", vec![text(), text()], index_of),
        ("join", vec![LIST_TYPE, text()], join),
        (MATCHES, vec![text(), text()], matches),
        ("matches_whole", vec![text(), text()], matches_whole),
        ("sha256", vec![text()], |a| sha256(text_of(&a, 0).as_bytes())),
        ("sha256", vec![BYTES_TYPE], |a| match a[0].downcast_ref::<CelBytes<'_>>() {
            Some(bytes) => sha256(bytes.inner()),
            None => Err(failed("sha256", "the argument is no bytes")),
        }),
        ("parse_date", vec![text(), text()], parse_date),
        ("parse_time", vec![text(), text()], parse_time),
        ("format_time", vec![time(), text()], format_time),
        ("add_days", vec![time(), int()], add_days),
        ("add_months", vec![time(), int()], add_months),
        ("days_between", vec![time(), time()], days_between),
        ("year", vec![time()], |a| whole(time_of(&a, 0).year())),
        ("month", vec![time()], |a| whole(time_of(&a, 0).month())),
        ("day", vec![time()], |a| whole(time_of(&a, 0).day())),
        ("hour", vec![time()], |a| whole(time_of(&a, 0).hour())),
        ("minute", vec![time()], |a| whole(time_of(&a, 0).minute())),
        ("second", vec![time()], |a| whole(time_of(&a, 0).second())),
        ("round", vec![DECIMAL.to_owned(), int()], round),
        ("round", vec![DOUBLE_TYPE, int()], round),
    ];
    for (index, (name, types, function)) in both.into_iter().enumerate() {
        let target = types[0].to_owned();
        let rest = types[1..].iter().map(ToOwned::to_owned).collect();
        env.add_overload(name, &format!("{name}_{index}"), types, function)?;
        env.add_member_overload(name, &format!("{name}_on_{index}"), target, rest, function)?;
    }
    env.add_overload("date", "date_text", vec![STRING_TYPE], date_of_text)?;
    env.add_overload("date", "date_time", vec![TIMESTAMP_TYPE], date_of_time)?;
    env.add_overload("decimal", "decimal_any", vec![DYN_TYPE], decimal)?;
    env.add_overload("divide", "divide_any", vec![DYN_TYPE, DYN_TYPE, INT_TYPE], divide)?;
    env.add_overload("string", "string_decimal", vec![DECIMAL.to_owned()], |a| {
        made(number_of("decimal", &a, 0)?.write())
    })?;
    for count in 1..=8 {
        let types = (0..count).map(|_| DYN_TYPE).collect();
        env.add_overload("coalesce", &format!("coalesce_{count}"), types, coalesce)?;
    }
    Ok(())
}

fn failed(function: &str, message: &str) -> ExecutionError {
    ExecutionError::function_error(function, message)
}

fn text_of<'a>(arguments: &'a [CowVal<'_, '_>], index: usize) -> &'a str {
    arguments[index]
        .downcast_ref::<CelString<'_>>()
        .map(CelString::inner)
        .expect("the overload was chosen by this type")
}

fn integer_of(arguments: &[CowVal<'_, '_>], index: usize) -> i64 {
    *arguments[index]
        .downcast_ref::<CelInt>()
        .expect("the overload was chosen by this type")
        .inner()
}

fn time_of(arguments: &[CowVal<'_, '_>], index: usize) -> DateTime<FixedOffset> {
    *arguments[index]
        .downcast_ref::<CelTimestamp>()
        .expect("the overload was chosen by this type")
        .inner()
}

fn number_of(
    function: &str,
    arguments: &[CowVal<'_, '_>],
    index: usize,
) -> Result<Decimal, ExecutionError> {
    Decimal::of(&*arguments[index]).ok_or_else(|| {
        let found = arguments[index].get_type().name().to_owned();
        ExecutionError::no_such_overload(function, vec![found])
    })
}

fn places_of(
    function: &str,
    arguments: &[CowVal<'_, '_>],
    index: usize,
) -> Result<u8, ExecutionError> {
    u8::try_from(integer_of(arguments, index))
        .ok()
        .filter(|places| *places <= MAX_DIGITS)
        .ok_or_else(|| failed(function, "the number of places is not between 0 and 38"))
}

fn made<'b, 'v>(text: String) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelString::from(text)))
}

fn whole<'b, 'v>(number: impl TryInto<i64>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelInt::from(number.try_into().unwrap_or(i64::MAX))))
}

fn moment<'b, 'v>(time: DateTime<FixedOffset>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelTimestamp::from(time)))
}

fn moment_of_micros<'b, 'v>(function: &str, micros: Option<i64>) -> Outcome<'b, 'v> {
    let time = micros.and_then(DateTime::from_timestamp_micros);
    moment(time.ok_or_else(|| failed(function, "the text is not such a time"))?.fixed_offset())
}

fn replace<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (text, old, new) = (text_of(&a, 0), text_of(&a, 1), text_of(&a, 2));
    if old.is_empty() {
        return Err(failed("replace", "the text to replace is empty"));
    }
    let longer = text.matches(old).count().saturating_mul(new.len());
    if text.len().saturating_add(longer) > MAX_TEXT {
        return Err(failed("replace", "the result is too long"));
    }
    made(text.replace(old, new))
}

fn split<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (text, separator) = (text_of(&a, 0), text_of(&a, 1));
    if separator.is_empty() {
        return Err(failed("split", "the separator is empty"));
    }
    let pieces: Vec<Box<dyn Val + 'v>> = text
        .split(separator)
        .take(MAX_LIST + 1)
        .map(|piece| Box::new(CelString::from(piece.to_owned())) as Box<dyn Val + 'v>)
        .collect();
    if pieces.len() > MAX_LIST {
        return Err(failed("split", "the text has more than 1000 pieces"));
    }
    Ok(CowVal::owned(CelList::from(pieces)))
}

/// Positions count characters from 0; what lies outside is empty.
fn substring<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let position = |index| usize::try_from(integer_of(&a, index));
    let start = position(1).map_err(|_| failed("substring", "the start is negative"))?;
    let end = match a.len() {
        3 => position(2).map_err(|_| failed("substring", "the end is negative"))?,
        _ => usize::MAX,
    };
    made(text_of(&a, 0).chars().skip(start).take(end.saturating_sub(start)).collect())
}

fn index_of<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let text = text_of(&a, 0);
    match text.find(text_of(&a, 1)) {
        Some(at) => whole(text[..at].chars().count()),
        None => whole(-1),
    }
}

fn join<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let list = a[0].downcast_ref::<CelList<'v>>();
    let list = list.ok_or_else(|| failed("join", "the argument is no list"))?;
    let mut joined = String::new();
    for (index, item) in list.inner().iter().enumerate() {
        let piece = item.downcast_ref::<CelString<'v>>();
        let piece = piece.ok_or_else(|| failed("join", "an item of the list is no text"))?;
        if index > 0 {
            joined.push_str(text_of(&a, 1));
        }
        joined.push_str(piece.inner());
        if joined.len() > MAX_TEXT {
            return Err(failed("join", "the result is too long"));
        }
    }
    made(joined)
}

thread_local! {
    static PATTERNS: Patterns = Patterns::default();
    static WHOLE_PATTERNS: Patterns = Patterns::default();
}

/// Patterns that were read before.
#[derive(Default)]
struct Patterns(RefCell<HashMap<String, Option<regex::Regex>>>);

impl Patterns {
    fn is_match<'b, 'v>(
        &self,
        function: &str,
        a: &Arguments<'b, 'v>,
        read: impl FnOnce(&str) -> Option<regex::Regex>,
    ) -> Outcome<'b, 'v> {
        let mut known = self.0.borrow_mut();
        // Patterns may come from records.
        if known.len() > 64 {
            known.clear();
        }
        let pattern = text_of(a, 1);
        let pattern = known.entry(pattern.to_owned()).or_insert_with(|| read(pattern));
        let pattern = pattern.as_ref();
        let pattern =
            pattern.ok_or_else(|| failed(function, "the pattern is no regular expression"))?;
        Ok(CowVal::owned(CelBool::from(pattern.is_match(text_of(a, 0)))))
    }
}

fn matches<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    PATTERNS.with(|known| known.is_match(MATCHES, &a, |pattern| regex::Regex::new(pattern).ok()))
}

fn matches_whole<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    WHOLE_PATTERNS.with(|known| {
        known.is_match("matches_whole", &a, |pattern| spec::format::whole_text(pattern).ok())
    })
}

fn sha256<'b, 'v>(bytes: &[u8]) -> Outcome<'b, 'v> {
    made(hexadecimal(&Sha256::digest(bytes)))
}

fn coalesce<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let first = a.into_iter().find(|value| value.downcast_ref::<CelNull>().is_none());
    Ok(first.unwrap_or_else(|| CowVal::owned(CelNull)))
}

fn decimal<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let number = match a[0].downcast_ref::<CelString<'_>>() {
        Some(text) => Decimal::parse(text.inner().trim())
            .ok_or_else(|| failed("decimal", "the text is not a number of up to 38 digits"))?,
        None => number_of("decimal", &a, 0)?,
    };
    Ok(CowVal::owned(number))
}

fn round<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(number_of("round", &a, 0)?.round(places_of("round", &a, 1)?)?))
}

fn divide<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (dividend, divisor) = (number_of("divide", &a, 0)?, number_of("divide", &a, 1)?);
    Ok(CowVal::owned(dividend.divide(divisor, places_of("divide", &a, 2)?)?))
}

fn date_of_text<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let days = spec::text::date(text_of(&a, 0));
    moment_of_micros("date", days.map(|days| i64::from(days) * MICROS_PER_DAY))
}

fn date_of_time<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let micros = time_of(&a, 0).timestamp_micros();
    moment_of_micros("date", Some(micros - micros.rem_euclid(MICROS_PER_DAY)))
}

fn format_of(function: &str, a: &[CowVal<'_, '_>]) -> Result<Format, ExecutionError> {
    Format::parse(text_of(a, 1)).map_err(|_| failed(function, "the format is not one"))
}

fn parse_date<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let days = format_of("parse_date", &a)?.date(text_of(&a, 0));
    moment_of_micros("parse_date", days.map(|days| i64::from(days) * MICROS_PER_DAY))
}

fn parse_time<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    moment_of_micros("parse_time", format_of("parse_time", &a)?.timestamp(text_of(&a, 0)))
}

fn format_time<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let text = format_of("format_time", &a)?.write(time_of(&a, 0).timestamp_micros());
    made(text.ok_or_else(|| failed("format_time", "the time cannot be written so"))?)
}

fn add_days<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (time, days) = (time_of(&a, 0), integer_of(&a, 1));
    let count = Days::new(days.unsigned_abs());
    let moved = if days < 0 { time.checked_sub_days(count) } else { time.checked_add_days(count) };
    moment(moved.ok_or_else(|| failed("add_days", "the time is too far away"))?)
}

fn add_months<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (time, months) = (time_of(&a, 0), integer_of(&a, 1));
    let moved = u32::try_from(months.unsigned_abs()).ok().map(Months::new).and_then(|count| {
        if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }
    });
    moment(moved.ok_or_else(|| failed("add_months", "the time is too far away"))?)
}

/// Counts whole days from the first to the second, negative when the second is earlier.
fn days_between<'b, 'v>(a: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    whole((time_of(&a, 1) - time_of(&a, 0)).num_days())
}
