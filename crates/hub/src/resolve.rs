//! What a service offers under a name: exact files, sizes and hashes, and the headers of the parts.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cachalot_gguf::{Error as GgufError, Gguf};
use reqwest::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};

use crate::fileset::{FileSet, RemoteFile, in_split_order};
use crate::http::{self, Failure, Patience, Web};
use crate::library::{Role, part_name, stem};
use crate::transfer::journal;
use crate::transfer::source::{Reader, Source, Trouble};
use crate::{Error, Name, Sha256, hugging_face, registry};

/// The first request for a header: enough for one without a vocabulary.
const HEADER_FIRST: u64 = 512 << 10;
/// The largest headers known, with a vocabulary of 2.6 * 10^5 tokens, have 20 MB.
const HEADER_MAX: u64 = 256 << 20;
/// Headers that are fetched at a time.
const HEADERS_AT_A_TIME: usize = 8;

/// A model as a service offers it, before anything is kept.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its files.
    pub set: FileSet,
    /// The headers of its parts, in order, with the bytes that they are.
    pub headers: Vec<Header>,
}

/// The header of a part.
#[derive(Clone, Debug)]
pub struct Header {
    /// The beginning of the file.
    pub bytes: Vec<u8>,
    /// What it says.
    pub gguf: Gguf,
}

pub(crate) async fn resolve(web: &Web, name: &Name) -> Result<Offer, Error> {
    match name {
        Name::Registry(registry_name) => {
            let described = registry::describe(web, registry_name).await?;
            let headers = headers(web, &described.models).await?;
            let count = headers.len();
            let parts: Vec<(u64, (RemoteFile, Header))> = described
                .models
                .into_iter()
                .zip(headers)
                .map(|(file, header)| {
                    let number = header.gguf.metadata.u64("split.no");
                    let number = number.unwrap_or(if count == 1 { 0 } else { u64::MAX });
                    // One file of a set is not a whole model, but the first part says so better.
                    (if count == 1 { 0 } else { number }, (file, header))
                })
                .collect();
            let parts = in_split_order(parts)
                .map_err(|reason| Error::Answer { url: name.to_string(), reason })?;
            let stem = stem(name);
            let mut set = FileSet {
                name: name.clone(),
                revision: described.revision.to_string(),
                files: Vec::new(),
            };
            let mut headers = Vec::new();
            for (index, (file, header)) in parts.into_iter().enumerate() {
                set.files.push(RemoteFile { name: part_name(&stem, index, count), ..file });
                headers.push(header);
            }
            set.files.extend(described.companions);
            checked(Offer { set, headers })
        }
        Name::HuggingFace(repository_name) => {
            let repository = hugging_face::repository(web, repository_name).await?;
            let quant = repository_name.quant.as_deref();
            let choice = hugging_face::choose(name, quant, &repository)?;
            let files =
                hugging_face::files(web, repository_name, &repository.commit, choice).await?;
            let revision = hugging_face::revision(&repository.commit, &files);
            let headers = headers(web, &files).await?;
            let name = name.clone().with_quant(&choice.label);
            checked(Offer { set: FileSet { name, revision, files }, headers })
        }
        Name::Url(url) => {
            let (files, tags) = from_url(web, url).await?;
            let headers = headers(web, &files).await?;
            // There is no hash that tells one version of these files from another, so that a pull
            // only continues where nothing else has changed, either.
            let mut described = String::new();
            for ((file, tag), header) in files.iter().zip(&tags).zip(&headers) {
                let begin = Sha256::of(&header.bytes);
                described += &format!("{} {} {tag:?} {begin}\n", file.url, file.size);
            }
            let revision = Sha256::of(described.as_bytes()).to_string();
            checked(Offer { set: FileSet { name: name.clone(), revision, files }, headers })
        }
    }
}

/// Sizes whose sum is one, and parts that are those of one model.
fn checked(offer: Offer) -> Result<Offer, Error> {
    let url = offer.set.name.to_string();
    let sum = offer.set.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
    if sum.is_none_or(|sum| sum > journal::SIZE_MAX) {
        return Err(Error::Answer { url, reason: "the sizes of its files overflow".to_owned() });
    }
    let parts = offer.set.parts().zip(&offer.headers);
    let parts = parts.map(|(file, header)| (PathBuf::from(&file.name), header.gguf.clone()));
    cachalot_gguf::split::Set::merge(parts.collect())
        .map_err(|source| Error::Gguf { file: url, source })?;
    Ok(offer)
}

/// A file at any address, or all parts of the set that it is one of, and the tag or else the time
/// of each.
async fn from_url(web: &Web, url: &str) -> Result<(Vec<RemoteFile>, Vec<Option<String>>), Error> {
    let first = http::parse(url)?;
    let path = PathBuf::from(first.path());
    let paths = cachalot_gguf::split::part_paths(&path);
    if paths.len() > 1000 {
        let reason = "its name says that the model has more than 1000 parts".to_owned();
        return Err(Error::Refused { url: url.to_owned(), reason });
    }
    let (mut files, mut tags) = (Vec::new(), Vec::new());
    for path in paths {
        let mut url = first.clone();
        url.set_path(&path.to_string_lossy());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.replace('%', "-");
        if !crate::library::is_file_name(&name) {
            let reason = "its last part is not a valid file name".to_owned();
            return Err(Error::Refused { url: url.to_string(), reason });
        }
        let (size, tag) = size_of(web, &url).await?;
        tags.push(tag);
        let (url, role) = (url.to_string(), Role::Model);
        files.push(RemoteFile { name, size, sha256: None, role, url, chunksums: None });
    }
    Ok((files, tags))
}

async fn size_of(web: &Web, url: &reqwest::Url) -> Result<(u64, Option<String>), Error> {
    let ask = http::Ask { method: reqwest::Method::HEAD, ..http::Ask::get(url.clone()) };
    let mut patience = Patience::new(&web.settings);
    loop {
        let (reason, pause) = match web.send(&ask).await {
            Ok(response) if response.status().is_success() => {
                let text = |name| response.headers().get(name)?.to_str().ok();
                let tag = text(ETAG).or_else(|| text(LAST_MODIFIED)).map(str::to_owned);
                let length = text(CONTENT_LENGTH).and_then(|value| value.parse::<u64>().ok());
                let length = length.map(|length| (length, tag));
                return length.filter(|(length, _)| *length <= journal::SIZE_MAX).ok_or_else(
                    || {
                        let reason = "its answer does not say how long the file is".to_owned();
                        Error::Answer { url: url.to_string(), reason }
                    },
                );
            }
            Ok(response) => match web.refusal(&ask, response.status(), response.headers(), "") {
                Failure::Final(error) => return Err(error),
                Failure::Again { reason, pause } => (reason, pause),
                Failure::Expired => ("it has expired".to_owned(), None),
            },
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again { reason, pause }) => (reason, pause),
            Err(Failure::Expired) => ("it has expired".to_owned(), None),
        };
        patience.wait(url.as_str(), reason, pause).await?;
    }
}

/// The headers of these files, some at a time.
async fn headers(web: &Web, files: &[RemoteFile]) -> Result<Vec<Header>, Error> {
    let mut headers = Vec::with_capacity(files.len());
    for group in files.chunks(HEADERS_AT_A_TIME) {
        let tasks: Vec<_> = group
            .iter()
            .map(|file| {
                let (web, file) = (web.clone(), file.clone());
                tokio::spawn(async move { header(&web, &file).await })
            })
            .collect();
        for task in tasks {
            let header = task.await.map_err(|error| Error::Io {
                path: PathBuf::from("headers"),
                source: io::Error::other(error),
            })?;
            headers.push(header?);
        }
    }
    Ok(headers)
}

/// Reads the beginning of a file, in steps that double, until its header is whole.
async fn header(web: &Web, file: &RemoteFile) -> Result<Header, Error> {
    let source = Source::new(file)?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut wanted = HEADER_FIRST;
    let mut patience = Patience::new(&web.settings);
    loop {
        let end = wanted.min(file.size);
        while (bytes.len() as u64) < end {
            let before = bytes.len();
            let range = before as u64..end;
            let failure = match more(web, &source, &range, &mut bytes).await {
                Ok(()) => continue,
                Err(Trouble::Changed) => Failure::again("the file changed meanwhile"),
                Err(Trouble::Failure(failure)) => failure,
            };
            if bytes.len() > before {
                patience.succeeded();
            }
            match failure {
                Failure::Final(error) => return Err(error),
                Failure::Again { reason, pause } => {
                    patience.wait(&file.url, reason, pause).await?;
                }
                Failure::Expired => {
                    let reason = "its signed address is not accepted".to_owned();
                    patience.wait(&file.url, reason, Some(Duration::ZERO)).await?;
                }
            }
        }
        match Gguf::parse(&bytes, file.size) {
            Ok(gguf) => return Ok(Header { bytes, gguf }),
            Err(GgufError::NeedMore { at_least }) if at_least <= HEADER_MAX && end < file.size => {
                wanted = at_least.max(2 * wanted);
            }
            Err(source) => return Err(Error::Gguf { file: file.url.clone(), source }),
        }
    }
}

async fn more(
    web: &Web,
    source: &Source,
    range: &std::ops::Range<u64>,
    bytes: &mut Vec<u8>,
) -> Result<(), Trouble> {
    let response = source.open(web, range, false).await?;
    let mut reader = Reader::new(response, web.settings.stall);
    while let Some(new) = reader.next().await? {
        let new: &[u8] = new.as_ref();
        if (bytes.len() + new.len()) as u64 > range.end {
            return Err(Failure::again("it sends more bytes than its answer said").into());
        }
        bytes.extend_from_slice(new);
    }
    if (bytes.len() as u64) < range.end {
        return Err(Failure::again("its connection ended early").into());
    }
    Ok(())
}
