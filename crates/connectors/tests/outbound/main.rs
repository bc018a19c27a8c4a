//! HTTP APIs and receivers of webhooks as targets, against a server whose answers are scripted.

#![allow(clippy::unwrap_used, reason = "whatever fails here fails a test")]

mod batches;
mod calls;
mod outcomes;
mod support;
mod webhooks;
