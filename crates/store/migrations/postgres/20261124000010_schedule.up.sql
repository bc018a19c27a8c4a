-- What is due: runs that wait for a place, pause at the end of a window or are skipped; what started
-- them and with what; up to where each pipeline's due times are taken care of.

alter table runs
    drop constraint runs_trigger_check,
    drop constraint runs_state_check,
    drop constraint runs_ended_check;
alter table runs
    add constraint runs_trigger_check check (trigger_kind in ('manual', 'interval', 'cron', 'after',
        'continuous', 'backfill', 'push', 'replay')),
    add constraint runs_state_check check (state in ('waiting', 'running', 'paused', 'succeeded',
        'failed', 'cancelled', 'skipped')),
    add constraint runs_ended_check
        check ((state in ('waiting', 'running', 'paused')) = (ended_at is null)),
    -- When it was due; null: a user started it.
    add column due_at timestamptz,
    -- Due times that a skipped run stands for, from `due_at` to `skipped_until`, and the run that was
    -- in their way.
    add column skipped bigint not null default 0,
    add column skipped_until timestamptz,
    add column blocked_by text,
    -- The connection on which it takes a place, and who gets one first.
    add column connection text,
    add column priority bigint not null default 5,
    -- JSON object of texts: what a user gave it.
    add column parameters text not null default '{}',
    -- Only what lies in this range of the source's cursor is read.
    add column range_from text,
    add column range_to text,
    -- Since when it has been going, and how long before that.
    add column active_since timestamptz,
    add column active_ms bigint not null default 0;
update runs set active_since = started_at where state = 'running';
-- Pushed records are accounted for beside the runs that read.
drop index runs_one_running;
create unique index runs_one_going on runs (pipeline)
    where state in ('running', 'paused') and trigger_kind <> 'push';
create index runs_open on runs (state) where state in ('waiting', 'running', 'paused');

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
    anchor_at timestamptz not null,
    -- Every due time up to here has its run or is recorded as skipped.
    handled_until timestamptz not null,
    -- JSON object: until when the successes of other pipelines have had their effect.
    after_seen text not null
);

-- One row that whoever gives places to runs holds meanwhile.
create table admissions (
    id bigint not null constraint admissions_pkey primary key
);
insert into admissions (id) values (1);
