/// Returns the candidate that `name` was probably meant to be.
///
/// Names that differ in more than a third of their letters are not taken for each other.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Says which of `candidates` was probably meant, or lists them.
pub(crate) fn suggest(name: &str, what: &str, candidates: &[&str]) -> String {
    match nearest(name, candidates.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None if candidates.is_empty() => format!("there are no {what}"),
        None => {
            let mut list: Vec<String> =
                candidates.iter().take(20).map(|candidate| format!("`{candidate}`")).collect();
            if candidates.len() > list.len() {
                list.push("…".to_owned());
            }
            format!("the {what} are {}", list.join(", "))
        }
    }
}

/// Counts the insertions, removals, replacements and swaps of neighbours between two names, where
/// upper and lower case are the same.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let mut cost = (last[j] + usize::from(l != r)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["customer_id", "amount", "day"];
        assert_eq!(nearest("custmer_id", names), Some("customer_id"));
        assert_eq!(nearest("amuont", names), Some("amount"));
        assert_eq!(nearest("Day", names), Some("day"));
        assert_eq!(nearest("country", names), None);
        assert_eq!(nearest("", names), None);
    }
}
