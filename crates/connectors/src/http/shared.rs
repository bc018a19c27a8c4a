//! What all readers of a source share: its settings, its calls, and how a run begins and ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use connect::{Error, RunOptions};
use spec::{ErrorAction, HttpSource, JsonPath, NewsBy, NewsKind, Pagination, quoted};

use super::{
    client::{Client, Outgoing, Response, place},
    cursor::{Cursor, Page, Progress},
    delay,
    news::Scale,
    paging,
    request::{Filled, ReadyRequest},
    rules::{Rules, told},
    select::first,
};

/// What all readers of a source share.
pub(super) struct Shared {
    pub(super) config: HttpSource,
    pub(super) client: Client,
    pub(super) request: ReadyRequest,
    pub(super) parent: Option<ReadyRequest>,
    pub(super) fetch: Option<ReadyRequest>,
    pub(super) rules: Rules,
    pub(super) scale: Option<Scale>,
    pub(super) options: Arc<RunOptions>,
    /// Unchanged answers need not be sent again. Not for targets that mirror what a run saw.
    pub(super) conditional: bool,
    pub(super) configured: BTreeMap<String, String>,
}

/// What became of a call.
pub(super) enum Outcome {
    Answer(Response),
    /// A rule says that there is nothing.
    Nothing,
    /// A rule says to begin with the first page again.
    Restart,
}

impl Shared {
    /// Names the source in ids.
    pub(super) fn label(&self) -> &str {
        self.config.request.path.as_written()
    }

    /// Returns the cursor with which a run begins or goes on; nothing: there is nothing to ask for.
    pub(super) fn begin(&self, former: &Cursor, now: i64) -> Result<Option<Cursor>, Error> {
        /// Pages move on: after so long they are begun again.
        const STALE: i64 = 60 * 60 * 1_000_000;
        let range = match &*self.options {
            RunOptions { from: None, to: None, .. } => None,
            RunOptions { from, to, .. } => Some((from.clone(), to.clone())),
        };
        if let Some(run) = former.run.as_ref().filter(|run| run.range == range) {
            let mut run = run.clone();
            if now.saturating_sub(run.began) > STALE {
                run.page = Page::default();
                run.skip = 0;
                run.parents = None;
                run.parent = None;
                run.restarts = 0;
            }
            return Ok(Some(Cursor { run: Some(run), ..former.clone() }));
        }
        let mut run = Progress { began: now, range: range.clone(), ..Progress::default() };
        if let Some(NewsBy::Field { start, end, lookback, step, .. }) =
            self.config.incremental.as_ref().map(|news| &news.by)
        {
            let asked = |text: &Option<String>, otherwise: Option<i64>| match text {
                None => Ok(otherwise),
                Some(text) => self
                    .scale
                    .as_ref()
                    .and_then(|scale| scale.parse(text))
                    .map(Some)
                    .ok_or_else(|| {
                        Error::stop(
                            format!("`{text}` is no value of the field that the source reads by"),
                            "write `2026-01-31T00:00:00Z`, `2026-01-31` or a number, as the \
                                 source's `incremental` has it",
                        )
                    }),
            };
            let since = former.since.map(|since| since.saturating_sub(*lookback));
            let (from, to) = match &range {
                Some((from, to)) => (asked(from, *start)?, asked(to, *end)?),
                None => (since.max(*start), *end),
            };
            let bounded = step.is_some()
                || self.config.incremental.as_ref().is_some_and(|news| news.until_param.is_some());
            let present = self.scale.as_ref().and_then(|scale| scale.now(now));
            run.from = from;
            run.last = to.or(present.filter(|_| bounded));
            run.to = piece(run.from, run.last, *step);
            if let (Some(from), Some(last)) = (run.from, run.last)
                && from >= last
            {
                return Ok(None);
            }
        } else if range.is_some() {
            return Err(Error::stop(
                "the source has no field by which a range could be read",
                "add `incremental` with a `field`, or start the run without a range",
            ));
        }
        Ok(Some(Cursor { run: Some(run), ..former.clone() }))
    }

    /// Returns the end that records are compared with here, if it was asked for.
    pub(super) fn end(&self, run: &Progress) -> Option<i64> {
        match &self.config.incremental.as_ref()?.by {
            NewsBy::Field { end, .. } => match &run.range {
                Some((_, Some(_))) => run.last,
                _ => *end,
            },
            NewsBy::Token(_) => None,
        }
    }

    /// Returns the cursor behind a run.
    pub(super) fn ended(&self, cursor: &Cursor, run: Progress, usual_ms: Option<u32>) -> Cursor {
        let mut after =
            Cursor { run: None, usual_ms: usual_ms.or(cursor.usual_ms), ..cursor.clone() };
        if run.range.is_some() {
            return after;
        }
        // A value in the future would keep what comes until then out.
        let present = self.scale.as_ref().and_then(|scale| scale.now(run.began));
        let max = match (run.max, present) {
            (Some(max), Some(present)) => Some(max.min(present)),
            (max, _) => max,
        };
        after.since = cursor.since.max(max);
        after.token = run.token.or_else(|| cursor.token.clone());
        after.seen = run.seen;
        after
    }

    /// Returns the value of a place that does not change in a run.
    fn given(&self, name: &str) -> Option<String> {
        let (first, rest) = name.split_once('.')?;
        match first {
            "config" => self.configured.get(rest).map(|text| quoted(text)),
            "run" => {
                let name = rest.strip_prefix("params.")?;
                self.options.parameters.get(name).map(|text| quoted(text))
            }
            _ => None,
        }
    }

    /// Returns the value of a place of a request.
    pub(super) fn value(
        &self,
        pagination: &Pagination,
        page: &Page,
        cursor: &Cursor,
        run: &Progress,
        parent: Option<&str>,
        name: &str,
    ) -> Option<String> {
        let (kind, rest) = name.split_once('.')?;
        match kind {
            "page" => paging::value(pagination, page, rest),
            "parent" => {
                let keys: Vec<&str> = rest.split('.').collect();
                first(parent?, &JsonPath::of_keys(&keys)).map(str::to_owned)
            }
            "cursor" => match rest {
                "from" => self.scale.as_ref()?.write(run.from?),
                "to" => {
                    let scale = self.scale.as_ref()?;
                    scale.write(run.to.or_else(|| scale.now(run.began))?)
                }
                "token" => cursor.token.as_deref().map(quoted),
                _ => None,
            },
            _ => self.given(name),
        }
    }

    /// Returns the parameters that ask for news.
    pub(super) fn news_query(&self, cursor: &Cursor, run: &Progress) -> Vec<(String, String)> {
        let Some(news) = &self.config.incremental else { return Vec::new() };
        let from = match &news.by {
            NewsBy::Field { .. } => "cursor.from",
            NewsBy::Token(_) => "cursor.token",
        };
        let none = Page::default();
        [(&news.param, from), (&news.until_param, "cursor.to")]
            .into_iter()
            .filter_map(|(param, name)| {
                let value = self.value(&self.config.paginate, &none, cursor, run, None, name)?;
                Some((param.clone()?, spec::text_of(&value).into_owned()))
            })
            .collect()
    }

    /// Makes a call, as often as it takes. `answered` is told how long every answer took.
    pub(super) async fn call(
        &self,
        outgoing: &Outgoing,
        mut answered: impl FnMut(Duration) + Send,
    ) -> Result<Outcome, Error> {
        let retry = &self.config.retry;
        let mut logged_in_again = false;
        let mut calls = 0;
        loop {
            calls += 1;
            let (error, asked) = match self.client.send(outgoing).await {
                Err(failed) => (failed.error, None),
                Ok(response) => {
                    answered(response.took);
                    match self.rules.judge(&response) {
                        None => return Ok(Outcome::Answer(response)),
                        Some(ErrorAction::Ignore | ErrorAction::Skip) => {
                            return Ok(Outcome::Nothing);
                        }
                        Some(ErrorAction::RestartPaging) => return Ok(Outcome::Restart),
                        Some(ErrorAction::RefreshLogin)
                            if !logged_in_again && self.client.forget_login().await =>
                        {
                            logged_in_again = true;
                            continue;
                        }
                        Some(ErrorAction::Fail | ErrorAction::RefreshLogin) => {
                            return Err(told(&place(outgoing), &response));
                        }
                        Some(ErrorAction::Retry) => {
                            let asked = delay::retry_after(&response.headers, Utc::now())
                                .map(|asked| asked.min(retry.most_asked));
                            let mut error = told(&place(outgoing), &response);
                            error.remedy = model::Remedy::Retry { after: asked };
                            (error, asked)
                        }
                    }
                }
            };
            if calls >= retry.attempts || !matches!(error.remedy, model::Remedy::Retry { .. }) {
                return Err(error);
            }
            let wait = delay::backoff(retry, calls).max(asked.unwrap_or_default());
            let wait_ms = wait.as_millis();
            tracing::info!(error = error.chain(), wait_ms, "calling again");
            tokio::time::sleep(wait).await;
        }
    }

    pub(super) fn ask_for(&self, request: &ReadyRequest, id: &str) -> Result<Outgoing, Error> {
        let values = |name: &str| match name {
            "id" => Some(quoted(id)),
            name => self.given(name),
        };
        request.fill(&self.client, &Filled { values: &values, query: &[] })
    }

    /// Asks for one object; nothing: it is gone.
    pub(super) async fn fetch_one(&self, outgoing: &Outgoing) -> Result<Option<Response>, Error> {
        // Without a rule, an object that is not there is gone.
        let gone = |response: &Response| {
            matches!(response.status, 404 | 410)
                && self.rules.judge(response) == Some(ErrorAction::Fail)
        };
        let retry = &self.config.retry;
        for calls in 1..=retry.attempts {
            match self.client.send(outgoing).await {
                Ok(response) if gone(&response) => return Ok(None),
                Ok(response) => match self.rules.judge(&response) {
                    None => return Ok(Some(response)),
                    Some(ErrorAction::Ignore | ErrorAction::Skip) => return Ok(None),
                    Some(ErrorAction::Retry) if calls < retry.attempts => {
                        let asked = delay::retry_after(&response.headers, Utc::now());
                        let asked = asked.unwrap_or_default().min(retry.most_asked);
                        tokio::time::sleep(delay::backoff(retry, calls).max(asked)).await;
                    }
                    Some(action) => {
                        let mut error = told(&place(outgoing), &response);
                        if action == ErrorAction::Retry {
                            error.remedy = model::Remedy::RETRY;
                        }
                        return Err(error);
                    }
                },
                Err(failed) => {
                    let again = matches!(failed.error.remedy, model::Remedy::Retry { .. });
                    if !again || calls == retry.attempts {
                        return Err(failed.error);
                    }
                    tokio::time::sleep(delay::backoff(retry, calls)).await;
                }
            }
        }
        Ok(None)
    }

    /// Returns the fields that the records of a child get.
    pub(super) fn included(&self, parent: Option<&str>) -> Vec<(String, String)> {
        let (Some(config), Some(parent)) = (&self.config.parent, parent) else {
            return Vec::new();
        };
        config
            .include
            .iter()
            .map(|(name, path)| (name.clone(), first(parent, path).unwrap_or("null").to_owned()))
            .collect()
    }

    /// Tells whether values of the growing field are whole days.
    pub(super) fn step(&self) -> Option<i64> {
        match &self.config.incremental.as_ref()?.by {
            NewsBy::Field { step, kind, .. } => {
                step.map(|step| if *kind == NewsKind::Number { step } else { step.max(1) })
            }
            NewsBy::Token(_) => None,
        }
    }
}

/// Returns the end of a piece that begins at `from`.
pub(super) fn piece(from: Option<i64>, last: Option<i64>, step: Option<i64>) -> Option<i64> {
    match (from, step) {
        (Some(from), Some(step)) => {
            let end = from.saturating_add(step);
            Some(last.map_or(end, |last| last.min(end)))
        }
        _ => last,
    }
}

/// The body of an answer, if it is JSON text.
pub(super) fn json_body(body: &Bytes) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{FEFF}').trim_start();
    text.starts_with(['{', '[']).then_some(text)
}
