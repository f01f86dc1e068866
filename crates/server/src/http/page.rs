//! The page: files that are part of the program.
//!
//! A file `x.js` may have `x.js.br` and `x.js.gz` beside it, which go to browsers that accept them.
//! What is under `assets/` has a hash in its name and never changes. Scripts and styles come from
//! here alone, and nothing may be loaded from elsewhere.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::app::App;

#[derive(RustEmbed)]
#[folder = "page/"]
struct Files;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What llama-server's page asks for. A browser that has seen that page at this address keeps its
/// service worker, which would go on to show it; the one here removes that page and itself.
const OF_LLAMA_SERVER: [(&str, &str); 3] = [
    (
        "sw.js",
        "self.addEventListener('install', () => self.skipWaiting())
self.addEventListener('activate', (event) => event.waitUntil((async () => {
  for (const key of await caches.keys()) await caches.delete(key)
  await self.registration.unregister()
  for (const client of await self.clients.matchAll()) await client.navigate(client.url)
})()))
",
    ),
    (
        "manifest.webmanifest",
        r#"{"name":"cachalot","short_name":"cachalot","start_url":"./","display":"standalone",
"icons":[{"src":"./icon.svg","sizes":"any","type":"image/svg+xml"}]}
"#,
    ),
    ("_app/version.json", concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n")),
];

/// A file as it is, not packed.
fn plain(name: &str) -> Option<Cow<'static, [u8]>> {
    let own = OF_LLAMA_SERVER.iter().find(|(file, _)| *file == name);
    match own {
        Some((_, text)) => Some(Cow::Borrowed(text.as_bytes())),
        None => Files::get(name).map(|file| file.data),
    }
}

/// The content type by the end of a name.
fn media(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn name_of(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => "index.html",
        name => name,
    }
}

/// Whether a path is a file of the page.
pub(crate) fn is_asset(path: &str) -> bool {
    plain(name_of(path)).is_some()
}

/// Serves a file, or says that there is nothing.
pub(crate) async fn serve(State(app): State<Arc<App>>, request: Request) -> Response {
    let name = name_of(request.uri().path());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads || !app.config.page {
        return StatusCode::NOT_FOUND.into_response();
    }
    file(name, request.headers()).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    let plain = plain(name)?;
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let accepts = |coding: &str| {
        let codings = accepted.unwrap_or_default().split(',');
        codings.map(|part| part.trim().split(';').next()).any(|part| part == Some(coding))
    };
    let packed = [("br", "br"), ("gzip", "gz")].into_iter().find_map(|(coding, end)| {
        accepts(coding)
            .then(|| Files::get(&format!("{name}.{end}")))?
            .map(|file| (coding, file.data))
    });
    let (coding, file) = match packed {
        Some((coding, file)) => (Some(coding), file),
        None => (None, plain),
    };
    let mut response = Body::from(file).into_response();
    let out = response.headers_mut();
    let mut set = |name, value: &'static str| out.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, media(name));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::VARY, "Accept-Encoding");
    let for_ever = name.starts_with("assets/");
    set(
        header::CACHE_CONTROL,
        if for_ever { "public, max-age=31536000, immutable" } else { "no-cache" },
    );
    set(header::REFERRER_POLICY, "no-referrer");
    if let Some(coding) = coding {
        set(header::CONTENT_ENCODING, coding);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_greets_as_ollama_does() {
        let index = Files::get("index.html").unwrap();
        let text = String::from_utf8(index.data.into_owned()).unwrap();
        assert!(
            text.starts_with("<!doctype html>") && text.contains("Ollama is running"),
            "{text}"
        );
    }

    #[test]
    fn files_have_a_type_and_a_policy() {
        let response = file("index.html", &HeaderMap::new()).unwrap();
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(
            headers[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("script-src 'self'")
        );
        assert!(headers.get(header::CONTENT_ENCODING).is_none());
        assert!(file("../Cargo.toml", &HeaderMap::new()).is_none());
        assert_eq!(name_of("/"), "index.html");
    }
}
