-- no-transaction
-- Takes back: what is due, and what waits, pauses or is skipped.

pragma foreign_keys = off;
begin immediate;

drop table admissions;
drop table schedules;
drop table run_cursors;
drop index runs_one_going;
update runs set state = 'cancelled', ended_at = started_at
    where state in ('waiting', 'paused', 'skipped')
    or (state = 'running' and trigger_kind = 'push');
update runs set trigger_kind = 'interval'
    where trigger_kind in ('cron', 'after', 'continuous', 'push');
update runs set trigger_kind = 'manual' where trigger_kind = 'backfill';
create table old_runs (
    id text not null constraint runs_pkey primary key,
    pipeline text not null constraint runs_pipeline_fkey references pipelines (name),
    revision bigint not null,
    trigger_kind text not null
        constraint runs_trigger_check check (trigger_kind in ('manual', 'interval', 'replay')),
    -- What made the run due; several schedulers that see the same give the same key.
    due_key text,
    state text not null
        constraint runs_state_check check (state in ('running', 'succeeded', 'failed', 'cancelled')),
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
    constraint runs_due_key unique (pipeline, due_key),
    constraint runs_ended_check check ((state = 'running') = (ended_at is null))
);
insert into old_runs (
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
alter table old_runs rename to runs;
create unique index runs_one_running on runs (pipeline) where state = 'running';
create index runs_newest on runs (started_at desc, id desc);
create index runs_newest_of_pipeline on runs (pipeline, started_at desc, id desc);

commit;
pragma foreign_keys = on;
