//! Walks through the pages.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hasher,
    sync::Arc,
    time::Duration,
};

use arrow_array::BooleanArray;
use async_trait::async_trait;
use bytes::Bytes;
use connect::{Chunk, Error, Limits, Usage};
use model::{Ids, Records};
use spec::{AnswerPlace, JsonPath, NewsBy, PageKind, Pagination, PathStep, text_of};
use twox_hash::XxHash3_64;

use super::{
    answer,
    client::{Outgoing, Response, header, place},
    cursor::{Cursor, MOST_SEEN, Page, Progress, Seen},
    pace::Pace,
    paging::{self, Answered},
    records::{empty, ids, refused},
    request::{Filled, ReadyRequest},
    select::first,
    shared::{Outcome, Shared, json_body, piece},
};
use crate::files::Cut;

/// How often the pages of one run are begun again.
const MOST_RESTARTS: u64 = 5;

pub(super) struct Reader {
    shared: Arc<Shared>,
    cursor: Cursor,
    extraction_base: i64,
    limits: Limits,
    pace: Pace,
    pause: Duration,
    ready: VecDeque<Chunk>,
    /// Requests of the listing that is being read, to find a way that leads back.
    asked: HashSet<u64>,
    asked_parents: HashSet<u64>,
    /// Content of the page before.
    before: Option<u64>,
    parents: Option<Parents>,
    usage_before: Usage,
    answers: usize,
}

/// A page of parents.
struct Parents {
    elements: Vec<String>,
    index: usize,
    next: Option<Page>,
}

/// What a page has.
struct Read {
    cuts: Vec<Cut>,
    records: u64,
    next: Option<Page>,
}

impl Reader {
    pub(super) fn new(
        shared: Arc<Shared>,
        cursor: Cursor,
        extraction_base: i64,
        limits: Limits,
    ) -> Self {
        Self {
            pace: Pace::new(shared.config.slow_down_factor, cursor.usual_ms),
            usage_before: shared.client.usage(),
            shared,
            cursor,
            extraction_base,
            limits,
            pause: Duration::ZERO,
            ready: VecDeque::new(),
            asked: HashSet::new(),
            asked_parents: HashSet::new(),
            before: None,
            parents: None,
            answers: 0,
        }
    }

    /// Returns the number of answers so far.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    async fn call(&mut self, outgoing: &Outgoing) -> Result<Outcome, Error> {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
            let slowed_ms = u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX);
            self.shared.client.spend(Usage { slowed_ms, ..Usage::default() });
        }
        let (pace, pause) = (&mut self.pace, &mut self.pause);
        let outcome = self.shared.call(outgoing, |took| *pause = pace.answered(took)).await?;
        self.answers += 1;
        Ok(outcome)
    }

    /// Makes one call, and gives out what it brings.
    async fn step(&mut self, mut run: Progress) -> Result<(), Error> {
        if self.shared.parent.is_some() && !self.at_parent(&mut run).await? {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let parent = self.parents.as_ref().map(|parents| parents.elements[parents.index].clone());
        let parent = parent.as_deref();
        let mut query = shared.news_query(&self.cursor, &run);
        query.extend(paging::query(&shared.config.paginate, &run.page));
        let page =
            Asked { pagination: &shared.config.paginate, page: &run.page, run: &run, parent };
        let mut outgoing = self.outgoing(&shared.request, &page, &query)?;
        let request = fingerprint(&outgoing);
        if !self.asked.insert(request) {
            return Err(goes_round(&outgoing, run.page.index));
        }
        let known = self.cursor.seen.iter().find(|seen| seen.request == request);
        let known = known.filter(|_| shared.conditional && run.range.is_none()).cloned();
        if let Some(seen) = &known {
            let tests = [("if-none-match", &seen.etag), ("if-modified-since", &seen.modified)];
            for (name, value) in tests {
                outgoing.headers.extend(value.clone().map(|value| (name.to_owned(), value)));
            }
        }
        let read = match (self.call(&outgoing).await?, known) {
            (Outcome::Answer(response), Some(seen)) if response.status == 304 => {
                remember(&mut run, seen.clone());
                Read { cuts: Vec::new(), records: 0, next: seen.next }
            }
            (Outcome::Answer(response), _) => {
                self.read(&outgoing, request, &response, &mut run, parent)?
            }
            (Outcome::Nothing, _) => Read { cuts: Vec::new(), records: 0, next: None },
            (Outcome::Restart, _) => return self.restart(run),
        };
        self.give(run, read, request);
        Ok(())
    }

    fn restart(&mut self, mut run: Progress) -> Result<(), Error> {
        run.restarts += 1;
        if run.restarts > MOST_RESTARTS {
            return Err(Error::stop(
                format!(
                    "the pages were begun again {MOST_RESTARTS} times without coming to an end"
                ),
                "see why the API wants that, or change the rule under `errors`",
            ));
        }
        run.page = Page::default();
        run.skip = 0;
        self.asked.clear();
        self.before = None;
        self.cursor.run = Some(run);
        Ok(())
    }

    fn outgoing(
        &self,
        request: &ReadyRequest,
        asked: &Asked<'_>,
        query: &[(String, String)],
    ) -> Result<Outgoing, Error> {
        let values = |name: &str| {
            let Asked { pagination, page, run, parent } = *asked;
            self.shared.value(pagination, page, &self.cursor, run, parent, name)
        };
        let mut outgoing = request.fill(&self.shared.client, &Filled { values: &values, query })?;
        if let Some(link) = paging::link(asked.pagination, asked.page) {
            outgoing.url = self.shared.client.linked(&outgoing.url, link)?;
        }
        Ok(outgoing)
    }

    fn read(
        &mut self,
        outgoing: &Outgoing,
        request: u64,
        response: &Response,
        run: &mut Progress,
        parent: Option<&str>,
    ) -> Result<Read, Error> {
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        let place = place(outgoing);
        let extra = shared.included(parent);
        let cuts = match response.status {
            204 => Vec::new(),
            _ => answer::cuts(&config.answer, &place, &response.body, &extra, self.limits)?,
        };
        let records = count(&cuts);
        self.repeats(&config.paginate, run, &response.body, records, outgoing)?;
        let last = match last_key(&config.paginate, &run.page) {
            Some(field) => cuts
                .iter()
                .rev()
                .find(|cut| !cut.positions.is_empty())
                .and_then(|cut| answer::value_in(cut, cut.positions.len() - 1, &field)),
            None => None,
        };
        let next =
            self.following(&config.paginate, &run.page, outgoing, response, records, last)?;
        if let Some(NewsBy::Token(from)) = config.incremental.as_ref().map(|news| &news.by)
            && let Some(token) = token(from, response)
        {
            run.token = Some(token);
        }
        let text = |name| header(&response.headers, name).map(str::to_owned);
        let (etag, modified) = (text("etag"), text("last-modified"));
        if shared.conditional && (etag.is_some() || modified.is_some()) {
            remember(run, Seen { request, etag, modified, next: next.clone() });
        }
        Ok(Read { cuts, records, next })
    }

    fn following(
        &self,
        pagination: &Pagination,
        page: &Page,
        outgoing: &Outgoing,
        response: &Response,
        records: u64,
        last: Option<String>,
    ) -> Result<Option<Page>, Error> {
        let query: Vec<String> =
            outgoing.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        let answered = Answered {
            headers: &response.headers,
            body: json_body(&response.body),
            records,
            last,
            query: &query,
        };
        let mut next = paging::next(pagination, page, &answered)?;
        if let Some(next) = &mut next
            && let Some(link) = paging::link(pagination, next).map(str::to_owned)
        {
            let url = self.shared.client.linked(&outgoing.url, &link)?;
            next.by = Some(self.shared.client.without_key(url));
        }
        Ok(next)
    }

    /// Finds a page that an API gives again and again, because it does not know the parameter.
    fn repeats(
        &mut self,
        pagination: &Pagination,
        run: &Progress,
        body: &Bytes,
        records: u64,
        outgoing: &Outgoing,
    ) -> Result<(), Error> {
        let hash = XxHash3_64::oneshot(body);
        let same = self.before.replace(hash) == Some(hash) && records > 0 && run.page.index > 0;
        let counted = matches!(
            paging::way(pagination, &run.page),
            PageKind::Number { .. } | PageKind::Offset { .. } | PageKind::LastKey { .. }
        );
        if same && counted {
            return Err(goes_round(outgoing, run.page.index));
        }
        Ok(())
    }

    /// Puts the records of a page into chunks, each with the cursor behind it.
    fn give(&mut self, mut run: Progress, read: Read, request: u64) {
        let skip = run.skip;
        let before = run.position;
        let mut chunks: Vec<(Chunk, u64)> = Vec::new();
        for cut in read.cuts {
            let ordinal = last_ordinal(&cut);
            if ordinal <= skip {
                continue;
            }
            if let Some(chunk) = self.chunk(cut, &mut run, skip, before, request) {
                chunks.push((chunk, ordinal));
            }
        }
        let count = chunks.len();
        for (index, (mut chunk, ordinal)) in chunks.into_iter().enumerate() {
            if index + 1 < count {
                run.skip = ordinal;
                self.cursor.run = Some(run.clone());
            } else {
                self.advance(run.clone(), read.records, read.next.clone());
            }
            chunk.cursor = self.cursor.to_text();
            self.ready.push_back(chunk);
        }
        if count == 0 {
            self.advance(run, read.records, read.next);
            let chunk = Chunk {
                records: empty(self.extraction_base),
                refused: Vec::new(),
                cursor: self.cursor.to_text(),
            };
            self.ready.push_back(chunk);
        }
    }

    /// Makes a chunk of what is behind `skip` and not older than what was asked for.
    fn chunk(
        &self,
        cut: Cut,
        run: &mut Progress,
        skip: u64,
        before: u64,
        request: u64,
    ) -> Option<Chunk> {
        let shared = &self.shared;
        let mut keep = vec![true; cut.positions.len()];
        for (kept, position) in keep.iter_mut().zip(&cut.positions) {
            *kept = *position > skip;
        }
        if let (Some(NewsBy::Field { field, filter, .. }), Some(scale)) =
            (shared.config.incremental.as_ref().map(|news| &news.by), &shared.scale)
        {
            let end = shared.end(run);
            for (row, kept) in keep.iter_mut().enumerate() {
                // A record without the value cannot be told to be old.
                let Some(value) =
                    answer::value_in(&cut, row, field).and_then(|json| scale.read(&json))
                else {
                    continue;
                };
                let old = run.from.is_some_and(|from| value < from);
                let late = end.is_some_and(|end| value >= end);
                if *filter && (old || late) {
                    *kept = false;
                } else if !late {
                    run.max = run.max.max(Some(value));
                }
            }
        }
        let label = shared.label();
        let ids = ids(&cut, label, &shared.config.key, request);
        let positions = cut.positions.iter().map(|position| before + position).collect();
        let mut unreadable = cut.refused;
        unreadable.retain(|refused| refused.position > skip);
        let refused = refused(unreadable, label, request, before);
        let records = Records {
            columns: cut.columns,
            presence: cut.presence,
            ids: Ids::Explicit(ids),
            positions,
            extraction_base: self.extraction_base,
            versions: None,
            operations: None,
        };
        let records = match keep.iter().all(|kept| *kept) {
            true => records,
            false => {
                records.filter(&BooleanArray::from(keep)).expect("there is one decision per record")
            }
        };
        (!records.is_empty() || !refused.is_empty()).then_some(Chunk {
            records,
            refused,
            cursor: String::new(),
        })
    }

    /// Moves the cursor behind a page.
    fn advance(&mut self, mut run: Progress, records: u64, next: Option<Page>) {
        run.position += records;
        run.skip = 0;
        if let Some(page) = next {
            run.page = page;
            self.cursor.run = Some(run);
            return;
        }
        run.page = Page::default();
        self.asked.clear();
        self.before = None;
        if let Some(parents) = &mut self.parents {
            parents.index += 1;
            if let Some(parent) = parents.elements.get(parents.index) {
                run.parent = self.shared.parent_key(parent);
                self.cursor.run = Some(run);
                return;
            }
            let next = parents.next.take();
            self.parents = None;
            if next.is_some() {
                (run.parents, run.parent) = (next, None);
                self.cursor.run = Some(run);
                return;
            }
        }
        self.end_piece(run);
    }

    /// Begins with the next piece, or ends the run.
    fn end_piece(&mut self, mut run: Progress) {
        (run.parents, run.parent) = (None, None);
        self.parents = None;
        self.asked_parents.clear();
        if let (Some(step), Some(to), Some(last)) = (self.shared.step(), run.to, run.last)
            && to < last
        {
            run.max = run.max.max(Some(to));
            run.from = Some(to);
            run.to = piece(run.from, run.last, Some(step));
            self.cursor.run = Some(run);
            return;
        }
        self.cursor = self.shared.ended(&self.cursor, run, self.pace.usual_ms());
    }

    /// Makes sure that there is a parent at hand. False: the cursor has moved, or there is none.
    async fn at_parent(&mut self, run: &mut Progress) -> Result<bool, Error> {
        if self.parents.is_some() {
            return Ok(true);
        }
        let shared = Arc::clone(&self.shared);
        let (Some(config), Some(request)) = (&shared.config.parent, &shared.parent) else {
            return Ok(true);
        };
        let page = run.parents.clone().unwrap_or_default();
        let query = paging::query(&config.paginate, &page);
        let asked = Asked { pagination: &config.paginate, page: &page, run, parent: None };
        let outgoing = self.outgoing(request, &asked, &query)?;
        if !self.asked_parents.insert(fingerprint(&outgoing)) {
            return Err(goes_round(&outgoing, page.index));
        }
        let (elements, next) = match self.call(&outgoing).await? {
            Outcome::Answer(response) => {
                let place = place(&outgoing);
                let elements: Vec<String> =
                    answer::elements(&config.answer, &place, &response.body)?
                        .iter()
                        .map(|element| String::from_utf8_lossy(element.as_ref()).into_owned())
                        .collect();
                let last = last_key(&config.paginate, &page)
                    .and_then(|field| first(elements.last()?, &field).map(str::to_owned));
                let records = elements.len() as u64;
                let next =
                    self.following(&config.paginate, &page, &outgoing, &response, records, last)?;
                (elements, next)
            }
            Outcome::Nothing => (Vec::new(), None),
            Outcome::Restart => {
                self.asked_parents.clear();
                run.parents = None;
                run.parent = None;
                self.restart(run.clone())?;
                return Ok(false);
            }
        };
        if let Some(nameless) = elements.iter().position(|e| shared.parent_key(e).is_none()) {
            return Err(Error::stop(
                format!("parent {} of the page has no value at `{}`", nameless + 1, config.key),
                "set `parent.key` to the field that identifies a parent",
            ));
        }
        if elements.is_empty() {
            match next {
                Some(next) => {
                    (run.parents, run.parent) = (Some(next), None);
                    self.cursor.run = Some(run.clone());
                }
                None => self.end_piece(run.clone()),
            }
            return Ok(false);
        }
        let found = run.parent.as_ref().and_then(|key| {
            elements.iter().position(|e| shared.parent_key(e).as_ref() == Some(key))
        });
        if found.is_none() {
            // The first of the page, or the one that was being read is gone from it.
            run.page = Page::default();
            run.skip = 0;
        }
        let index = found.unwrap_or(0);
        run.parent = shared.parent_key(&elements[index]);
        self.parents = Some(Parents { elements, index, next });
        Ok(true)
    }
}

#[async_trait]
impl connect::Reader for Reader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            let Some(run) = self.cursor.run.clone() else { return Ok(None) };
            self.step(run).await?;
            if self.cursor.run.is_none() && self.ready.is_empty() {
                // The end has a cursor of its own.
                return Ok(Some(Chunk {
                    records: empty(self.extraction_base),
                    refused: Vec::new(),
                    cursor: self.cursor.to_text(),
                }));
            }
        }
    }

    fn usage(&self) -> Usage {
        let (now, before) = (self.shared.client.usage(), self.usage_before);
        Usage {
            calls: now.calls - before.calls,
            received_bytes: now.received_bytes - before.received_bytes,
            waited_quota_ms: now.waited_quota_ms - before.waited_quota_ms,
            slowed_ms: now.slowed_ms - before.slowed_ms,
            not_modified: now.not_modified - before.not_modified,
        }
    }
}

/// What a request is filled from.
#[derive(Clone, Copy)]
struct Asked<'a> {
    pagination: &'a Pagination,
    page: &'a Page,
    run: &'a Progress,
    parent: Option<&'a str>,
}

impl Shared {
    /// Returns what identifies a parent, as JSON.
    fn parent_key(&self, parent: &str) -> Option<String> {
        first(parent, &self.config.parent.as_ref()?.key).map(str::to_owned)
    }
}

fn goes_round(outgoing: &Outgoing, pages: u64) -> Error {
    Error::stop(
        format!(
            "{}: after {pages} pages the way leads to a page that was read already",
            place(outgoing)
        ),
        "see whether the API knows the parameter or link that `paginate` names",
    )
}

fn remember(run: &mut Progress, seen: Seen) {
    if run.seen.len() < MOST_SEEN {
        run.seen.push(seen);
    }
}

fn token(from: &AnswerPlace, response: &Response) -> Option<String> {
    let token = match from {
        AnswerPlace::Header(name) => header(&response.headers, name)?.to_owned(),
        AnswerPlace::Body(path) => text_of(first(json_body(&response.body)?, path)?).into_owned(),
    };
    (!token.is_empty()).then_some(token)
}

/// Returns the field whose last value leads on. While the way is not known, the usual one.
fn last_key(pagination: &Pagination, page: &Page) -> Option<JsonPath> {
    match paging::way(pagination, page) {
        PageKind::LastKey { field, .. } => Some(field.clone()),
        PageKind::Auto => Some(JsonPath { steps: vec![PathStep::Key("id".to_owned())] }),
        _ => None,
    }
}

/// Names a request by what it asks for.
fn fingerprint(outgoing: &Outgoing) -> u64 {
    let mut hash = XxHash3_64::new();
    hash.write(outgoing.method.as_str().as_bytes());
    hash.write(outgoing.url.as_str().as_bytes());
    for (name, value) in &outgoing.headers {
        hash.write(name.as_bytes());
        hash.write(value.as_bytes());
    }
    if let Some(content) = &outgoing.content {
        hash.write_u8(0);
        hash.write(&content.bytes);
    }
    hash.finish()
}

fn count(cuts: &[Cut]) -> u64 {
    cuts.iter().map(|cut| (cut.positions.len() + cut.refused.len()) as u64).sum()
}

fn last_ordinal(cut: &Cut) -> u64 {
    let refused = cut.refused.last().map_or(0, |refused| refused.position);
    cut.positions.last().copied().unwrap_or(0).max(refused)
}
