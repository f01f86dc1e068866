//! Which pages may ask, and by which names this server may be called.
//!
//! A browser sends requests for any page that it shows. Two rules keep foreign pages out: an
//! `Origin` that is not on the list is refused, whatever the method and the content type are; and
//! on a loopback address, a `Host` that is a foreign name is refused, since a name that resolves to
//! 127.0.0.1 makes a foreign page look like one of ours (DNS rebinding).

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::error::{ApiError, ApiResult};

/// Origins that need no flag, as with Ollama: pages and programs of this machine.
const SCHEMES: [&str; 5] = ["app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"];
const LOCAL: [&str; 4] = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];

/// The rules of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// `https://example.org`, with `*` for any text; `*` alone is everybody.
    pub(crate) allowed: Vec<String>,
    /// Listening on loopback addresses only.
    pub(crate) loopback: bool,
}

impl Origins {
    /// Whether a request may come from where it says; gives the origin to allow in the answer.
    ///
    /// # Errors
    /// 403 for a foreign origin or host.
    pub(crate) fn check(&self, headers: &HeaderMap) -> ApiResult<Option<HeaderValue>> {
        let text =
            |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        let host = text(header::HOST).unwrap_or_default();
        let refused = |message: String| Err(ApiError::new(StatusCode::FORBIDDEN, message));
        if self.loopback && !self.is_own_name(name_of(host)) {
            return refused(
                "the Host header names another machine; --cors-origins allows a name".to_owned(),
            );
        }
        let Some(origin) = text(header::ORIGIN) else { return Ok(None) };
        let same = origin.split_once("://").is_some_and(|(_, rest)| rest == host);
        if same || is_local(origin) || self.allowed.iter().any(|rule| fits(rule, origin)) {
            return Ok(headers.get(header::ORIGIN).cloned());
        }
        refused("this origin may not ask here; --cors-origins allows it".to_owned())
    }

    fn is_own_name(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        let address = lower.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let suffixes = [".localhost", ".local", ".internal"];
        let listed = |rule: &String| {
            rule.as_str() == "*"
                || rule.split_once("://").is_some_and(|(_, host)| fits(name_of(host), &lower))
        };
        lower.is_empty()
            || lower == "localhost"
            || address.is_ok_and(|address| is_near(&address))
            || suffixes.iter().any(|suffix| lower.ends_with(suffix))
            || self.allowed.iter().any(listed)
    }
}

fn is_near(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local(),
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_local(origin: &str) -> bool {
    if SCHEMES.iter().any(|scheme| origin.starts_with(scheme)) {
        return true;
    }
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| LOCAL.contains(&name_of(rest)))
}

/// Whether a rule with `*` fits a text.
fn fits(rule: &str, text: &str) -> bool {
    let mut parts = rule.trim_end_matches('/').split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// The headers that let a page of this origin read the answer.
pub(crate) fn allow(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let yes = HeaderValue::from_static("true");
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    let exposed = "X-Request-Id, X-Stream-Id, Retry-After";
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
}

/// What a preflight is told.
pub(crate) fn preflight(asked: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let methods = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let asked = asked.cloned().unwrap_or(HeaderValue::from_static("authorization, content-type"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("43200"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origins: &Origins, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        origins.check(&headers).is_ok()
    }

    #[test]
    fn pages_of_this_machine_may_ask_and_foreign_ones_may_not() {
        let origins = Origins { allowed: Vec::new(), loopback: true };
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:1",
            "app://obsidian.md",
            "http://[::1]:80",
            "vscode-webview://x",
            "http://box.local:11434",
        ] {
            assert!(check(&origins, "box.local:11434", Some(origin)), "{origin}");
        }
        for origin in [
            "https://example.org",
            "null",
            "http://localhost.example.org",
            "http://127.0.0.1.evil.org",
        ] {
            assert!(!check(&origins, "localhost:11434", Some(origin)), "{origin}");
        }
        let open = Origins { allowed: vec!["https://*.example.org".to_owned()], loopback: true };
        assert!(check(&open, "localhost", Some("https://a.example.org")));
        assert!(!check(&open, "localhost", Some("https://example.com")));
        assert!(check(&open, "www.example.org", None), "its host is one of ours, then");
    }

    #[test]
    fn a_foreign_host_is_refused_on_loopback() {
        let origins = Origins { allowed: Vec::new(), loopback: true };
        for host in [
            "localhost:11434",
            "127.0.0.1",
            "[::1]:8080",
            "a.localhost",
            "192.168.1.2:1",
            "LOCALHOST",
        ] {
            assert!(check(&origins, host, None), "{host}");
        }
        for host in ["example.org", "example.org:11434", "8.8.8.8", "localhost.example.org"] {
            assert!(!check(&origins, host, None), "{host}");
        }
        assert!(
            check(&Origins::default(), "example.org", None),
            "names of a public server are its own"
        );
    }

    #[test]
    fn rules_may_have_stars() {
        assert!(fits("*", "anything") && fits("a*c", "abbc") && fits("a*b*c", "axbyc"));
        assert!(!fits("a*c", "a") && !fits("abc", "abcd") && !fits("ab*bc", "abc"));
    }
}
