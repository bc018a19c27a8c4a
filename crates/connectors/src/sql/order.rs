//! The order in which records are written.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow_array::Array;
use spec::Deletes;

use super::{
    check::check_column, keys::Keys, merge::Layout, session::Dialect, settings::Settings,
    tally::Tally, unit::Unit,
};

/// Rows of a [`Unit`] that one statement writes: a range of [`Order::rows`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) rows: Range<usize>,
    pub(crate) write: Write,
    /// Per column, whether the rows carry it.
    pub(crate) present: Arc<[bool]>,
}

/// What is done with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    /// They speak of the whole row.
    Whole,
    /// They change some fields, whatever becomes of the others.
    Patch,
    Delete,
}

/// In which order the rows of a [`Unit`] are written.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The rows to write, older ones of a key first, each group by key.
    pub(crate) rows: Vec<u32>,
    pub(crate) groups: Vec<Group>,
    /// Rows that are refused but whose key has been seen.
    pub(crate) refused: Vec<u32>,
}

impl Order {
    /// Cuts the order in two, each with at least one row; `None` for fewer than two rows.
    pub(crate) fn split(mut self) -> Option<(Self, Self)> {
        let middle = self.rows.len() / 2;
        if middle == 0 {
            return None;
        }
        let mut second = Self {
            rows: self.rows.split_off(middle),
            groups: Vec::new(),
            refused: std::mem::take(&mut self.refused),
        };
        let groups = std::mem::take(&mut self.groups);
        for Group { rows, write, present } in groups {
            let cut = |rows: Range<usize>| Group { rows, write, present: Arc::clone(&present) };
            if rows.start < middle {
                self.groups.push(cut(rows.start..rows.end.min(middle)));
            }
            if rows.end > middle {
                let start = rows.start.max(middle) - middle;
                second.groups.push(cut(start..rows.end - middle));
            }
        }
        Some((self, second))
    }
}

impl Unit<'_> {
    /// Puts the records in order, and reports those that need not or cannot be written.
    pub(crate) fn order(
        &self,
        settings: &Settings,
        layout: &Layout,
        dialect: &dyn Dialect,
        tally: &mut Tally,
    ) -> Order {
        let mut refused = Refusals { unit: self, tally, is_refused: vec![false; self.len()] };
        let mut without_key = vec![false; self.len()];
        for &column in &layout.key {
            let values = self.columns.column(column);
            let name = self.fields[column].name.name();
            for (row, without_key) in without_key.iter_mut().enumerate() {
                let absent = self.presence[column].as_ref().is_some_and(|bits| !bits.value(row));
                if absent || values.is_null(row) {
                    *without_key = true;
                    refused.add(
                        row,
                        "key",
                        format!("`{name}` is part of the key and has no value"),
                        name,
                    );
                }
            }
        }
        for (column, placed) in layout.columns.iter().enumerate() {
            check_column(
                self,
                column,
                placed.fit,
                &placed.declared,
                dialect,
                &mut |row, code, message| {
                    if !self.deletes(row) || layout.key.contains(&column) {
                        if layout.key.contains(&column) {
                            without_key[row] = true;
                        }
                        refused.add(row, code, message, self.fields[column].name.name());
                    }
                },
            );
        }
        let is_refused = refused.is_refused;
        let mut rows = Vec::with_capacity(self.len());
        let mut refused = Vec::new();
        for (row, number) in (0..self.len()).zip(0_u32..) {
            if is_refused[row] {
                if !without_key[row] {
                    refused.push(number);
                }
            } else if settings.deletes == Deletes::Ignore && self.deletes(row) {
                tally.unchanged(self.origins[row], 1);
            } else {
                rows.push(number);
            }
        }
        let keys = if settings.appends() {
            Keys::of_ids(self, &rows)
        } else {
            Keys::of_columns(self, &layout.key, &rows)
        };
        let mut order = if keys.ascend() && self.is_uniform() {
            Order {
                groups: vec![Group {
                    rows: 0..rows.len(),
                    write: Write::Whole,
                    present: vec![true; self.fields.len()].into(),
                }],
                rows,
                refused: Vec::new(),
            }
        } else {
            self.sort(&rows, &keys, tally)
        };
        order.groups.retain(|group| !group.rows.is_empty());
        order.refused = refused;
        order
    }

    fn sort(&self, rows: &[u32], keys: &Keys, tally: &mut Tally) -> Order {
        let mut sorted: Vec<usize> = (0..rows.len()).collect();
        sorted.sort_by(|&a, &b| {
            let version = |at: usize| (self.versions[rows[at] as usize], rows[at]);
            keys.get(a).cmp(keys.get(b)).then_with(|| version(a).cmp(&version(b)))
        });
        let uniform = self.is_uniform();
        let full: Arc<[bool]> = vec![true; self.fields.len()].into();
        let mut patterns: HashMap<(Write, Arc<[bool]>), usize> = HashMap::new();
        let mut entries: Vec<(usize, usize, u32)> = Vec::with_capacity(rows.len());
        let mut start = 0;
        while start < sorted.len() {
            let mut end = start + 1;
            while end < sorted.len() && keys.get(sorted[end]) == keys.get(sorted[start]) {
                end += 1;
            }
            let mut kept: Vec<(u32, Write, Arc<[bool]>)> = Vec::new();
            let mut covered: Option<Vec<bool>> = None;
            for &at in sorted[start..end].iter().rev() {
                let row = rows[at];
                let write = if uniform {
                    Write::Whole
                } else if self.deletes(row as usize) {
                    Write::Delete
                } else if self.patches(row as usize) {
                    Write::Patch
                } else {
                    Write::Whole
                };
                let present = if uniform || write == Write::Delete {
                    Arc::clone(&full)
                } else {
                    self.present(row as usize).into()
                };
                let superseded = covered.as_ref().is_some_and(|covered| {
                    present.iter().zip(covered).all(|(own, by)| !own || *by)
                });
                if superseded {
                    tally.unchanged(self.origins[row as usize], 1);
                    continue;
                }
                let covered = covered.get_or_insert_with(|| vec![false; full.len()]);
                for (by, own) in covered.iter_mut().zip(&*present) {
                    *by |= own;
                }
                kept.push((row, write, present));
            }
            for (round, (row, write, present)) in kept.into_iter().rev().enumerate() {
                let next = patterns.len();
                let pattern = *patterns.entry((write, present)).or_insert(next);
                entries.push((round, pattern, row));
            }
            start = end;
        }
        // Stable, so that rows of a group stay in the order of their keys.
        entries.sort_by_key(|(round, pattern, _)| (*round, *pattern));
        let mut by_number: Vec<_> =
            patterns.into_iter().map(|(key, number)| (number, key)).collect();
        by_number.sort_by_key(|(number, _)| *number);
        let mut order = Order::default();
        for (at, (round, pattern, row)) in entries.iter().enumerate() {
            let same = at > 0 && (entries[at - 1].0, entries[at - 1].1) == (*round, *pattern);
            match order.groups.last_mut() {
                Some(group) if same => group.rows.end = at + 1,
                _ => {
                    let (write, present) = &by_number[*pattern].1;
                    order.groups.push(Group {
                        rows: at..at + 1,
                        write: *write,
                        present: Arc::clone(present),
                    });
                }
            }
            order.rows.push(*row);
        }
        order
    }
}

/// Marks records as refused, each for its first reason.
struct Refusals<'a, 'b> {
    unit: &'a Unit<'a>,
    tally: &'b mut Tally,
    is_refused: Vec<bool>,
}

impl Refusals<'_, '_> {
    fn add(&mut self, row: usize, code: &'static str, message: String, field: &str) {
        if !std::mem::replace(&mut self.is_refused[row], true) {
            self.tally.refuse(self.unit.origins[row], code, message, field.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rows: usize, groups: &[Range<usize>]) -> Order {
        let group = |rows: &Range<usize>| Group {
            rows: rows.clone(),
            write: Write::Whole,
            present: vec![true].into(),
        };
        Order {
            rows: (0..u32::try_from(rows).unwrap()).collect(),
            groups: groups.iter().map(group).collect(),
            refused: vec![99],
        }
    }

    #[test]
    fn an_order_of_one_row_cannot_be_split() {
        let all = 0..1;
        assert!(order(1, &[all]).split().is_none());
        assert!(order(0, &[]).split().is_none());
    }

    #[test]
    fn a_split_goes_through_the_middle_of_a_group() {
        let (first, second) = order(6, &[0..1, 1..5, 5..6]).split().unwrap();
        let ranges =
            |order: &Order| order.groups.iter().map(|group| group.rows.clone()).collect::<Vec<_>>();
        assert_eq!((first.rows.len(), second.rows.len()), (3, 3));
        assert_eq!(ranges(&first), [0..1, 1..3]);
        assert_eq!(ranges(&second), [0..2, 2..3]);
        assert_eq!((first.refused.len(), second.refused.len()), (0, 1));
    }
}
