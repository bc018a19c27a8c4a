//! How far each part of a source is loaded: the longest chain of batches from its first on that
//! every target is done with.
//!
//! A later part is newer. So a part moves only when all parts before it are complete: what is read
//! again after a loss is read in the order of the source, and old records never follow newer ones.
//!
//! A part may be read by two extractors at once, and a table may have changed between them, so that
//! they cut it into different batches. Then batches stand beside each other under one sequence
//! number. The first to arrive counts; the others wait as voided. Once the end of the part is known,
//! the batches on a way from the first to the end count, whose cursors fit each other.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use chrono::{DateTime, Utc};

use crate::{Error, LoadedCursor, Run, cursors, database::Tx, settle::done, value::args};

/// Batches of one part that are looked at in one statement.
const STRIDE: i64 = 1_000;

/// Parts that are looked at in one statement.
const PARTS: i64 = 16;

#[derive(sqlx::FromRow)]
struct Part {
    part: i64,
    name: String,
    loaded_batches: i64,
    end_batches: Option<i64>,
    end_cursor: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Link {
    part: i64,
    sequence: i64,
    cursor_after: String,
    done: i64,
}

/// Moves the chains of a run's parts, and the loaded cursors with them.
pub(crate) async fn advance(tx: &mut Tx, run: &Run, now: DateTime<Utc>) -> Result<(), Error> {
    let parts: Vec<Part> = tx
        .fetch(
            "select part, name, loaded_batches, end_batches, end_cursor from parts \
             where run_id = $1 and attempt = $2 and not completed and name is not null \
             order by part",
            args![run.id, run.attempt],
        )
        .await?;
    let mut parts = VecDeque::from(parts);
    let forked: Vec<(i64,)> = tx
        .fetch(
            "select distinct part from batches where run_id = $1 and attempt = $2 and voided",
            args![run.id, run.attempt],
        )
        .await?;
    let forked: HashSet<i64> = forked.into_iter().map(|(part,)| part).collect();

    let mut moved = Vec::new();
    let mut again = true;
    while again {
        again = false;
        let Some(first) = parts.front().map(|part| part.part) else { break };
        let mut links: BTreeMap<i64, Vec<Link>> = BTreeMap::new();
        for link in links_of(tx, run, first).await? {
            links.entry(link.part).or_default().push(link);
        }
        while let Some(part) = parts.front_mut().filter(|part| part.part < first + PARTS) {
            if forked.contains(&part.part) && !settle_fork(tx, run, part).await? {
                return cursors::advance(tx, run, moved, now).await;
            }
            let before = part.loaded_batches;
            let mut cursor = None;
            for link in links.remove(&part.part).unwrap_or_default() {
                if link.sequence < part.loaded_batches {
                    continue;
                }
                if link.sequence != part.loaded_batches || link.done == 0 {
                    break;
                }
                part.loaded_batches += 1;
                cursor = Some(link.cursor_after);
            }
            let completed = part.end_batches.is_some_and(|end| part.loaded_batches >= end);
            if completed {
                cursor.clone_from(&part.end_cursor);
            }
            if let Some(cursor) = cursor {
                moved.retain(|moved: &LoadedCursor| moved.part != part.name);
                moved.push(LoadedCursor { part: part.name.clone(), cursor });
                tx.execute(
                    "update parts set loaded_batches = $4, completed = $5 \
                     where run_id = $1 and attempt = $2 and part = $3",
                    args![run.id, run.attempt, part.part, part.loaded_batches, completed],
                )
                .await?;
            }
            again = completed || part.loaded_batches - before == STRIDE;
            if !completed {
                break;
            }
            parts.pop_front();
        }
    }
    cursors::advance(tx, run, moved, now).await
}

/// Returns the links behind the chains of some parts, from `first` on.
async fn links_of(tx: &mut Tx, run: &Run, first: i64) -> Result<Vec<Link>, Error> {
    tx.fetch(
        concat!(
            "select b.part, b.sequence, b.cursor_after, \
                 cast(case when ",
            done!(),
            " then 1 else 0 end as bigint) as done \
             from parts p join batches b \
                 on b.run_id = p.run_id and b.attempt = p.attempt and b.part = p.part \
             left join transforms t \
                 on t.run_id = b.run_id and t.attempt = b.attempt and t.batch = b.batch \
             where p.run_id = $1 and p.attempt = $2 and not p.completed and not b.voided \
             and p.part >= $4 and p.part < $5 \
             and b.sequence >= p.loaded_batches and b.sequence < p.loaded_batches + $3 \
             order by b.part, b.sequence"
        ),
        args![run.id, run.attempt, STRIDE, first, first + PARTS],
    )
    .await
}

#[derive(sqlx::FromRow)]
struct Candidate {
    batch: String,
    sequence: i64,
    cursor_before: String,
    cursor_after: String,
    voided: bool,
}

/// Decides which batches of a part count. Returns whether that can be said yet.
async fn settle_fork(tx: &mut Tx, run: &Run, part: &mut Part) -> Result<bool, Error> {
    let (Some(end), Some(end_cursor)) = (part.end_batches, &part.end_cursor) else {
        return Ok(false);
    };
    let candidates: Vec<Candidate> = tx
        .fetch(
            "select batch, sequence, cursor_before, cursor_after, voided from batches \
             where run_id = $1 and attempt = $2 and part = $3 order by sequence, voided",
            args![run.id, run.attempt, part.part],
        )
        .await?;
    let Some(way) = way(&candidates, end, end_cursor) else { return Ok(false) };
    let mut changed = false;
    // A sequence number can have one batch that counts, so the others leave first.
    for voided in [true, false] {
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.voided != voided && way.contains(&index) != voided {
                changed = true;
                tx.execute(
                    "update batches set voided = $4 \
                     where run_id = $1 and attempt = $2 and batch = $3",
                    args![run.id, run.attempt, &candidate.batch, voided],
                )
                .await?;
            }
        }
    }
    if changed {
        part.loaded_batches = 0;
        tx.execute(
            "update parts set loaded_batches = 0 where run_id = $1 and attempt = $2 and part = $3",
            args![run.id, run.attempt, part.part],
        )
        .await?;
    }
    Ok(true)
}

/// Finds batches with the sequence numbers 0 to `end` - 1 whose cursors fit each other. Candidates
/// are in the order of their sequence; earlier ones are preferred.
fn way(candidates: &[Candidate], end: i64, end_cursor: &str) -> Option<HashSet<usize>> {
    // For each sequence number, the cursors that can be reached, and by which batch.
    let mut reached: Vec<HashMap<&str, usize>> = Vec::new();
    let mut from: HashMap<usize, usize> = HashMap::new();
    for sequence in 0..end {
        let mut cursors = HashMap::new();
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.sequence != sequence {
                continue;
            }
            if let Some(before) = reached.last() {
                let Some(origin) = before.get(candidate.cursor_before.as_str()) else { continue };
                from.insert(index, *origin);
            }
            cursors.entry(candidate.cursor_after.as_str()).or_insert(index);
        }
        reached.push(cursors);
    }
    let Some(last) = reached.last() else { return Some(HashSet::new()) };
    // The cursor at the end of a part may be another one than that after its last batch.
    let mut index = last.get(end_cursor).or_else(|| last.values().min()).copied();
    let mut way = HashSet::new();
    while let Some(batch) = index {
        way.insert(batch);
        index = from.get(&batch).copied();
    }
    (i64::try_from(way.len()) == Ok(end)).then_some(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(batches: &[(i64, &str, &str)]) -> Vec<Candidate> {
        batches
            .iter()
            .map(|(sequence, before, after)| Candidate {
                batch: format!("{sequence}/{before}-{after}"),
                sequence: *sequence,
                cursor_before: (*before).to_owned(),
                cursor_after: (*after).to_owned(),
                voided: false,
            })
            .collect()
    }

    #[test]
    fn a_way_that_does_not_reach_the_end_is_none() {
        let batches = candidates(&[(0, "", "a"), (2, "b", "c")]);
        assert_eq!(way(&batches, 3, "c"), None);
    }

    #[test]
    fn the_way_whose_cursors_fit_is_found() {
        // The first extractor died behind "c"; the second went on from "a" with other cuts.
        let batches = candidates(&[
            (0, "", "a"),
            (1, "a", "b"),
            (1, "a", "B"),
            (2, "b", "c"),
            (2, "B", "C"),
            (3, "C", "d"),
        ]);
        let way = way(&batches, 4, "d").unwrap();
        assert_eq!(way, HashSet::from([0, 2, 4, 5]));
    }

    #[test]
    fn an_empty_part_has_an_empty_way() {
        assert_eq!(way(&[], 0, "x"), Some(HashSet::new()));
    }
}
