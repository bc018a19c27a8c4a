use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use model::PipelineName;

use crate::{
    Error, Store, deliveries,
    value::{Value, args},
};

/// A refused record to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewQuarantined {
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// Revision that refused it.
    pub revision: u32,
    /// Run it belonged to.
    pub run: String,
    /// Stage that refused it: `extractor`, `transformer` or `loader`.
    pub stage: String,
    /// Target that refused it; empty where it was not a target.
    pub target: String,
    /// Id of the record. A run has a record once per stage and target.
    pub record: String,
    /// Short name of the reason.
    pub code: String,
    /// The reason in one sentence.
    pub message: String,
    /// Step that refused it, or empty.
    pub step: String,
    /// Field that is to blame, or empty.
    pub field: String,
    /// A batch message that holds this record alone; `None` where it could not be decoded.
    pub contents: Option<Vec<u8>>,
    /// The text of a record that could not be parsed at all.
    pub raw: Option<Vec<u8>>,
    /// Waits after which the record is sent again by itself; `None`: it is not a delivery.
    pub waits: Option<Vec<Duration>>,
}

/// A refused record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Id in the quarantine.
    pub id: i64,
    /// When it was quarantined.
    pub quarantined_at: DateTime<Utc>,
    /// The record. Lists come without `contents` and `raw`.
    pub record: NewQuarantined,
}

/// Which refused records. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Of this pipeline.
    pub pipeline: Option<PipelineName>,
    /// Of this run.
    pub run: Option<String>,
    /// With this code.
    pub code: Option<String>,
    /// Refused by this target.
    pub target: Option<String>,
    /// Quarantined at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// To be sent again by itself at this time or earlier.
    pub due_at: Option<DateTime<Utc>>,
    /// With one of these ids; empty: with any.
    pub ids: Vec<i64>,
}

impl Selection {
    /// Returns a condition and its arguments, which begin at `$first`.
    pub(crate) fn condition(&self, first: usize) -> (String, Vec<Value>) {
        let mut arguments: Vec<Value> = Vec::new();
        let mut conditions = Vec::new();
        let pipeline = self.pipeline.as_ref().map(ToString::to_string);
        for (column, value) in [
            ("pipeline", &pipeline),
            ("run_id", &self.run),
            ("code", &self.code),
            ("target", &self.target),
        ] {
            if let Some(value) = value {
                conditions.push(format!("{column} = ${}", first + arguments.len()));
                arguments.push(value.into());
            }
        }
        for (condition, time) in
            [("quarantined_at >=", self.since), ("next_attempt_at <=", self.due_at)]
        {
            if let Some(time) = time {
                conditions.push(format!("{condition} ${}", first + arguments.len()));
                arguments.push(time.into());
            }
        }
        if !self.ids.is_empty() {
            let places: Vec<String> = (0..self.ids.len())
                .map(|index| format!("${}", first + arguments.len() + index))
                .collect();
            conditions.push(format!("id in ({})", places.join(", ")));
            arguments.extend(self.ids.iter().map(|id| Value::from(*id)));
        }
        if conditions.is_empty() {
            conditions.push("true".to_owned());
        }
        (conditions.join(" and "), arguments)
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    id: i64,
    pipeline: String,
    revision: i64,
    run_id: String,
    stage: String,
    target: String,
    record: String,
    code: String,
    message: String,
    step: String,
    field: String,
    contents: Option<Vec<u8>>,
    raw: Option<Vec<u8>>,
    quarantined_at: DateTime<Utc>,
}

impl TryFrom<Row> for Quarantined {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.id,
            quarantined_at: row.quarantined_at,
            record: NewQuarantined {
                pipeline: row
                    .pipeline
                    .parse()
                    .map_err(|error| Error::unreadable("quarantine.pipeline", error))?,
                revision: u32::try_from(row.revision)
                    .map_err(|error| Error::unreadable("quarantine.revision", error))?,
                run: row.run_id,
                stage: row.stage,
                target: row.target,
                record: row.record,
                code: row.code,
                message: row.message,
                step: row.step,
                field: row.field,
                contents: row.contents,
                raw: row.raw,
                waits: None,
            },
        })
    }
}

impl Store {
    /// Keeps refused records in one transaction. Repeating it changes nothing. Records of pipelines
    /// that are deleted are left out. Returns how many were new.
    ///
    /// # Errors
    ///
    /// When the database does not answer; then none is kept.
    pub async fn quarantine(
        &self,
        mut records: Vec<NewQuarantined>,
        now: DateTime<Utc>,
    ) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        let names: Vec<(String,)> =
            tx.fetch("select name from pipelines where deleted_at is null", args![]).await?;
        let names: HashSet<String> = names.into_iter().map(|(name,)| name).collect();
        records.retain(|record| names.contains(record.pipeline.as_str()));
        // Whoever inserts the same records at the same time waits behind, not in a circle.
        records.sort_by(|a, b| (&a.run, &a.record).cmp(&(&b.run, &b.record)));
        let mut failed_before = HashMap::new();
        for record in records.iter().filter(|record| record.waits.is_some()) {
            let before = deliveries::failed_before(&mut tx, record).await?;
            failed_before.insert((record.run.clone(), record.record.clone()), before);
        }
        let rows = records
            .into_iter()
            .map(|record| {
                let key = (record.run.clone(), record.record.clone());
                let delivery = record.waits.as_deref().map(|waits| {
                    let before = failed_before.get(&key).copied().unwrap_or_default();
                    deliveries::Delivery::after(before, waits, now)
                });
                args![
                    &record.pipeline,
                    record.revision,
                    record.run,
                    record.stage,
                    record.target,
                    record.record,
                    record.code,
                    record.message,
                    record.step,
                    record.field,
                    record.contents,
                    record.raw,
                    now,
                    delivery.map(|delivery| delivery.attempts),
                    delivery.map(|delivery| delivery.first_failed_at),
                    delivery.and_then(|delivery| delivery.next_attempt_at)
                ]
            })
            .collect();
        let new = tx
            .insert(
                "insert into quarantine (pipeline, revision, run_id, stage, target, record, \
                 code, message, step, field, contents, raw, quarantined_at, attempts, \
                 first_failed_at, next_attempt_at)",
                rows,
                "on conflict do nothing",
            )
            .await?;
        tx.commit().await?;
        Ok(new)
    }

    /// Returns at most `limit` refused records, newest first, without their contents.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn quarantined(
        &self,
        selection: &Selection,
        limit: u32,
    ) -> Result<Vec<Quarantined>, Error> {
        let (condition, arguments) = selection.condition(1);
        let sql = format!(
            "select id, pipeline, revision, run_id, stage, target, record, code, message, step, \
             field, null as contents, null as raw, quarantined_at \
             from quarantine where {condition} order by id desc limit {limit}"
        );
        let sql = match self.pool {
            // A null without a type would be text.
            crate::database::Pool::Postgres(_) => sql
                .replace("null as contents", "cast(null as bytea) as contents")
                .replace("null as raw", "cast(null as bytea) as raw"),
            crate::database::Pool::Sqlite(_) => sql,
        };
        let rows: Vec<Row> = self.pool.fetch(sql, arguments).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Counts refused records.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn count_quarantined(&self, selection: &Selection) -> Result<u64, Error> {
        let (condition, arguments) = selection.condition(1);
        let sql = format!("select count(*) from quarantine where {condition}");
        let rows: Vec<(i64,)> = self.pool.fetch(sql, arguments).await?;
        Ok(rows.first().map_or(0, |(count,)| count.unsigned_abs()))
    }

    /// Returns one refused record with its contents; `None`: there is none of that id.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn quarantined_record(&self, id: i64) -> Result<Option<Quarantined>, Error> {
        let row: Option<Row> = self
            .pool
            .fetch_optional(
                "select id, pipeline, revision, run_id, stage, target, record, code, message, \
                 step, field, contents, raw, quarantined_at from quarantine where id = $1",
                args![id],
            )
            .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Removes refused records for good and returns their number.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn drop_quarantined(&self, selection: &Selection) -> Result<u64, Error> {
        let (condition, arguments) = selection.condition(1);
        self.pool.execute(format!("delete from quarantine where {condition}"), arguments).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_numbered_from_the_first_argument() {
        let selection =
            Selection { code: Some("type".to_owned()), ids: vec![7, 8], ..Selection::default() };
        let (condition, arguments) = selection.condition(3);
        assert_eq!(condition, "code = $3 and id in ($4, $5)");
        assert_eq!(arguments.len(), 3);
        assert_eq!(Selection::default().condition(1).0, "true");
    }
}
