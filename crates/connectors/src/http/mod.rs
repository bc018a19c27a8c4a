//! HTTP APIs.
//!
//! - `client` makes calls: it is the only place that dials, for sources and targets alike. It takes
//!   places under quotas, proves who calls (`auth`, `sign`), and refuses addresses that it must not
//!   dial (`address`). What calls take and how they end is a metric (`metrics`).
//! - `source`, `shared` and `reader` walk through the pages of an answer (`paging`, `auto`), take its
//!   records out (`answer`, `select`, `xml`, `records`), ask for news only (`news`), and repeat what
//!   failed (`rules`, `delay`). `pace` reads a slow API more slowly.
//! - `target` sends records to an API, or as signed webhooks (`webhook`).
//! - `document` fetches what a service needs for itself.
//! - A cursor (`cursor`) stands between pages, or within one: reading goes on there.

mod address;
mod answer;
mod auth;
mod auto;
mod client;
mod cursor;
mod delay;
mod document;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod metrics;
mod news;
mod pace;
mod paging;
mod reader;
mod records;
mod request;
mod rules;
mod select;
mod shared;
mod sign;
mod source;
mod target;
mod webhook;
mod xml;

pub use self::document::document;
pub(crate) use self::{auth::Tokens, source::Source, target::Target};
