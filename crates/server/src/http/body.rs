//! Bodies of requests: bounded in size, time and depth, then JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// How long a client may take to send its body.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(30);
/// A body over its limit is read to this many times the limit before it is refused.
const DRAIN_FACTOR: usize = 4;
/// How many arrays and objects may contain each other.
pub(crate) const DEPTH_MAX: usize = 64;

/// The whole body, of at most `limit` bytes.
///
/// # Errors
/// 413, 408, and 400 for a body that ends early.
pub(crate) async fn read(mut body: Body, limit: usize) -> ApiResult<Vec<u8>> {
    let too_large = || {
        let message = format!("the body has more than {limit} bytes (--max-body)");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = http_body::Body::size_hint(&body).lower();
    // Many clients read no answer before they have sent all; some of what is too large is read for
    // them and thrown away.
    let drained = limit.saturating_mul(DRAIN_FACTOR);
    if announced > drained as u64 {
        return Err(too_large());
    }
    let reading = async {
        let mut length = 0_usize;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                ApiError::invalid("the body ended early, or its chunks are malformed")
            })?;
            if let Ok(data) = frame.into_data() {
                length = length.saturating_add(data.len());
                if length > drained {
                    return Err(too_large());
                }
                if length > limit || announced > limit as u64 {
                    bytes = Vec::new();
                } else {
                    bytes.extend_from_slice(&data);
                }
            }
        }
        if length > limit { Err(too_large()) } else { Ok(bytes) }
    };
    tokio::time::timeout(BODY_TIME, reading).await.unwrap_or_else(|_| {
        let message = format!("the body was not complete after {} s", BODY_TIME.as_secs());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

/// The JSON object that a body is.
///
/// # Errors
/// 400 for anything else.
pub(crate) fn object(bytes: &[u8]) -> ApiResult<Map<String, Value>> {
    if depth(bytes) > DEPTH_MAX {
        let message = format!("the JSON is nested more than {DEPTH_MAX} levels deep");
        return Err(ApiError::invalid(message));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
        Err(error) => Err(ApiError::invalid(format!("the body is not valid JSON: {error}"))),
    }
}

/// A body's fields as a type; what the type does not know is ignored.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn typed<T: DeserializeOwned>(object: &Map<String, Value>) -> ApiResult<T> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." {
            ApiError::invalid(inner.to_string())
        } else {
            ApiError::field(&path, format!("`{path}`: {inner}"))
        }
    })
}

/// How deep arrays and objects are nested, strings apart. Malformed text may give any number.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert_eq!(depth(br#"{"a": [1, {"b": "[[[\"[["}]}"#), 3);
        assert_eq!(depth(b"]]]]"), 0);
        let deep = [vec![b'['; 65], vec![b']'; 65]].concat();
        assert!(object(&deep).unwrap_err().message.contains("64 levels"));
    }

    #[test]
    fn a_wrong_field_is_named() {
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            #[expect(dead_code)]
            number: Option<f64>,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[expect(dead_code)]
            inner: Vec<Inner>,
        }
        let object = object(br#"{"inner": [{"number": 1}, {"number": "x"}]}"#).unwrap();
        let error = typed::<Outer>(&object).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("inner[1].number"));
    }

    #[tokio::test]
    async fn a_body_has_a_limit() {
        let read = |bytes: usize| read(Body::from(vec![b'a'; bytes]), 10);
        assert_eq!(read(10).await.unwrap().len(), 10);
        assert_eq!(read(11).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_object_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Err(error) = object(&bytes) {
                prop_assert_eq!(error.status, StatusCode::BAD_REQUEST);
            }
        }
    }
}
