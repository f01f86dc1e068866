//! Connections: accepted, bounded in number and time, and ended gracefully.
//!
//! | limit | effect |
//! |---|---|
//! | connections | one more is told 503 and closed |
//! | headers | 431 beyond 64 KiB or 100 fields, 408 after 30 s |
//! | a reader that takes nothing for 60 s | its connection is closed, and its sequence freed |

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client may take to send its headers.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what is written to it.
const STALL_TIME: Duration = Duration::from_secs(60);
/// Bytes of all headers of a request.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Connections at the same time.
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// A stream of bytes to a client.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    router: Router,
    /// True once no connection is kept for another request.
    ending: watch::Receiver<bool>,
    /// Dropped with the last connection.
    alive: Arc<watch::Sender<()>>,
}

impl Connections {
    pub(crate) fn new(
        router: Router,
        ending: watch::Receiver<bool>,
    ) -> (Self, watch::Receiver<()>) {
        let (alive, over) = watch::channel(());
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        (Self { places, router, ending, alive: Arc::new(alive) }, over)
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self, io: impl Wire) {
        let mut io = Stalling::new(io);
        let Ok(_place) = self.places.try_acquire() else {
            let _ = io.write_all(BUSY).await;
            let _ = io.shutdown().await;
            return;
        };
        let service = TowerToHyperService::new(self.router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .title_case_headers(true) // some clients compare names as they are usually written
            .max_buf_size(HEADER_BYTES_MAX)
            .pipeline_flush(true);
        let mut ending = self.ending.clone();
        // One that is opened after SIGTERM is told 503, and then closed; to end it gracefully, as
        // the others, would be to close it unheard.
        let is_late = *ending.borrow();
        http.keep_alive(!is_late);
        let mut connection = http.serve_connection(TokioIo::new(io), service);
        let draining = async {
            if is_late {
                std::future::pending::<()>().await;
            }
            let _ = ending.wait_for(|ending| *ending).await;
        };
        let serving = std::future::poll_fn(|context| connection.poll_without_shutdown(context));
        let result = tokio::select! {
            result = serving => Some(result),
            () = draining => None,
        };
        let result = match result {
            Some(result) => result,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await
            }
        };
        let parts = connection.into_parts();
        let mut io = parts.io.into_inner();
        // A request that was begun and not completed; a silent connection is closed silently.
        if let Some(error) = result.err().filter(|_| io.begun) {
            let answer = if error.is_timeout() {
                SLOW
            } else if error.is_parse_too_large() {
                LARGE
            } else if error.is_parse() {
                MALFORMED
            } else {
                &[]
            };
            let _ = io.write_all(answer).await;
        }
        let _ = io.shutdown().await;
        drop(self.alive);
    }
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
    content-type: application/json\r\ncontent-length: 41\r\nconnection: close\r\n\r\n\
    {\"error\":\"too many connections are open\"}";
const SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
    content-length: 41\r\nconnection: close\r\n\r\n{\"error\":\"the headers were not complete\"}";

const LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    content-type: application/json\r\ncontent-length: 37\r\nconnection: close\r\n\r\n\
    {\"error\":\"the headers are too large\"}";
const MALFORMED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
    content-length: 41\r\nconnection: close\r\n\r\n{\"error\":\"the request is not valid HTTP\"}";

/// Writing that fails when the other side takes nothing for too long.
struct Stalling<T> {
    io: T,
    /// When a stalled write fails.
    deadline: Pin<Box<Sleep>>,
    stalled: bool,
    /// Bytes have come since something was last written.
    begun: bool,
}

impl<T: Wire> Stalling<T> {
    fn new(io: T) -> Self {
        Self { io, deadline: Box::pin(sleep(STALL_TIME)), stalled: false, begun: false }
    }

    /// Passes a write's result on, and watches over it while it is pending.
    fn watch<R>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.stalled = false;
            return result;
        }
        if !std::mem::replace(&mut self.stalled, true) {
            self.deadline.as_mut().reset(Instant::now() + STALL_TIME);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: Wire> AsyncRead for Stalling<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        self.begun |= buffer.filled().len() > before;
        result
    }
}

impl<T: Wire> AsyncWrite for Stalling<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.begun = false;
        self.watch(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.begun = false;
        self.watch(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        self.watch(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_answers_have_the_length_that_they_claim() {
        for answer in [BUSY, SLOW, LARGE, MALFORMED] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(length.unwrap().parse::<usize>().unwrap(), body.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (client, server) = tokio::io::duplex(16);
        let mut server = Stalling::new(server);
        let begun = Instant::now();
        let error = server.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= STALL_TIME);
        drop(client);
    }
}
