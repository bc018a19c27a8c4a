//! A text is a value of a type or is none, and one that is comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::text;

fuzz_target!(|text: &str| {
    if let Some(number) = text::integer(text) {
        assert_eq!(text::integer(&number.to_string()), Some(number));
        assert_eq!(text::decimal(text, 38, 0), Some(i128::from(number)));
    }
    if let Some(number) = text::double(text) {
        assert!(number.is_finite());
        assert_eq!(text::double(&number.to_string()), Some(number));
    }
    for (precision, scale) in [(1, 0), (12, 2), (18, 18), (38, 0), (38, 37)] {
        if let Some(value) = text::decimal(text, precision, scale) {
            assert!(value.unsigned_abs().to_string().len() <= usize::from(precision));
        }
    }
    if let Some(days) = text::date(text) {
        assert_eq!(text::timestamp(text), Some(i64::from(days) * 86_400_000_000));
    }
    let _ = (text::boolean(text), text::timestamp(text), text::bytes(text));
});
