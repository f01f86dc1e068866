//! Keys: who may ask, and how much.
//!
//! A key file has one key a line, `key` or `name:key`, then optional limits: `team:s3cret rpm=60
//! tpm=20000` allows 60 requests and 20 000 tokens a minute. In place of a key there may be
//! `sha256:` and the hexadecimal hash of one, as `printf %s KEY | sha256sum` prints it: keys that
//! have enough entropy need no slower hash. In memory there are hashes alone, and comparing takes
//! the same time for any key.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{ApiError, ApiResult};

type Hash = [u8; 32];

/// All keys; without any, everybody may ask.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: String,
    hash: Hash,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// What a minute allows, refilled evenly.
#[derive(Debug)]
struct Bucket {
    per_minute: f64,
    /// What is left, and when that was true. Less than nothing: tokens are counted afterwards.
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(per_minute: f64) -> Self {
        Self { per_minute, state: Mutex::new((per_minute, Instant::now())) }
    }

    /// Takes `count`; without having it (`now`), it is an error: the seconds until then.
    fn take(&self, count: f64, needed: f64) -> Result<(), f64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let refilled = now.duration_since(state.1).as_secs_f64() * self.per_minute / 60.0;
        let left = (state.0 + refilled).min(self.per_minute);
        if left < needed {
            *state = (left, now);
            return Err((needed - left) * 60.0 / self.per_minute);
        }
        *state = (left - count, now);
        Ok(())
    }
}

/// Who asks: the number of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(usize);

impl Keys {
    /// Keys given one by one, and the text of a key file.
    ///
    /// # Errors
    /// What is wrong with which line; the key is not repeated.
    pub fn new(given: &[String], file: Option<&str>) -> Result<Self, String> {
        let mut keys = Vec::new();
        for key in given.iter().filter(|key| !key.is_empty()) {
            let name = format!("key{}", keys.len() + 1);
            keys.push(Key { name, hash: hash(key), requests: None, tokens: None });
        }
        for (i, line) in file.unwrap_or_default().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = parse(line, keys.len() + 1);
            keys.push(key.map_err(|what| format!("line {} of the key file: {what}", i + 1))?);
        }
        if keys.is_empty() && file.is_some() {
            return Err("there is no key in the key file".to_owned());
        }
        Ok(Self { keys })
    }

    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The name of a caller's key.
    pub(crate) fn name(&self, caller: Caller) -> &str {
        &self.keys[caller.0].name
    }

    /// Whether a request comes with a key, and one that has not used up its limits. Counts it.
    ///
    /// # Errors
    /// 401 without a key that fits, 429 beyond a limit.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> ApiResult<Option<Caller>> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let Some(given) = presented(headers) else {
            let message =
                "an API key is needed: send `Authorization: Bearer KEY` or `x-api-key: KEY`";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
        };
        let given = hash(given);
        let mut found = None;
        for (i, key) in self.keys.iter().enumerate() {
            if bool::from(key.hash.ct_eq(&given)) {
                found = Some(i);
            }
        }
        let Some(i) = found else {
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "Invalid API Key"));
        };
        let key = &self.keys[i];
        let requests = key.requests.as_ref().map_or(Ok(()), |bucket| bucket.take(1.0, 1.0));
        let tokens = key.tokens.as_ref().map_or(Ok(()), |bucket| bucket.take(0.0, 1.0));
        if let Err(seconds) = requests.and(tokens) {
            return Err(ApiError {
                retry_after: Some(seconds.ceil().max(1.0) as u32),
                ..ApiError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "this key has used up what it may use in a minute",
                )
            });
        }
        Ok(Some(Caller(i)))
    }

    /// Counts the tokens of an answer.
    pub(crate) fn charge(&self, caller: Caller, tokens: usize) {
        if let Some(bucket) = &self.keys[caller.0].tokens {
            let _ = bucket.take(tokens as f64, f64::NEG_INFINITY); // it may go below nothing
        }
    }
}

fn parse(line: &str, number: usize) -> Result<Key, String> {
    let mut words = line.split_whitespace();
    let key = words.next().unwrap_or_default();
    let (name, key) = match key.split_once(':') {
        Some(("sha256", _)) | None => (format!("key{number}"), key),
        Some((name, key)) => (name.to_owned(), key),
    };
    let hash = match key.strip_prefix("sha256:") {
        Some(digits) => unhex(digits).ok_or("sha256: is followed by 64 hexadecimal digits")?,
        None if key.is_empty() => return Err("the key is empty".to_owned()),
        None => hash(key),
    };
    let mut key = Key { name, hash, requests: None, tokens: None };
    for word in words {
        let limit = word.split_once('=').and_then(|(what, number)| {
            Some((what, number.parse().ok().filter(|number| *number >= 1.0)?))
        });
        match limit {
            Some(("rpm", limit)) => key.requests = Some(Bucket::new(limit)),
            Some(("tpm", limit)) => key.tokens = Some(Bucket::new(limit)),
            _ => return Err("limits are rpm=N or tpm=N, at least 1".to_owned()),
        }
    }
    Ok(key)
}

fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

fn unhex(digits: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// The key that a request shows: `Authorization: Bearer KEY`, in any case, or `X-Api-Key: KEY`.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| text("x-api-key").map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_key_is_shown_in_one_of_two_headers() {
        let keys = Keys::new(&["s3cret".to_owned()], None).unwrap();
        for (name, value) in [
            ("authorization", "Bearer s3cret"),
            ("authorization", "bearer  s3cret"),
            ("authorization", "BEARER s3cret"),
            ("x-api-key", "s3cret"),
        ] {
            assert!(keys.admit(&headers(name, value)).unwrap().is_some(), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Basic s3cret"),
            ("authorization", "Bearer s3cre"),
            ("authorization", "s3cret"),
            ("x-api-key", "S3cret"),
            ("x-other", "s3cret"),
        ] {
            let error = keys.admit(&headers(name, value)).unwrap_err();
            assert_eq!(error.status, StatusCode::UNAUTHORIZED, "{name}: {value}");
            assert!(!error.message.to_lowercase().contains("s3cre"), "{}", error.message);
        }
        assert!(Keys::default().admit(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_key_file_has_names_hashes_and_limits() {
        let digest: String = hash("two").iter().map(|byte| format!("{byte:02x}")).collect();
        let file = format!("# team\none\nb:sha256:{digest} rpm=1\n\nc:three tpm=100\n");
        let keys = Keys::new(&[], Some(&file)).unwrap();
        let admit = |key: &str| keys.admit(&headers("x-api-key", key));
        assert_eq!(keys.name(admit("one").unwrap().unwrap()), "key1");
        assert_eq!(keys.name(admit("two").unwrap().unwrap()), "b");
        let error = admit("two").unwrap_err();
        assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(error.retry_after.unwrap() <= 60);
        let caller = admit("three").unwrap().unwrap();
        keys.charge(caller, 200);
        assert_eq!(admit("three").unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        for wrong in ["", "# none", "a:", "a:sha256:12", "a:b rpm=0", "a:b often"] {
            assert!(Keys::new(&[], Some(wrong)).is_err(), "{wrong}");
        }
    }
}
