-- no-transaction
-- What is due: runs that wait for a place, pause at the end of a window or are skipped; what started
-- them and with what; up to where each pipeline's due times are taken care of.
-- SQLite changes a check only with its table, and other tables refer to this one meanwhile.

pragma foreign_keys = off;
begin immediate;

create table new_runs (
    id text not null constraint runs_pkey primary key,
    pipeline text not null constraint runs_pipeline_fkey references pipelines (name),
    revision bigint not null,
    trigger_kind text not null
        constraint runs_trigger_check check (trigger_kind in ('manual', 'interval', 'cron',
            'after', 'continuous', 'backfill', 'push', 'replay')),
    -- What made the run due; several schedulers that see the same give the same key.
    due_key text,
    state text not null
        constraint runs_state_check check (state in ('waiting', 'running', 'paused',
            'succeeded', 'failed', 'cancelled', 'skipped')),
    attempt bigint not null constraint runs_attempt_check check (attempt >= 1),
    started_at timestamp not null,
    ended_at timestamp,
    reason text not null default '',
    hint text not null default '',
    -- Extraction time of the first attempt, and of the current one.
    extraction_base bigint not null,
    attempt_base bigint not null,
    full_read boolean not null,
    confirm_loss boolean not null,
    -- JSON array.
    accepted_fields text not null,
    last_progress_at timestamp not null,
    -- The parts of the current attempt are known.
    planned boolean not null,
    extracted bigint not null default 0,
    batches bigint not null default 0,
    batches_transformed bigint not null default 0,
    filtered bigint not null default 0,
    quarantined bigint not null default 0,
    extraction_ended boolean not null default false,
    balanced boolean not null default false,
    -- When it was due; null: a user started it.
    due_at timestamp,
    -- Due times that a skipped run stands for, from `due_at` to `skipped_until`, and the run that was
    -- in their way.
    skipped bigint not null default 0,
    skipped_until timestamp,
    blocked_by text,
    -- The connection on which it takes a place, and who gets one first.
    connection text,
    priority bigint not null default 5,
    -- JSON object of texts: what a user gave it.
    parameters text not null default '{}',
    -- Only what lies in this range of the source's cursor is read.
    range_from text,
    range_to text,
    -- Since when it has been going, and how long before that.
    active_since timestamp,
    active_ms bigint not null default 0,
    constraint runs_due_key unique (pipeline, due_key),
    constraint runs_ended_check
        check ((state in ('waiting', 'running', 'paused')) = (ended_at is null))
);
insert into new_runs (
    id, pipeline, revision, trigger_kind, due_key, state, attempt, started_at, ended_at, reason,
    hint, extraction_base, attempt_base, full_read, confirm_loss, accepted_fields,
    last_progress_at, planned, extracted, batches, batches_transformed, filtered, quarantined,
    extraction_ended, balanced
)
select
    id, pipeline, revision, trigger_kind, due_key, state, attempt, started_at, ended_at, reason,
    hint, extraction_base, attempt_base, full_read, confirm_loss, accepted_fields,
    last_progress_at, planned, extracted, batches, batches_transformed, filtered, quarantined,
    extraction_ended, balanced
from runs;
drop table runs;
alter table new_runs rename to runs;
update runs set active_since = started_at where state = 'running';
-- Pushed records are accounted for beside the runs that read.
create unique index runs_one_going on runs (pipeline)
    where state in ('running', 'paused') and trigger_kind <> 'push';
create index runs_open on runs (state) where state in ('waiting', 'running', 'paused');
create index runs_newest on runs (started_at desc, id desc);
create index runs_newest_of_pipeline on runs (pipeline, started_at desc, id desc);

-- Where the parts of a run stand that reads everything, or a range.
create table run_cursors (
    run_id text not null constraint run_cursors_run_fkey references runs (id),
    part text not null,
    cursor_text text not null,
    constraint run_cursors_pkey primary key (run_id, part)
);

create table schedules (
    pipeline text not null constraint schedules_pkey primary key
        constraint schedules_pipeline_fkey references pipelines (name),
    -- The triggers for which the rest holds.
    triggers text not null,
    -- Intervals are counted from here.
    anchor_at timestamp not null,
    -- Every due time up to here has its run or is recorded as skipped.
    handled_until timestamp not null,
    -- JSON object: until when the successes of other pipelines have had their effect.
    after_seen text not null
);

-- One row that whoever gives places to runs holds meanwhile.
create table admissions (
    id bigint not null constraint admissions_pkey primary key
);
insert into admissions (id) values (1);

commit;
pragma foreign_keys = on;
