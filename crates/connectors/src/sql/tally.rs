use connect::{Refused, Written};

/// What became of the records of each batch.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    batches: Vec<Written>,
}

impl Tally {
    pub(crate) fn new(batches: usize) -> Self {
        Self { batches: vec![Written::default(); batches] }
    }

    pub(crate) fn loaded(&mut self, batch: u32, count: u32) {
        self.batches[batch as usize].loaded += count;
    }

    pub(crate) fn unchanged(&mut self, (batch, _): (u32, u32), count: u32) {
        self.batches[batch as usize].unchanged += count;
    }

    /// Takes some records of a batch, which were taken for unchanged, for loaded.
    pub(crate) fn changed(&mut self, batch: i64, count: i64) {
        let count = u32::try_from(count).unwrap_or(0);
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        if let Some(written) = self.batches.get_mut(batch) {
            written.loaded += count;
            written.unchanged -= count;
        }
    }

    pub(crate) fn refuse(
        &mut self,
        (batch, index): (u32, u32),
        code: &'static str,
        message: String,
        field: String,
    ) {
        self.batches[batch as usize].refused.push(Refused {
            index: index as usize,
            code,
            message,
            field,
        });
    }

    pub(crate) fn finish(mut self) -> Vec<Written> {
        for written in &mut self.batches {
            written.refused.sort_by_key(|refused| refused.index);
        }
        self.batches
    }
}
