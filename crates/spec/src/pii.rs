//! Follows what is marked `pii` through the steps.

use std::collections::BTreeSet;

use crate::{Expression, Pipeline, Step, flattened_name};

/// Returns the fields after all steps that hold something of the fields marked `pii`, in
/// alphabetical order. What was hashed or masked no longer does.
#[must_use]
pub fn pii_after(pipeline: &Pipeline) -> BTreeSet<String> {
    let mut marked: BTreeSet<String> = pipeline.pii.iter().cloned().collect();
    for step in &pipeline.steps {
        follow(step, &mut marked);
    }
    marked
}

fn follow(step: &Step, marked: &mut BTreeSet<String>) {
    match step {
        Step::Rename(pairs) => {
            // Two fields may swap their names.
            let renamed: Vec<String> = pairs
                .iter()
                .filter(|(old, _)| marked.contains(old))
                .map(|(_, new)| new.clone())
                .collect();
            for (old, _) in pairs {
                marked.remove(old);
            }
            marked.extend(renamed);
        }
        Step::Keep(names) => marked.retain(|name| names.contains(name)),
        Step::Drop(names) => marked.retain(|name| !names.contains(name)),
        Step::Flatten(flatten) => {
            if marked.remove(&flatten.field) {
                let fields = flatten.fields.iter();
                marked.extend(fields.map(|(key, _)| flattened_name(flatten, key)));
            }
        }
        Step::Nest { fields, into } => {
            let before = marked.len();
            marked.retain(|name| !fields.contains(name));
            if marked.len() < before {
                marked.insert(into.clone());
            }
        }
        Step::Split { field, into, .. } => {
            if marked.contains(field) {
                marked.extend(into.iter().cloned());
            }
        }
        Step::Join { fields, into, .. } => {
            if fields.iter().any(|field| marked.contains(field)) {
                marked.insert(into.clone());
            }
        }
        Step::Hash { fields, .. } | Step::Mask { fields, .. } => {
            marked.retain(|name| !fields.contains(name));
        }
        Step::Compute(computes) => {
            for compute in computes {
                let holds = match Expression::parse(&compute.expression) {
                    Ok(expression) => {
                        expression.fields().iter().any(|field| marked.contains(field))
                    }
                    Err(_) => true,
                };
                if holds {
                    marked.insert(compute.field.clone());
                } else {
                    marked.remove(&compute.field);
                }
            }
        }
        Step::Cast(_)
        | Step::Default(_)
        | Step::Trim(_)
        | Step::Lower(_)
        | Step::Upper(_)
        | Step::Filter(_)
        | Step::Dedupe(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &str) -> Vec<String> {
        let yaml = format!(
            "pipeline: crm\nsource: {{csv: {{path: a.csv}}}}\npii: [email, name, address]\n\
             key: [id]\nsteps:\n{steps}\ntargets: {{store: {{sqlite: {{path: a, table: t}}}}}}\n"
        );
        let pipeline = crate::parse("crm.yaml", &yaml).unwrap();
        pii_after(&pipeline).into_iter().collect()
    }

    #[test]
    fn a_mark_follows_the_values_and_ends_where_they_do() {
        assert_eq!(after("  - trim: [name]"), ["address", "email", "name"]);
        assert_eq!(after("  - rename: {email: id, id: email}"), ["address", "id", "name"]);
        assert_eq!(after("  - keep: [id, email]"), ["email"]);
        assert_eq!(after("  - drop: [email, address]"), ["name"]);
        assert_eq!(
            after("  - flatten: {field: address, fields: {city: text}}"),
            ["address_city", "email", "name"]
        );
        assert_eq!(after("  - nest: {fields: [id, email, name], into: who}"), ["address", "who"]);
        let split = "  - split: {field: name, separator: \" \", into: [first, last]}";
        assert_eq!(after(split), ["address", "email", "first", "last", "name"]);
        let join = "  - join: {fields: [id, name], separator: \" \", into: label}";
        assert_eq!(after(join), ["address", "email", "label", "name"]);
        let hidden = "  - hash: {fields: [email], key: \"${env:K}\"}\n  \
                      - mask: {fields: [name], keep_last: 2}";
        assert_eq!(after(hidden), ["address"]);
        let computed = "  - compute:\n      domain: {expression: \"email.split('@')[1]\", \
                        type: text}\n      name: {expression: \"'x'\", type: text}";
        assert_eq!(after(computed), ["address", "domain", "email"]);
    }
}
