//! Writes errors in the shape of the API that the path belongs to, and adds the headers that every
//! response has.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::origin;
use crate::error::{ApiError, Family};

/// The origin that may read the answer.
#[derive(Clone, Debug)]
pub(crate) struct AllowOrigin(pub(crate) HeaderValue);

/// The innermost layer that sees every response: also those of the router (404, 405) and of a
/// handler that panicked.
pub(crate) async fn in_shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let rest = Rest::default();
    let mut response = next.run(request.map(|body| rest.lend(body))).await;
    // A client that still sends the body of a request that was refused early must be able to use
    // its connection again, or know that it cannot.
    if response.status().as_u16() >= 400 && !rest.drained().await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let error = response.extensions_mut().remove::<ApiError>();
    let error = error.or_else(|| by_router(response.status(), &format!("{method} {path}")));
    if let Some(error) = error {
        let allow = response.headers_mut().remove(header::ALLOW);
        let reader = response.extensions_mut().remove::<AllowOrigin>();
        let close = response.headers_mut().remove(header::CONNECTION);
        response = error.response(Family::of(&path));
        if let Some(close) = close {
            response.headers_mut().insert(header::CONNECTION, close);
        }
        if let Some(AllowOrigin(reader)) = reader {
            origin::allow(reader, response.headers_mut());
        }
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The error of a response that has a status and no body of ours.
fn by_router(status: StatusCode, what: &str) -> Option<ApiError> {
    let message = match status {
        StatusCode::NOT_FOUND => format!("there is no {what} here"),
        StatusCode::METHOD_NOT_ALLOWED => format!("{what}: this path has other methods"),
        // A panic is a mistake of ours; the request is over, the server is not.
        StatusCode::INTERNAL_SERVER_ERROR => {
            return Some(ApiError::unavailable("this request brought its handler down"));
        }
        _ => return None,
    };
    Some(ApiError::new(status, message))
}

/// What a handler leaves of a body.
#[derive(Clone, Default)]
struct Rest(Arc<Mutex<Option<Body>>>);

/// Bytes of a refused body that are read so that its connection can go on.
const DRAINED_MAX: usize = 256 << 10;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_millis(500);

impl Rest {
    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body, as a handler reads it.
    fn lend(&self, body: Body) -> Body {
        *self.lock() = Some(body);
        Body::new(Lent(self.clone()))
    }

    /// Reads what is left; whether that was all.
    async fn drained(&self) -> bool {
        let Some(mut body) = self.lock().take() else { return true };
        let drain = async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, |data| data.len());
                if bytes > DRAINED_MAX {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(DRAIN_TIME, drain).await.unwrap_or(false)
    }
}

/// A body that somebody else keeps.
struct Lent(Rest);

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.0.lock().as_mut() {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}
