-- Takes back: what reading a source cost, and how old changes were when they were loaded.
alter table runs drop column calls;
alter table runs drop column received_bytes;
alter table runs drop column waited_quota_ms;
alter table runs drop column slowed_ms;
alter table runs drop column not_modified;
alter table runs drop column ages;
alter table outcomes drop column ages;
alter table parts drop column calls;
alter table parts drop column received_bytes;
alter table parts drop column waited_quota_ms;
alter table parts drop column slowed_ms;
alter table parts drop column not_modified;
