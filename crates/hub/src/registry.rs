//! Ollama's registry, and others of its protocol: manifests, blobs and hashes of ranges.

use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION};

use crate::Error;
use crate::Sha256;
use crate::fileset::RemoteFile;
use crate::http::{self, Ask, Failure, Patience, Web, is_loopback};
use crate::library::Role;
use crate::manifest::{Layer, Manifest};
use crate::name::RegistryName;
use crate::transfer::Chunksum;

/// The only type that every such registry has; without it, or with `*/*`, some answer 400.
const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MANIFEST_MAX: u64 = 4 << 20;
const CHUNKSUMS_MAX: u64 = 16 << 20;
/// Smaller blobs have no ranges worth comparing.
const CHUNKSUMS_FROM: u64 = 64 << 20;

/// What a registry says of a model. The order of its parts is still the manifest's.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) revision: Sha256,
    pub(crate) models: Vec<RemoteFile>,
    pub(crate) companions: Vec<RemoteFile>,
}

/// Where the registry of this host is asked.
fn base(name: &RegistryName, insecure: bool) -> Result<Url, Error> {
    let http = http::parse(&format!("http://{}/", name.host))?;
    if is_loopback(&http) || name.plain || insecure {
        return Ok(http);
    }
    http::parse(&format!("https://{}/", name.host))
}

/// Asks for a manifest.
pub(crate) async fn describe(web: &Web, name: &RegistryName) -> Result<Described, Error> {
    let base = base(name, web.settings.insecure)?;
    let RegistryName { owner, model, tag, .. } = name;
    let path = |rest: &str| join(&base, &format!("v2/{owner}/{model}/{rest}"));
    let url = path(&format!("manifests/{tag}"))?;
    let ask = Ask::get(url.clone()).header(ACCEPT, MANIFEST_TYPE);
    let body = manifest(web, ask).await?;
    let manifest =
        Manifest::parse(&body).map_err(|reason| Error::Answer { url: url.to_string(), reason })?;
    let file = |layer: &Layer, role: Role| {
        let blob = path(&format!("blobs/sha256:{}", layer.digest))?;
        let sums = path(&format!("chunksums/sha256:{}", layer.digest))?;
        let sums = (layer.size >= CHUNKSUMS_FROM).then(|| sums.to_string());
        Ok(RemoteFile {
            name: format!("{role:?}").to_lowercase(),
            size: layer.size,
            sha256: Some(layer.digest),
            role,
            url: blob.to_string(),
            chunksums: sums,
        })
    };
    let models = manifest.models.iter().map(|layer| file(layer, Role::Model));
    let config = manifest.config.map(|layer| (Role::Config, layer));
    let mut companions: Vec<RemoteFile> = Vec::new();
    for (role, layer) in manifest.companions.iter().copied().chain(config) {
        // Of several licences, one name each.
        let mut companion: RemoteFile = file(&layer, role)?;
        let same = companions.iter().filter(|other| other.role == role).count();
        if same > 0 {
            companion.name = format!("{}-{}", companion.name, same + 1);
        }
        companions.push(companion);
    }
    Ok(Described {
        revision: Sha256::of(&body),
        models: models.collect::<Result<_, Error>>()?,
        companions,
    })
}

fn join(base: &Url, path: &str) -> Result<Url, Error> {
    base.join(path)
        .map_err(|error| Error::Refused { url: base.to_string(), reason: error.to_string() })
}

/// A manifest's bytes; with the token of the registry's realm, if it wants one.
async fn manifest(web: &Web, mut ask: Ask) -> Result<Vec<u8>, Error> {
    let mut patience = Patience::new(&web.settings);
    loop {
        let sent = web.send(&ask).await;
        let (reason, pause) = match sent {
            Ok(response)
                if response.status() == reqwest::StatusCode::UNAUTHORIZED
                    && !ask.headers.contains_key(AUTHORIZATION) =>
            {
                let token = web.registry_token(&response).await?;
                ask.headers.insert(AUTHORIZATION, token);
                continue;
            }
            Ok(_) => return Ok(web.text(&ask, MANIFEST_MAX).await?.0),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again { reason, pause }) => (reason, pause),
            Err(Failure::Expired) => ("it has expired".to_owned(), None),
        };
        patience.wait(ask.url.as_str(), reason, pause).await?;
    }
}

/// Hashes of the ranges of a file, if the registry has them for all of it.
pub(crate) async fn chunksums(web: &Web, file: &RemoteFile) -> Vec<Chunksum> {
    let Some(url) = file.chunksums.as_deref().and_then(|url| Url::parse(url).ok()) else {
        return Vec::new();
    };
    // One attempt: they are a help, and the file's own hash is compared in any case.
    match web.text_once(&Ask::get(url), CHUNKSUMS_MAX).await {
        Ok((body, _)) => parse_chunksums(&body, file.size).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Reads `DIGEST START-END` lines, `END` included, that follow each other through all of a file.
pub(crate) fn parse_chunksums(body: &[u8], size: u64) -> Option<Vec<Chunksum>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (mut sums, mut at) = (Vec::new(), 0);
    while let Some(digest) = words.next() {
        let hash: Sha256 = digest.parse().ok()?;
        let (start, last) = words.next()?.split_once('-')?;
        let (start, end) = (start.parse::<u64>().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
        if start != at || end <= start || end > size {
            return None;
        }
        sums.push(Chunksum { start, end, hash });
        at = end;
    }
    (at == size).then_some(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_have_to_follow_each_other() {
        let hash = Sha256::of(b"x");
        let line = |range: &str| format!("sha256:{hash} {range}\n");
        let parsed = |text: String, size| parse_chunksums(text.as_bytes(), size);
        let good = parsed(line("0-4") + &line("5-9"), 10).unwrap();
        assert_eq!(good[1], Chunksum { start: 5, end: 10, hash });
        for (text, size) in [
            (line("0-4"), 10),
            (line("0-4") + &line("6-9"), 10),
            (line("0-10"), 10),
            (line("4-0"), 10),
            (line("0-18446744073709551615"), 10),
            ("sha256:x 0-9".to_owned(), 10),
            (format!("sha256:{hash}"), 10),
        ] {
            assert_eq!(parsed(text.clone(), size), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_hashes_or_nothing(text in "[0-9a-f:\\- \n]{0,200}", size in any::<u64>()) {
            let _ = parse_chunksums(text.as_bytes(), size);
        }
    }
}
