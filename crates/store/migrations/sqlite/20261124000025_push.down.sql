-- Takes back: runs that account for what was pushed in a span of time.
drop index runs_windows;
alter table runs drop column window_ends_at;
