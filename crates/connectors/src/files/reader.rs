//! Reading on a thread of its own, a bounded number of chunks ahead.

use async_trait::async_trait;
use connect::{Chunk, Error, RefusedRaw};
use model::{Ids, Records};
use tokio::sync::mpsc;

use super::{Cut, Text, cursor::Cursor};

/// Chunks that wait to be taken. Together with the one being made they bound the memory.
const CHUNKS_AHEAD: usize = 2;

/// What the thread sends. Without [`Message::End`] the thread has not come to the end.
enum Message {
    Chunk(Box<Chunk>),
    Failed(Error),
    End,
}

struct Reader {
    path: String,
    messages: mpsc::Receiver<Message>,
    ended: bool,
}

/// Starts to read a text that stands at `cursor`. The thread ends when the reader is dropped.
pub(super) fn spawn(
    text: Box<dyn Text>,
    path: String,
    cursor: Cursor,
    extraction_base: i64,
) -> Result<Box<dyn connect::Reader>, Error> {
    let (sender, messages) = mpsc::channel(CHUNKS_AHEAD);
    let mut chunks = Chunks {
        id_prefix: format!("{path}#{}:", cursor.generation),
        text,
        cursor,
        extraction_base,
    };
    std::thread::Builder::new()
        .name("file-reader".to_owned())
        .spawn(move || {
            loop {
                let (message, more) = match chunks.next() {
                    Ok(Some(chunk)) => (Message::Chunk(Box::new(chunk)), true),
                    Ok(None) => (Message::End, false),
                    Err(error) => (Message::Failed(error), false),
                };
                if sender.blocking_send(message).is_err() || !more {
                    return;
                }
            }
        })
        .map_err(|cause| {
            Error::retry(
                format!("no thread can be started to read file `{path}`"),
                "raise the number of threads that the service may have",
            )
            .because(cause)
        })?;
    Ok(Box::new(Reader { path, messages, ended: false }))
}

#[async_trait]
impl connect::Reader for Reader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.ended {
            return Ok(None);
        }
        match self.messages.recv().await {
            Some(Message::Chunk(chunk)) => Ok(Some(*chunk)),
            Some(Message::Failed(error)) => Err(error),
            Some(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(Error::stop(
                format!("reading file `{}` ended early by a fault of this program", self.path),
                "see the log of this service, and report what it says",
            )),
        }
    }
}

struct Chunks {
    text: Box<dyn Text>,
    id_prefix: String,
    cursor: Cursor,
    extraction_base: i64,
}

impl Chunks {
    fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let Some(cut) = self.text.next()? else {
            return Ok(None);
        };
        let done = !self.text.has_more()?;
        let place = self.text.place();
        let stamp = self.text.input().stamp();
        self.cursor = self.cursor.at(stamp, place, done);
        Ok(Some(self.chunk(cut)))
    }

    fn chunk(&self, cut: Cut) -> Chunk {
        Chunk {
            records: Records {
                columns: cut.columns,
                presence: cut.presence,
                ids: Ids::Positions { prefix: self.id_prefix.clone() },
                positions: cut.positions,
                extraction_base: self.extraction_base,
                versions: None,
                operations: None,
            },
            refused: cut
                .refused
                .into_iter()
                .map(|refused| RefusedRaw {
                    id: format!("{}{}", self.id_prefix, refused.position),
                    position: refused.position,
                    code: refused.code,
                    message: refused.message,
                    field: refused.field,
                    raw: refused.raw,
                })
                .collect(),
            cursor: self.cursor.to_text(),
        }
    }
}
