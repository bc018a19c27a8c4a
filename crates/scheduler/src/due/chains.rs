//! Pipelines that follow others: whom they follow exists, and nobody follows itself in the end.

use std::collections::{BTreeMap, BTreeSet};

use model::PipelineName;
use spec::{Pipeline, Problem};

/// Checks applied pipelines, beside `others` that are stored already.
pub(crate) fn problems<'a>(
    applied: &[&'a Pipeline],
    others: impl IntoIterator<Item = &'a Pipeline>,
) -> Vec<Problem> {
    let mut follows: BTreeMap<&PipelineName, &[PipelineName]> = BTreeMap::new();
    for pipeline in others.into_iter().chain(applied.iter().copied()) {
        follows.insert(&pipeline.name, &pipeline.triggers.after);
    }
    let mut problems = Vec::new();
    for pipeline in applied {
        for name in &pipeline.triggers.after {
            let (message, remedy) = if !follows.contains_key(name) {
                (
                    format!("there is no pipeline `{name}` to run after"),
                    "apply it first or in the same step, or correct the name".to_owned(),
                )
            } else if leads_to(&follows, name, &pipeline.name) {
                (
                    format!("`{name}` runs after `{}` itself, so neither would end", pipeline.name),
                    "break the circle".to_owned(),
                )
            } else {
                continue;
            };
            problems.push(Problem {
                file: pipeline.places.file().to_owned(),
                line: pipeline.places.line("triggers.after"),
                key: "triggers.after".to_owned(),
                message,
                remedy,
            });
        }
    }
    problems
}

/// Tells whether `from` follows `to`, over any number of others.
fn leads_to(
    follows: &BTreeMap<&PipelineName, &[PipelineName]>,
    from: &PipelineName,
    to: &PipelineName,
) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            next.extend(follows.get(name).copied().unwrap_or_default());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(name: &str, after: &str) -> Pipeline {
        let triggers = if after.is_empty() { String::new() } else { format!("after: [{after}]") };
        let yaml = format!(
            "pipeline: {name}\nsource: {{csv: {{path: a}}}}\nkey: [a]\ntriggers: {{{triggers}}}\n\
             targets: {{t: {{sqlite: {{path: a, table: a}}}}}}"
        );
        spec::parse(name, &yaml).unwrap()
    }

    #[test]
    fn a_circle_and_a_name_of_nobody_are_found() {
        let (a, b, c) = (pipeline("a", "c"), pipeline("b", "a"), pipeline("c", "b, z"));
        let found = problems(&[&c], [&a, &b]);
        let found: Vec<&str> = found.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            found,
            [
                "`b` runs after `c` itself, so neither would end",
                "there is no pipeline `z` to run after"
            ]
        );
        // What is applied takes the place of what is stored.
        let stored = pipeline("c", "b");
        let corrected = pipeline("c", "");
        assert!(problems(&[&corrected, &b], [&a, &stored]).is_empty());
    }
}
