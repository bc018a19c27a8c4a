-- What each stage did with each batch of the runs that are going on; the sums stay in `runs`.

create table parts (
    run_id text not null constraint parts_run_fkey references runs (id),
    attempt bigint not null,
    part bigint not null,
    -- Null: the end of the part was told before its beginning.
    name text,
    -- Length of the chain of batches from the first on that every target is done with.
    loaded_batches bigint not null default 0,
    -- Null: the end was not reached yet.
    end_batches bigint,
    end_cursor text,
    completed boolean not null default false,
    constraint parts_pkey primary key (run_id, attempt, part)
);

create table batches (
    run_id text not null constraint batches_run_fkey references runs (id),
    attempt bigint not null,
    batch text not null,
    part bigint not null,
    sequence bigint not null,
    cursor_before text not null,
    cursor_after text not null,
    records bigint not null,
    quarantined bigint not null,
    -- The only target the batch is meant for, in a replay; null: all of them.
    only_target text,
    -- Does not count: another batch took its place, or its range is extracted again.
    voided boolean not null,
    constraint batches_pkey primary key (run_id, attempt, batch)
);
create unique index batches_slot on batches (run_id, attempt, part, sequence) where not voided;
create index batches_voided on batches (run_id, attempt) where voided;

create table transforms (
    run_id text not null constraint transforms_run_fkey references runs (id),
    attempt bigint not null,
    batch text not null,
    filtered bigint not null,
    quarantined bigint not null,
    constraint transforms_pkey primary key (run_id, attempt, batch)
);

create table outcomes (
    run_id text not null constraint outcomes_run_fkey references runs (id),
    attempt bigint not null,
    batch text not null,
    target text not null,
    loaded bigint not null,
    unchanged bigint not null,
    quarantined bigint not null,
    constraint outcomes_pkey primary key (run_id, attempt, batch, target)
);
