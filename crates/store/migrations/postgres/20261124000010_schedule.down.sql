-- Takes back: what is due, and what waits, pauses or is skipped.
drop table admissions;
drop table schedules;
drop table run_cursors;
drop index runs_open;
drop index runs_one_going;
update runs set state = 'cancelled', ended_at = started_at
    where state in ('waiting', 'paused', 'skipped');
update runs set state = 'cancelled', ended_at = started_at
    where state = 'running' and trigger_kind = 'push';
update runs set trigger_kind = 'interval'
    where trigger_kind in ('cron', 'after', 'continuous', 'push');
update runs set trigger_kind = 'manual' where trigger_kind = 'backfill';
create unique index runs_one_running on runs (pipeline) where state = 'running';
alter table runs
    drop constraint runs_trigger_check,
    drop constraint runs_state_check,
    drop constraint runs_ended_check,
    drop column due_at,
    drop column skipped,
    drop column skipped_until,
    drop column blocked_by,
    drop column connection,
    drop column priority,
    drop column parameters,
    drop column range_from,
    drop column range_to,
    drop column active_since,
    drop column active_ms;
alter table runs
    add constraint runs_trigger_check check (trigger_kind in ('manual', 'interval', 'replay')),
    add constraint runs_state_check check (state in ('running', 'succeeded', 'failed', 'cancelled')),
    add constraint runs_ended_check check ((state = 'running') = (ended_at is null));
