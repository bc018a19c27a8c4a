-- Webhooks that were not delivered come again, and receivers that take none for too long are disabled.

-- How often the record was set aside, first when, and when it is sent again; null: not by itself.
alter table quarantine add column attempts bigint;
alter table quarantine add column first_failed_at timestamp;
alter table quarantine add column next_attempt_at timestamp;
create index quarantine_due on quarantine (next_attempt_at) where next_attempt_at is not null;

create table receivers (
    pipeline text not null,
    target text not null,
    disabled_at timestamp not null,
    constraint receivers_pkey primary key (pipeline, target)
);
