-- What pipelines share: quotas and connections, by name.

create table shared (
    kind text not null constraint shared_kind_check check (kind in ('quota', 'connection')),
    name text not null,
    -- JSON.
    definition text not null,
    created_at timestamp not null,
    applied_at timestamp not null,
    constraint shared_pkey primary key (kind, name)
);
