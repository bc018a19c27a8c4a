-- What happened: runs and their books.

create table runs (
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
create unique index runs_one_running on runs (pipeline) where state = 'running';
create index runs_newest on runs (started_at desc, id desc);
create index runs_newest_of_pipeline on runs (pipeline, started_at desc, id desc);

create table run_targets (
    run_id text not null constraint run_targets_run_fkey references runs (id),
    position bigint not null,
    target text not null,
    loaded bigint not null default 0,
    unchanged bigint not null default 0,
    quarantined bigint not null default 0,
    missing bigint not null default 0,
    sweep text not null constraint run_targets_sweep_check
        check (sweep in ('none', 'pending', 'issued', 'withheld', 'done')),
    -- How often the sweep was handed out.
    sweep_attempt bigint not null default 0,
    swept bigint not null default 0,
    constraint run_targets_pkey primary key (run_id, target)
);

create table notes (
    run_id text not null constraint notes_run_fkey references runs (id),
    text_digest text not null,
    stage text not null,
    text text not null,
    noted_at timestamp not null,
    constraint notes_pkey primary key (run_id, text_digest)
);
