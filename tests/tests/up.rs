//! Everything in one process, with SQLite.
