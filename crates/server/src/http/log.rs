//! The access log: one line for each request, when its answer has ended. No prompt, no answer, no
//! key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use http_body::Body as _;

use crate::app::{App, fresh_id};

/// Writes the log to standard error: one line for each request, and what goes wrong.
pub fn log(json: bool, ansi: bool) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    // An earlier log stays.
    let _ = match json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder.with_ansi(ansi).try_init(),
    };
}

/// The name of the key that a request came with.
#[derive(Clone, Debug)]
pub(crate) struct KeyName(pub(crate) String);

/// Writes the line, and gives the request an id.
pub(crate) async fn access(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").filter(|id| is_plain(id)).cloned();
    let id = id.unwrap_or_else(|| {
        HeaderValue::from_str(&fresh_id("req-")).unwrap_or(HeaderValue::from_static("req"))
    });
    let mut line = Line {
        id: id.to_str().unwrap_or_default().to_owned(),
        method: request.method().to_string(),
        path: request.uri().path().chars().take(200).collect(),
        begun: Instant::now(),
        status: 0,
        key: String::new(),
        bytes: 0,
        to_first: None,
        whole: false,
    };
    let mut response = next.run(request).await;
    line.status = response.status().as_u16();
    if let Some(KeyName(name)) = response.extensions_mut().remove() {
        line.key = name;
    }
    app.metrics.request(line.status >= 400);
    response.headers_mut().insert("x-request-id", id);
    // A body of known size, or of none, is gone before its reader can be.
    if response.body().size_hint().exact().is_some() {
        line.bytes = response.body().size_hint().lower();
        line.whole = true;
        return response;
    }
    response.map(|body| follow(body, line))
}

fn is_plain(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=64).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

/// A body that writes its line when it ends or is dropped.
fn follow(body: Body, mut line: Line) -> Body {
    let chunks = body.into_data_stream().map(Some).chain(futures_util::stream::iter([None]));
    Body::from_stream(chunks.filter_map(move |chunk| {
        match &chunk {
            Some(Ok(bytes)) => line.chunk(bytes),
            Some(Err(_)) => {}
            None => line.whole = true,
        }
        std::future::ready(chunk)
    }))
}

struct Line {
    id: String,
    method: String,
    path: String,
    begun: Instant,
    status: u16,
    key: String,
    bytes: u64,
    to_first: Option<Duration>,
    whole: bool,
}

impl Line {
    fn chunk(&mut self, bytes: &Bytes) {
        self.to_first.get_or_insert(self.begun.elapsed());
        self.bytes += bytes.len() as u64;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let ms = |time: Duration| time.as_millis() as u64;
        tracing::info!(
            target: "access",
            id = %self.id,
            method = %self.method,
            path = %self.path,
            status = self.status,
            key = %self.key,
            bytes = self.bytes,
            first_ms = self.to_first.map(ms),
            ms = ms(self.begun.elapsed()),
            complete = self.whole,
        );
    }
}
