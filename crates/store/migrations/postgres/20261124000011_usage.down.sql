-- Takes back: what reading a source cost, and how old changes were when they were loaded.
alter table runs
    drop column calls,
    drop column received_bytes,
    drop column waited_quota_ms,
    drop column slowed_ms,
    drop column not_modified,
    drop column ages;
alter table outcomes drop column ages;
alter table parts
    drop column calls,
    drop column received_bytes,
    drop column waited_quota_ms,
    drop column slowed_ms,
    drop column not_modified;
