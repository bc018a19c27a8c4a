-- Takes back: what people declared: pipelines with their revisions, and where their sources stand.
drop table clocks;
drop table cursors;
drop table revisions;
drop table pipelines;
