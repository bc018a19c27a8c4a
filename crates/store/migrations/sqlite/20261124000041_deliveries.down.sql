-- Takes back: deliveries that come again, and receivers that are disabled.
drop table receivers;
drop index quarantine_due;
alter table quarantine drop column next_attempt_at;
alter table quarantine drop column first_failed_at;
alter table quarantine drop column attempts;
