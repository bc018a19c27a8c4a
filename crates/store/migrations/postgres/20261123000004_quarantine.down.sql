-- Takes back: records that a stage refused, until they are replayed or dropped.
drop table quarantine;
