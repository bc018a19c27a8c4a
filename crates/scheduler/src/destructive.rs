//! What a change of a pipeline takes away.

use spec::{Deletes, Mode, Pipeline, Problem};

/// Returns what applying a pipeline over the one before takes away from targets or from their privacy,
/// with the place in the text. A change that only adds, or reads again what is there, is not among it.
pub(crate) fn destructive(before: &Pipeline, after: &Pipeline) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |key: String, message: String| {
        found.push(Problem {
            file: after.places.file().to_owned(),
            line: after.places.line(&key),
            key,
            message,
            remedy: "if that is meant, apply it without `--refuse-destructive`".to_owned(),
        });
    };
    if before.key != after.key {
        add(
            "key".to_owned(),
            format!(
                "the key was [{}]: rows that are there stay under the old key, and come once more \
                 under the new one",
                before.key.join(", ")
            ),
        );
    }
    for field in before.pii.iter().filter(|field| !after.pii.contains(field)) {
        let message = format!("`{field}` is neither encrypted nor masked any more");
        add("pii".to_owned(), message);
    }
    for target in &after.targets {
        let name = &target.name;
        let Some(known) = before.targets.iter().find(|known| known.name == *name) else { continue };
        let is_snapshot = |mode| matches!(mode, Mode::Snapshot { .. });
        if is_snapshot(target.mode) && !is_snapshot(known.mode) {
            let message = "the next run removes the rows that the source does not have any more";
            add(format!("targets.{name}.mode"), message.to_owned());
        }
        if target.deletes == Deletes::Hard && known.deletes != Deletes::Hard {
            let message = "deletes remove rows, which they did not before";
            add(format!("targets.{name}.deletes"), message.to_owned());
        }
        let moved = known.system.place() != target.system.place() || known.table != target.table;
        if moved {
            let message = "it lies elsewhere: where it was, nothing is loaded any more";
            add(format!("targets.{name}"), message.to_owned());
        }
    }
    let is_gone = |name| after.targets.iter().all(|target| target.name != name);
    for target in before.targets.iter().filter(|target| is_gone(target.name.clone())) {
        let message =
            format!("the target `{}` is gone: nothing is loaded there any more", target.name);
        add("targets".to_owned(), message);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
pipeline: shop
source: {csv: {path: \"*.csv\"}}
schema: {id: integer, name: text}
pii: [name]
key: [id]
targets:
  store: {sqlite: {path: store.db, table: shop}, deletes: soft}
  copy: {sqlite: {path: copy.db, table: shop}}
";

    fn found(change: (&str, &str)) -> Vec<(String, u32)> {
        let parse = |text: &str| spec::parse("shop.yaml", text).unwrap();
        let after = BEFORE.replace(change.0, change.1);
        assert_ne!(after, BEFORE);
        let found = destructive(&parse(BEFORE), &parse(&after));
        found.into_iter().map(|problem| (problem.key, problem.line)).collect()
    }

    #[test]
    fn what_takes_something_away_is_told_with_its_place() {
        for (change, key, line) in [
            (("key: [id]", "key: [id, name]"), "key", 5),
            (("pii: [name]\n", ""), "pii", 0),
            (("deletes: soft", "deletes: soft, mode: snapshot"), "targets.store.mode", 7),
            ((", deletes: soft", ""), "targets.store.deletes", 7),
            (("path: copy.db", "path: other.db"), "targets.copy", 8),
            (("table: shop}}\n", "table: shops}}\n"), "targets.copy", 8),
            (("  copy: {sqlite: {path: copy.db, table: shop}}\n", ""), "targets", 6),
        ] {
            assert_eq!(found(change), [(key.to_owned(), line)], "{change:?}");
        }
    }

    #[test]
    fn what_only_adds_is_not() {
        for change in [
            ("name: text", "name: text, city: text"),
            ("pii: [name]", "pii: [name, id]"),
            ("\"*.csv\"", "\"new-*.csv\""),
            ("targets:\n", "targets:\n  third: {sqlite: {path: third.db, table: shop}}\n"),
        ] {
            assert_eq!(found(change), [], "{change:?}");
        }
    }
}
