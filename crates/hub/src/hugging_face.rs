//! Hugging Face and its mirrors: commits, listings of files, and where their bytes are.

use reqwest::header::{ETAG, HeaderMap, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::fileset::RemoteFile;
use crate::http::{self, Ask, Failure, Patience, Web};
use crate::library::{Role, is_file_name};
use crate::name::HuggingFaceName;
use crate::quant::{self, Choice, Listed};
use crate::transfer::journal::SIZE_MAX;
use crate::{Error, Name, Sha256};

const INFO_MAX: u64 = 64 << 20;
const PAGE_MAX: u64 = 16 << 20;
/// A page has up to 1000 files.
const PAGES_MAX: usize = 200;

/// A repository at one commit, and what can be chosen in it.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) commit: String,
    pub(crate) choices: Vec<Choice>,
}

/// An address of the endpoint, by segments: each is escaped.
fn address(web: &Web, segments: &[&str]) -> Result<Url, Error> {
    let refused = || Error::Refused {
        url: web.settings.endpoint.clone(),
        reason: "HF_ENDPOINT is not a web address".to_owned(),
    };
    let mut url = http::parse(&web.settings.endpoint).map_err(|_| refused())?;
    url.path_segments_mut().map_err(|()| refused())?.pop_if_empty().extend(segments);
    Ok(url)
}

/// Asks what a repository has.
pub(crate) async fn repository(web: &Web, name: &HuggingFaceName) -> Result<Repository, Error> {
    let commit = commit(web, name).await?;
    let files = listing(web, name, &commit).await?;
    let mut choices = quant::choices(&files);
    if choices.is_empty() {
        let url = address(web, &[&name.owner, &name.repository])?.to_string();
        let reason = "it has no GGUF files: cachalot runs no other format. A repository whose name \
                      ends in -GGUF usually has them";
        return Err(Error::Answer { url, reason: reason.to_owned() });
    }
    for choice in &mut choices {
        choice.files.truncate(quant_parts_max());
    }
    Ok(Repository { commit, choices })
}

/// More parts than any set has.
fn quant_parts_max() -> usize {
    4096
}

/// The commit of a revision.
async fn commit(web: &Web, name: &HuggingFaceName) -> Result<String, Error> {
    let revision = name.revision.as_deref().unwrap_or("main");
    let models = ["api", "models", &name.owner, &name.repository];
    let url = address(web, &[&models[..], &["revision", revision]].concat())?;
    let (body, _) = web.text(&Ask::get(url.clone()), INFO_MAX).await?;
    parse_commit(&body)
        .ok_or_else(|| Error::Answer { url: url.to_string(), reason: no_json("commit") })
}

fn no_json(what: &str) -> String {
    format!("its answer names no {what}")
}

fn parse_commit(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Info {
        sha: String,
    }
    let info: Info = serde_json::from_slice(body).ok()?;
    let is_hex = info.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && (7..=64).contains(&info.sha.len())).then_some(info.sha)
}

/// All files of a commit.
async fn listing(web: &Web, name: &HuggingFaceName, commit: &str) -> Result<Vec<Listed>, Error> {
    let models = ["api", "models", &name.owner, &name.repository];
    let mut url = address(web, &[&models[..], &["tree", commit]].concat())?;
    url.set_query(Some("recursive=true"));
    let mut files = Vec::new();
    for _ in 0..PAGES_MAX {
        let (body, headers) = web.text(&Ask::get(url.clone()), PAGE_MAX).await?;
        let page = parse_listing(&body)
            .map_err(|reason| Error::Answer { url: url.to_string(), reason })?;
        files.extend(page);
        let Some(next) = next_page(&headers, &url) else { return Ok(files) };
        if next == url {
            break;
        }
        url = next;
    }
    let reason = "its listing of files does not end".to_owned();
    Err(Error::Answer { url: url.to_string(), reason })
}

/// The files on a page of a listing, with safe paths and sizes that can be.
///
/// # Errors
/// A reason for what is not a listing, or has a path that leads elsewhere.
pub(crate) fn parse_listing(body: &[u8]) -> Result<Vec<Listed>, String> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "type")]
        kind: String,
        path: String,
        #[serde(default)]
        size: u64,
        #[serde(default)]
        lfs: Option<Lfs>,
    }
    #[derive(Deserialize)]
    struct Lfs {
        oid: String,
        size: u64,
    }
    let items: Vec<Item> = serde_json::from_slice(body)
        .map_err(|error| format!("its answer is not a list of files ({error})"))?;
    let mut files = Vec::new();
    for item in items.into_iter().filter(|item| item.kind == "file") {
        if !item.path.to_ascii_lowercase().ends_with(".gguf") {
            continue;
        }
        if item.path.len() > 1000 || !item.path.split('/').all(is_file_name) {
            return Err(format!("it has a file with the path `{}`", item.path.escape_debug()));
        }
        let size = item.lfs.as_ref().map_or(item.size, |lfs| lfs.size);
        if size > SIZE_MAX {
            return Err(format!("it has a file of {size} bytes, `{}`", item.path));
        }
        let sha256 = match &item.lfs {
            None => None,
            Some(lfs) => Some(lfs.oid.parse().map_err(|_| {
                let oid: String = lfs.oid.chars().take(80).collect();
                format!(
                    "`{}` has the hash `{}`, which is not a SHA-256",
                    item.path,
                    oid.escape_debug()
                )
            })?),
        };
        files.push(Listed { path: item.path, size, sha256 });
    }
    Ok(files)
}

/// The next page, always at the host that gave this one: mirrors repeat what the original says.
fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let next = links.flat_map(|links| links.split(',')).find_map(|link| {
        let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|part| {
            part.trim().trim_start_matches("rel=").trim_matches('"').eq_ignore_ascii_case("next")
                && part.trim().starts_with("rel=")
        });
        is_next.then(|| address.to_owned())
    })?;
    let next = from.join(&next).ok()?;
    let mut url = from.clone();
    url.set_query(next.query());
    Some(url)
}

/// The files of a choice.
pub(crate) async fn files(
    web: &Web,
    name: &HuggingFaceName,
    commit: &str,
    choice: &Choice,
) -> Result<Vec<RemoteFile>, Error> {
    let mut files = Vec::new();
    for file in &choice.files {
        let path: Vec<&str> = file.path.split('/').collect();
        let repository = [&*name.owner, &*name.repository, "resolve", commit];
        let url = address(web, &[&repository[..], &path[..]].concat())?;
        let mut found = RemoteFile {
            name: path.last().copied().unwrap_or_default().to_owned(),
            size: file.size,
            sha256: file.sha256,
            role: Role::Model,
            url: url.to_string(),
            chunksums: None,
        };
        if found.sha256.is_none() {
            ask_for_hash(web, &url, &mut found).await?;
        }
        files.push(found);
    }
    Ok(files)
}

/// What the redirect of a large file says of it; the address that it leads to says less.
async fn ask_for_hash(web: &Web, url: &Url, file: &mut RemoteFile) -> Result<(), Error> {
    let ask = Ask { method: Method::HEAD, stay: true, ..Ask::get(url.clone()) };
    let mut patience = Patience::new(&web.settings);
    let headers = loop {
        match web.send(&ask).await {
            Ok(response)
                if response.status().is_success() || response.status().is_redirection() =>
            {
                break response.headers().clone();
            }
            Ok(response) => match web.refusal(&ask, response.status(), response.headers(), "") {
                Failure::Final(error) => return Err(error),
                Failure::Again { reason, pause } => {
                    patience.wait(url.as_str(), reason, pause).await?;
                }
                Failure::Expired => return Ok(()),
            },
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again { reason, pause }) => {
                patience.wait(url.as_str(), reason, pause).await?;
            }
            Err(Failure::Expired) => return Ok(()),
        }
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = text("x-linked-etag").or_else(|| {
        // Without a redirect this is the service's own answer, whose tag is the hash or git's.
        headers.get(ETAG).and_then(|value| value.to_str().ok())
    });
    file.sha256 = tag.and_then(|tag| tag.trim_start_matches("W/").trim_matches('"').parse().ok());
    if let Some(size) = text("x-linked-size").and_then(|size| size.parse::<u64>().ok())
        && size <= SIZE_MAX
    {
        file.size = size;
    }
    Ok(())
}

/// The choice that a name means.
///
/// # Errors
/// [`Error::Choose`], [`Error::NoQuant`], or [`Error::Answer`] if parts of it are missing.
pub(crate) fn choose<'a>(
    name: &Name,
    quant: Option<&str>,
    repository: &'a Repository,
) -> Result<&'a Choice, Error> {
    let labels = || repository.choices.iter().map(|choice| choice.label.clone()).collect();
    let chosen = match (quant, &repository.choices[..]) {
        (None, [only]) => only,
        (None, _) => return Err(Error::Choose { name: name.to_string(), choices: labels() }),
        (Some(quant), choices) => quant::pick(choices, quant).ok_or_else(|| Error::NoQuant {
            name: name.to_string(),
            quant: quant.to_owned(),
            choices: labels(),
        })?,
    };
    if !chosen.missing.is_empty() {
        let numbers: Vec<_> = chosen.missing.iter().take(9).map(u32::to_string).collect();
        let reason = format!(
            "{} is not complete there: of its {} parts, these are missing: {}",
            chosen.label,
            chosen.missing.len() + chosen.files.len(),
            numbers.join(", ")
        );
        return Err(Error::Answer { url: name.to_string(), reason });
    }
    Ok(chosen)
}

/// What pins the files of a choice.
pub(crate) fn revision(commit: &str, files: &[RemoteFile]) -> String {
    let hashes: String =
        files.iter().map(|file| format!("{:?} {}\n", file.sha256, file.size)).collect();
    format!("{}{}", &commit[..commit.len().min(6)], &Sha256::of(hashes.as_bytes()).to_string()[..6])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listings_are_checked() {
        let hash = "a".repeat(64);
        let item = |path: &str, lfs: &str| {
            format!(r#"[{{"type":"file","path":"{path}","size":5,"oid":"x"{lfs}}}]"#)
        };
        let lfs = format!(r#","lfs":{{"oid":"{hash}","size":7,"pointerSize":1}}"#);
        let found = parse_listing(item("Q4/a.gguf", &lfs).as_bytes()).unwrap();
        assert_eq!((found[0].size, found[0].sha256), (7, hash.parse().ok()));
        let found = parse_listing(item("a.gguf", "").as_bytes()).unwrap();
        assert_eq!((found[0].size, found[0].sha256), (5, None));
        assert_eq!(parse_listing(item("../a.txt", "").as_bytes()).unwrap(), [], "not a model");
        for (path, lfs) in [
            ("../a.gguf", ""),
            ("a//b.gguf", ""),
            ("/etc/a.gguf", ""),
            (".a.gguf", ""),
            ("a.gguf", r#","lfs":{"oid":"zz","size":7}"#),
            ("a.gguf", r#","lfs":{"oid":"","size":7}"#),
            ("a.gguf", &format!(r#","lfs":{{"oid":"{hash}","size":18446744073709551615}}"#)),
            ("a.gguf", &format!(r#","lfs":{{"oid":"{hash}","size":-7}}"#)),
        ] {
            assert!(parse_listing(item(path, lfs).as_bytes()).is_err(), "{path} {lfs}");
        }
        assert!(parse_listing(b"<html>").is_err());
    }

    #[test]
    fn pages_stay_with_the_mirror() {
        let from =
            Url::parse("https://mirror.org/hf/api/models/a/b/tree/c?recursive=true").unwrap();
        let headers = |link: &str| [(LINK, link.parse().unwrap())].into_iter().collect();
        let link =
            "<https://huggingface.co/api/models/a/b/tree/c?recursive=true&cursor=x>; rel=\"next\"";
        assert_eq!(
            next_page(&headers(link), &from).unwrap().as_str(),
            "https://mirror.org/hf/api/models/a/b/tree/c?recursive=true&cursor=x"
        );
        assert_eq!(next_page(&headers("<https://x/>; rel=\"prev\""), &from), None);
        assert_eq!(next_page(&headers("next"), &from), None);
    }

    #[test]
    fn commits_are_hexadecimal() {
        let sha = |sha: &str| parse_commit(format!(r#"{{"sha":"{sha}"}}"#).as_bytes());
        assert!(sha(&"0a".repeat(20)).is_some());
        assert!(sha("../../main").is_none() && sha("").is_none() && parse_commit(b"x").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_listing_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse_listing(&bytes);
            let _ = parse_commit(&bytes);
        }
    }
}
