-- What people declared: pipelines with their revisions, and where their sources stand.

create table pipelines (
    name text not null constraint pipelines_pkey primary key,
    revision bigint not null constraint pipelines_revision_check check (revision >= 1),
    -- Cursors that a run of an earlier revision gives are of another source and not stored.
    cursors_since bigint not null constraint pipelines_cursors_check check (cursors_since >= 1),
    created_at timestamp not null,
    -- Set instead of removing the row: runs of the past refer to it.
    deleted_at timestamp
);

create table revisions (
    pipeline text not null constraint revisions_pipeline_fkey references pipelines (name),
    revision bigint not null,
    yaml text not null,
    -- JSON; null: not inferred yet.
    source_schema text,
    applied_at timestamp not null,
    constraint revisions_pkey primary key (pipeline, revision)
);

create table cursors (
    pipeline text not null constraint cursors_pipeline_fkey references pipelines (name),
    part text not null,
    cursor_text text not null,
    updated_at timestamp not null,
    constraint cursors_pkey primary key (pipeline, part)
);

-- The extraction time that the last run reached: the next one starts later.
create table clocks (
    pipeline text not null constraint clocks_pkey primary key,
    extraction_end bigint not null
);
