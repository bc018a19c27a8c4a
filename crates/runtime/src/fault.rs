//! Named points at which a fault test lets the process die, as `kill -9` would.
//!
//! `TRIBUTARY_CRASH_AT=extractor.published:3` ends the process when it passes the point
//! `extractor.published` for the third time; without a number, the first time. One line on stderr
//! says so. A release build has no such points.

/// Marks a point between two steps. Does nothing unless the environment names this point.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;

    // The environment of a process does not change, and a point may be passed millions of times.
    static CRASH: OnceLock<Option<Crash>> = OnceLock::new();
    let crash = CRASH.get_or_init(|| Crash::parse(&std::env::var("TRIBUTARY_CRASH_AT").ok()?));
    if crash.as_ref().is_some_and(|crash| crash.is_due(name)) {
        eprintln!("crash point `{name}` reached, the process ends here");
        std::process::abort();
    }
}

/// Marks a point between two steps. Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(debug_assertions)]
struct Crash {
    name: String,
    left: std::sync::atomic::AtomicU64,
}

#[cfg(debug_assertions)]
impl Crash {
    fn parse(text: &str) -> Option<Self> {
        let (name, nth) = match text.split_once(':') {
            Some((name, nth)) => (name, nth.parse().ok()?),
            None => (text, 1),
        };
        (nth > 0 && !name.is_empty())
            .then(|| Self { name: name.to_owned(), left: std::sync::atomic::AtomicU64::new(nth) })
    }

    fn is_due(&self, name: &str) -> bool {
        use std::sync::atomic::Ordering;
        self.name == name
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                == Ok(1)
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn nonsense_names_no_point() {
        for text in ["", ":2", "a:0", "a:x"] {
            assert!(Crash::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_named_point_is_due_once_at_its_turn() {
        let crash = Crash::parse("a.b:2").unwrap();
        let due: Vec<bool> =
            ["a.b", "other", "a.b", "a.b"].iter().map(|name| crash.is_due(name)).collect();
        assert_eq!(due, [false, false, true, false]);
    }
}
