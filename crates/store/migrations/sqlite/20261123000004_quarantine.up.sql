-- Records that a stage refused, until they are replayed or dropped.

create table quarantine (
    id integer not null constraint quarantine_pkey primary key autoincrement,
    pipeline text not null constraint quarantine_pipeline_fkey references pipelines (name),
    revision bigint not null,
    run_id text not null,
    stage text not null
        constraint quarantine_stage_check check (stage in ('extractor', 'transformer', 'loader', 'scheduler')),
    target text not null,
    record text not null,
    code text not null,
    message text not null,
    step text not null,
    field text not null,
    -- A batch message that holds this record alone; null where it could not be decoded.
    contents blob,
    -- The text of a record that could not be parsed at all.
    raw blob,
    quarantined_at timestamp not null,
    -- The run that replays the record, and the batch it went out in.
    replay_run text,
    replay_batch text,
    constraint quarantine_record_key unique (run_id, stage, target, record)
);
create index quarantine_of_pipeline on quarantine (pipeline, id desc);
create index quarantine_replay on quarantine (replay_run) where replay_run is not null;
