//! A source that has nothing but what is pushed.

use async_trait::async_trait;
use connect::{Error, Limits, PartCursor, Parts, Reader, Stream};
use model::Schema;

const NOTHING: &str = "records come by the ways under `triggers.push`; there is nothing to read";

/// Has no parts.
#[derive(Debug)]
pub(crate) struct Source;

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        Ok("what is pushed is taken in".to_owned())
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        Ok(Vec::new())
    }

    async fn infer(&self) -> Result<Schema, Error> {
        Err(Error::stop("what is pushed cannot be looked at before it comes", "declare `schema`"))
    }

    async fn parts(&self, _cursors: &[PartCursor], _full: bool) -> Result<Parts, Error> {
        Ok(Parts { notes: vec![NOTHING.to_owned()], ..Parts::default() })
    }

    async fn open(
        &self,
        _part: &str,
        _cursor: &str,
        _extraction_base: i64,
        _limits: Limits,
    ) -> Result<Box<dyn Reader>, Error> {
        Err(Error::stop(NOTHING, "push records"))
    }
}
