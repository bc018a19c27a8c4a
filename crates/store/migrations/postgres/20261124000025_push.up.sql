-- Runs that account for what was pushed in a span of time.

-- The end of the span; null: the run is of another kind, or what each stage did with each batch is
-- forgotten, so that nothing can be added to its books.
alter table runs add column window_ends_at timestamptz;
create index runs_windows on runs (window_ends_at) where window_ends_at is not null;
