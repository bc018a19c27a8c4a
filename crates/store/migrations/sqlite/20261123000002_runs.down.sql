-- Takes back: what happened: runs and their books.
drop table notes;
drop table run_targets;
drop table runs;
