//! Writes errors in the shape of the API that the path belongs to, and adds the headers that every
//! response has.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::origin;
use crate::error::{ApiError, Family};

/// The origin that may read the answer.
#[derive(Clone, Debug)]
pub(crate) struct AllowOrigin(pub(crate) HeaderValue);

/// The innermost layer that sees every response: also those of the router (404, 405) and of a handler
/// that panicked.
pub(crate) async fn in_shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let error = error.or_else(|| by_router(response.status(), &format!("{method} {path}")));
    if let Some(error) = error {
        let allow = response.headers_mut().remove(header::ALLOW);
        let reader = response.extensions_mut().remove::<AllowOrigin>();
        response = error.response(Family::of(&path));
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
