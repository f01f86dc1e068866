//! Whether an answer to a request for a range is one.

use std::ops::Range;

use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
};
use reqwest::{StatusCode, Url};

/// What an answer turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ranged {
    /// The bytes that were asked for follow; of the file, this is the tag, if it has one.
    Bytes(Option<String>),
    /// The file has another length than was stated.
    OtherSize(u64),
    /// Something else, and what.
    Wrong(String),
}

/// Judges status and headers of the answer to a request for `range` of a file of `size` bytes.
pub(crate) fn ranged(
    status: StatusCode,
    headers: &HeaderMap,
    range: &Range<u64>,
    size: u64,
) -> Ranged {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let wrong = |reason: String| Ranged::Wrong(reason);
    if is_encoded(headers) {
        return wrong("its answer is compressed, which was not asked for".to_owned());
    }
    if text(CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("text/html")) {
        return wrong("its answer is a page (text/html), not the file".to_owned());
    }
    let length = text(CONTENT_LENGTH).map(|length| length.trim().parse::<u64>());
    let Ok(length) = length.transpose() else {
        return wrong("the length of its answer is not a number".to_owned());
    };
    if status == StatusCode::PARTIAL_CONTENT {
        let Some((found, total)) = text(CONTENT_RANGE).and_then(content_range) else {
            return wrong("its answer does not say which bytes it has (Content-Range)".to_owned());
        };
        if let Some(total) = total.filter(|total| *total != size) {
            return Ranged::OtherSize(total);
        }
        if found != *range {
            return wrong(format!(
                "it answered with bytes {}-{} instead of {}-{}",
                found.start,
                found.end.saturating_sub(1),
                range.start,
                range.end - 1
            ));
        }
        if length.is_some_and(|length| length != range.end - range.start) {
            return wrong("its answer has another length than its range".to_owned());
        }
        return Ranged::Bytes(tag(headers));
    }
    // The whole file is a range, too.
    match length {
        Some(length) if length != size => Ranged::OtherSize(length),
        _ if range.start > 0 => wrong("it ignores ranges (status 200 instead of 206)".to_owned()),
        Some(_) if range.end == size => Ranged::Bytes(tag(headers)),
        Some(_) => wrong("it ignores ranges (status 200 instead of 206)".to_owned()),
        None if range.end == size => Ranged::Bytes(tag(headers)),
        None => wrong("it ignores ranges, and does not say how long its answer is".to_owned()),
    }
}

/// Whether a body is encoded in some way.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A tag that changes whenever a byte does.
fn tag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    (!tag.starts_with("W/") && tag.len() <= 200).then(|| tag.to_owned())
}

/// `bytes 0-9/100` or `bytes 0-9/*`.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, last) = range.trim().split_once('-')?;
    let (start, last): (u64, u64) = (start.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (start <= last).then(|| Some((start..last.checked_add(1)?, total)))?
}

/// The address of `Bearer realm="...",service="...",scope="..."`, asked for at `from`.
pub(crate) fn realm(challenge: &str, from: &Url) -> Option<Url> {
    let (kind, rest) = challenge.trim().split_once(' ')?;
    if !kind.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let part = |name: &str| {
        let at = rest.find(&format!("{name}=\""))? + name.len() + 2;
        rest[at..].split('"').next()
    };
    let mut realm = from.join(part("realm")?).ok()?;
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = part("service") {
            query.append_pair("service", service);
        }
        for scope in part("scope").into_iter().flat_map(str::split_whitespace) {
            query.append_pair("scope", scope);
        }
    }
    Some(realm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn judged(status: u16, list: &[(&'static str, &str)], range: Range<u64>) -> Ranged {
        ranged(StatusCode::from_u16(status).unwrap(), &headers(list), &range, 100)
    }

    #[test]
    fn only_the_bytes_asked_for_will_do() {
        let bytes = |tag: Option<&str>| Ranged::Bytes(tag.map(str::to_owned));
        let range = ("content-range", "bytes 10-19/100");
        assert_eq!(judged(206, &[range, ("content-length", "10")], 10..20), bytes(None));
        assert_eq!(judged(206, &[range, ("etag", "\"a\"")], 10..20), bytes(Some("\"a\"")));
        assert_eq!(judged(206, &[range, ("etag", "W/\"a\"")], 10..20), bytes(None));
        assert_eq!(judged(206, &[("content-range", "bytes 10-19/*")], 10..20), bytes(None));
        assert_eq!(judged(200, &[("content-length", "100")], 0..100), bytes(None));
        assert_eq!(judged(200, &[], 0..100), bytes(None), "chunked");
        assert_eq!(
            judged(206, &[("content-range", "bytes 10-19/99")], 10..20),
            Ranged::OtherSize(99)
        );
        assert_eq!(judged(200, &[("content-length", "7")], 0..100), Ranged::OtherSize(7));
        for (status, list) in [
            (200, vec![("content-length", "100")]),
            (200, vec![]),
            (206, vec![]),
            (206, vec![("content-range", "bytes 0-9/100")]),
            (206, vec![("content-range", "bytes 10-29/100")]),
            (206, vec![("content-range", "bytes 19-10/100")]),
            (206, vec![("content-range", "bytes 10-18446744073709551615/100")]),
            (206, vec![range, ("content-length", "11")]),
            (206, vec![range, ("content-length", "x")]),
            (206, vec![range, ("content-encoding", "gzip")]),
            (206, vec![range, ("content-type", "text/html; charset=utf-8")]),
        ] {
            assert!(matches!(judged(status, &list, 10..20), Ranged::Wrong(_)), "{status} {list:?}");
        }
    }

    #[test]
    fn a_realm_gets_what_it_asks_for() {
        let from = Url::parse("https://a.org/v2/x").unwrap();
        let challenge = r#"Bearer realm="https://b.org/token",service="a",scope="pull:x push:y""#;
        assert_eq!(
            realm(challenge, &from).unwrap().as_str(),
            "https://b.org/token?service=a&scope=pull%3Ax&scope=push%3Ay"
        );
        assert_eq!(realm("Basic realm=\"x\"", &from), None);
    }

    proptest! {
        #[test]
        fn any_header_is_judged(text in "\\PC{0,40}|bytes [0-9]{1,21}-[0-9]{1,21}/[0-9*]{1,21}") {
            let _ = content_range(&text);
            let _ = realm(&text, &Url::parse("https://a.org/").unwrap());
        }
    }
}
