-- What reading a source cost, and how old changes were when they were loaded.

alter table parts
    add column calls bigint not null default 0,
    add column received_bytes bigint not null default 0,
    add column waited_quota_ms bigint not null default 0,
    add column slowed_ms bigint not null default 0,
    add column not_modified bigint not null default 0;
-- Counts by age, as JSON; null: the records have no time of their own.
alter table outcomes add column ages text;
alter table runs
    add column calls bigint not null default 0,
    add column received_bytes bigint not null default 0,
    add column waited_quota_ms bigint not null default 0,
    add column slowed_ms bigint not null default 0,
    add column not_modified bigint not null default 0,
    add column ages text;
