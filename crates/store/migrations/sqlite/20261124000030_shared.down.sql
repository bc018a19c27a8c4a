-- Takes back: what pipelines share: quotas and connections, by name.
drop table shared;
