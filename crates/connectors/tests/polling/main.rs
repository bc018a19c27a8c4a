//! HTTP sources against real servers.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod auth;
mod errors;
mod formats;
mod json_server;
mod mockoon;
mod news;
mod npm;
mod pages;
mod parents;
mod support;
mod tls;
