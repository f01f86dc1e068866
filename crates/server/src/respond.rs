//! From answers in the making to a response: a stream in one dialect, or one whole body.
//!
//! A response begins when the first event is there, so that what the engine refuses has its status.
//! A dropped body drops the generations, which frees their sequences.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cachalot_engine::Request;
use cachalot_engine::handle::Generation;
use cachalot_text::ToolParser;
use futures_util::stream::{BoxStream, SelectAll, Stream, StreamExt, unfold};
use serde::Serialize;
use serde_json::Value;

use crate::app::{App, Running, Served};
use crate::error::{ApiError, ApiResult};
use crate::generate::{Answer, Live, Piece, Source};
use crate::http::auth::Caller;

/// How often a silent stream says that it is alive.
const PING: Duration = Duration::from_secs(15);

/// Writes one dialect's stream.
pub(crate) trait Dialect: Send + 'static {
    /// The content type.
    const MEDIA: &'static str;

    /// Before everything else.
    fn begin(&mut self, _out: &mut Vec<u8>) {}
    /// A piece of answer `n`.
    fn piece(&mut self, n: usize, piece: &Piece, live: &Live, out: &mut Vec<u8>);
    /// All answers are complete.
    fn end(&mut self, _out: &mut Vec<u8>) {}
    /// It broke off.
    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>);
    /// A sign of life.
    fn ping(&self, _out: &mut Vec<u8>) {}
    /// All answers in one body.
    fn whole(&mut self, answers: Vec<Answer>) -> Value;
}

/// What came with a request besides its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) caller: Option<Caller>,
    /// The stream can be read again under this name.
    pub(crate) resume: Option<String>,
}

/// Answers that run.
pub(crate) struct Run {
    sources: Vec<Source>,
    running: Running,
}

impl Run {
    /// Submits one request several times, under the answer's `id`.
    ///
    /// # Errors
    /// As the engine refuses it.
    pub(crate) fn submit(
        app: &Arc<App>,
        served: &Arc<Served>,
        job: Job,
        caller: Option<Caller>,
    ) -> ApiResult<Self> {
        let mut sources = Vec::with_capacity(job.requests.len());
        for request in job.requests {
            let prompt = request.prompt.len();
            let place = app.slots.take(job.slot, &request.prompt)?;
            let generation: Generation = served.handle.submit(request)?;
            let calls = job.calls.clone();
            sources.push(Source::new(Arc::clone(served), generation, place, prompt, calls));
        }
        let ids = sources.iter().map(Source::id).collect();
        let running = Running::new(app, job.id, ids, caller);
        Ok(Self { sources, running })
    }

    /// The response: a stream, or a whole.
    pub(crate) async fn respond<D: Dialect>(
        self,
        app: &Arc<App>,
        dialect: D,
        stream: bool,
        context: &Context,
    ) -> ApiResult<Response> {
        if !stream {
            return self.whole(dialect).await;
        }
        let id = self.running.id.clone();
        let chunks = self.chunks(dialect).await?;
        let mut response = match &context.resume {
            Some(name) => app.streams.start(app, name, D::MEDIA, chunks),
            None => Body::from_stream(chunks.map(Ok::<_, Infallible>)).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(D::MEDIA));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx would hold the stream back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        if let Ok(id) = HeaderValue::from_str(context.resume.as_deref().unwrap_or(&id)) {
            headers.insert("x-stream-id", id);
        }
        Ok(response)
    }

    async fn whole<D: Dialect>(self, mut dialect: D) -> ApiResult<Response> {
        let mut answers = Vec::with_capacity(self.sources.len());
        let mut running = self.running;
        // Together, so that none of them stalls because it is not read.
        let collect = |mut source: Source| async move {
            let mut answer = Answer::default();
            while let Some((piece, _)) = source.next().await {
                match piece {
                    Piece::Failed(error) => return Err(error),
                    piece => answer.push(piece),
                }
            }
            Ok(answer)
        };
        for answer in futures_util::future::join_all(self.sources.into_iter().map(collect)).await {
            let answer: Answer = answer?;
            running.count(&answer.live());
            answers.push(answer);
        }
        Ok(axum::Json(dialect.whole(answers)).into_response())
    }

    /// The bytes of a stream, once its first event is known not to be a refusal.
    async fn chunks<D: Dialect>(
        self,
        mut dialect: D,
    ) -> ApiResult<impl Stream<Item = Bytes> + Send + 'static> {
        let mut pieces: SelectAll<BoxStream<'static, (usize, Piece, Live)>> =
            self.sources.into_iter().enumerate().map(|(n, source)| pieces(n, source)).collect();
        let first = pieces.next().await;
        if let Some((_, Piece::Failed(error), _)) = first {
            return Err(error);
        }
        let mut out = Vec::new();
        dialect.begin(&mut out);
        let writing =
            Writing { dialect, pieces, running: self.running, next: first, out, over: false };
        Ok(unfold(writing, |mut writing| async move {
            let bytes = writing.chunk().await?;
            Some((bytes, writing))
        }))
    }
}

fn pieces(n: usize, source: Source) -> BoxStream<'static, (usize, Piece, Live)> {
    unfold(source, move |mut source| async move {
        let (piece, live) = source.next().await?;
        Some(((n, piece, live), source))
    })
    .boxed()
}

struct Writing<D> {
    dialect: D,
    pieces: SelectAll<BoxStream<'static, (usize, Piece, Live)>>,
    running: Running,
    next: Option<(usize, Piece, Live)>,
    out: Vec<u8>,
    over: bool,
}

impl<D: Dialect> Writing<D> {
    /// The next bytes, at least one; `None` at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if !self.out.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.out)));
            }
            if self.over {
                return None;
            }
            let next = match self.next.take() {
                Some(next) => Some(next),
                None => match tokio::time::timeout(PING, self.pieces.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.dialect.ping(&mut self.out);
                        continue;
                    }
                },
            };
            match next {
                Some((_, Piece::Failed(error), _)) => {
                    self.dialect.fail(&error, &mut self.out);
                    self.over = true;
                }
                Some((n, piece, live)) => {
                    if let Piece::Done(outcome) = &piece {
                        self.running.count(&outcome.live);
                    }
                    self.dialect.piece(n, &piece, &live, &mut self.out);
                }
                None => {
                    self.dialect.end(&mut self.out);
                    self.over = true;
                }
            }
        }
    }
}

/// What is submitted.
pub(crate) struct Job {
    /// The name of the answer.
    pub(crate) id: String,
    /// One for each answer.
    pub(crate) requests: Vec<Request>,
    /// Finds tool calls in the answer.
    pub(crate) calls: Option<ToolParser>,
    /// The slot that is wanted.
    pub(crate) slot: Option<usize>,
}

impl Job {
    /// A request, answered `n` times, with a seed for each.
    pub(crate) fn new(id: String, request: &Request, n: usize, calls: Option<ToolParser>) -> Self {
        let nth = |i: usize| Request {
            seed: request.seed.map(|seed| seed.wrapping_add(i as u64)),
            ..request.clone()
        };
        Self { id, requests: (0..n.max(1)).map(nth).collect(), calls, slot: None }
    }
}

/// Server-sent events.
pub(crate) const SSE: &str = "text/event-stream";
/// One JSON object a line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Writes an event of JSON.
pub(crate) fn event(out: &mut Vec<u8>, name: Option<&str>, data: &impl Serialize) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    line(out, data);
    out.push(b'\n');
}

/// Writes a line of JSON.
pub(crate) fn line(out: &mut Vec<u8>, data: &impl Serialize) {
    // Our own types always become JSON.
    if serde_json::to_writer(&mut *out, data).is_ok() {
        out.push(b'\n');
    }
}

/// Writes a comment, which clients skip.
pub(crate) fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}
