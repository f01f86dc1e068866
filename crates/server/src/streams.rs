//! Streams that outlive their reader: an answer goes on for a while after its client left, and can
//! be read again from any position.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, StreamExt, unfold};
use tokio::sync::watch;

use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// How long an answer goes on without a reader, and is kept after its end.
pub(crate) const KEPT: Duration = Duration::from_secs(300);
/// Bytes kept of one stream; a longer one ends.
const BYTES_MAX: usize = 16 << 20;
/// Streams kept at once; beyond it the oldest one that has ended goes.
const STREAMS_MAX: usize = 64;

/// All streams that can be read again.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: Mutex<HashMap<String, Arc<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    media: &'static str,
    bytes: Mutex<Vec<u8>>,
    /// Bytes so far, and whether that is all.
    state: watch::Sender<(usize, bool)>,
    /// When somebody last read, or the stream ended.
    touched: Mutex<Instant>,
    stopped: watch::Sender<bool>,
}

impl Kept {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn age(&self) -> Duration {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn is_over(&self) -> bool {
        self.state.borrow().1
    }
}

impl Streams {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Kept>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a stream on its own, under a name, and reads it from its beginning. A stream of the
    /// same name ends.
    pub(crate) fn start(
        &self,
        app: &Arc<App>,
        name: &str,
        media: &'static str,
        chunks: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Response {
        let kept = Arc::new(Kept {
            media,
            bytes: Mutex::default(),
            state: watch::Sender::new((0, false)),
            touched: Mutex::new(Instant::now()),
            stopped: watch::Sender::new(false),
        });
        let mut all = self.all();
        all.retain(|_, kept| !kept.is_over() || kept.age() < KEPT);
        if all.len() >= STREAMS_MAX {
            let ended = all.iter().filter(|(_, kept)| kept.is_over());
            let oldest = ended.max_by_key(|(_, kept)| kept.age()).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                all.remove(&oldest);
            }
        }
        if let Some(earlier) = all.insert(name.to_owned(), Arc::clone(&kept)) {
            earlier.stopped.send_replace(true);
        }
        drop(all);
        tokio::spawn(fill(Arc::clone(app), Arc::clone(&kept), chunks));
        read(kept, 0)
    }

    /// Reads a stream from byte `from` on.
    ///
    /// # Errors
    /// 404 for one that is not known any more.
    pub(crate) fn read(&self, name: &str, from: usize) -> ApiResult<Response> {
        let kept =
            self.all().get(name).filter(|kept| !kept.is_over() || kept.age() < KEPT).cloned();
        let Some(kept) = kept else {
            return Err(ApiError::not_found("this stream is not known, or no longer"));
        };
        Ok(read(kept, from))
    }

    /// Ends a stream and forgets it.
    ///
    /// # Errors
    /// 404 for one that is not known any more.
    pub(crate) fn stop(&self, name: &str) -> ApiResult<()> {
        let Some(kept) = self.all().remove(name) else {
            return Err(ApiError::not_found("this stream is not known, or no longer"));
        };
        kept.stopped.send_replace(true);
        Ok(())
    }
}

/// Takes all of a stream, until it ends, is stopped, or has had no reader for too long.
async fn fill(app: Arc<App>, kept: Arc<Kept>, chunks: impl Stream<Item = Bytes>) {
    let mut chunks = std::pin::pin!(chunks);
    let mut stopped = kept.stopped.subscribe();
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            chunk = chunks.next() => {
                let Some(chunk) = chunk else { break };
                let len = {
                    let mut bytes = kept.bytes();
                    bytes.extend_from_slice(&chunk);
                    bytes.len()
                };
                kept.state.send_replace((len, false));
                if len > BYTES_MAX {
                    break;
                }
            }
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = clock.tick() => {
                if kept.state.receiver_count() == 0 && (kept.age() > KEPT || app.is_draining()) {
                    break;
                }
            }
        }
    }
    kept.touch();
    kept.state.send_modify(|state| state.1 = true);
}

/// A reader's body. It waits for what is not written yet.
fn read(kept: Arc<Kept>, from: usize) -> Response {
    let media = kept.media;
    let reader = kept.state.subscribe();
    let body = unfold((kept, reader, from), |(kept, mut reader, from)| async move {
        loop {
            let (len, over) = *reader.borrow_and_update();
            if len > from {
                let bytes = Bytes::copy_from_slice(&kept.bytes()[from..len]);
                kept.touch();
                return Some((Ok::<_, std::convert::Infallible>(bytes), (kept, reader, len)));
            }
            if over || reader.changed().await.is_err() {
                return None;
            }
        }
    });
    let mut response = Body::from_stream(body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Config;
    use axum::body::to_bytes;
    use futures_util::stream;

    fn chunks() -> impl Stream<Item = Bytes> {
        stream::iter(["ab", "cd", "ef"]).map(|text| Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_stream_is_read_again_from_any_position() {
        let app = App::new(Config::default());
        let first = app.streams.start(&app, "x", "text/plain", chunks());
        let text = |response: Response| async { to_bytes(response.into_body(), 99).await.unwrap() };
        assert_eq!(text(first).await, "abcdef");
        assert_eq!(text(app.streams.read("x", 3).unwrap()).await, "def");
        assert_eq!(text(app.streams.read("x", 99).unwrap()).await, "");
        app.streams.stop("x").unwrap();
        assert_eq!(app.streams.read("x", 0).unwrap_err().status, 404);
        assert_eq!(app.streams.stop("x").unwrap_err().status, 404);
    }

    #[tokio::test]
    async fn a_stream_goes_on_without_its_reader() {
        let app = App::new(Config::default());
        let (send, receive) = async_channel::unbounded::<Bytes>();
        drop(app.streams.start(&app, "x", "text/plain", receive));
        send.send(Bytes::from_static(b"late")).await.unwrap();
        drop(send);
        let response = app.streams.read("x", 0).unwrap();
        assert_eq!(to_bytes(response.into_body(), 99).await.unwrap(), "late");
    }

    #[tokio::test]
    async fn a_stopped_stream_drops_its_source() {
        let app = App::new(Config::default());
        let (send, receive) = async_channel::unbounded::<Bytes>();
        let response = app.streams.start(&app, "x", "text/plain", receive);
        app.streams.stop("x").unwrap();
        assert_eq!(to_bytes(response.into_body(), 99).await.unwrap(), "");
        send.closed().await;
    }
}
