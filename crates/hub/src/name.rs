//! Names of models: where each is published, and where the library keeps it.
//!
//! | written | means |
//! |---|---|
//! | `deepseek-r1:671b` | Ollama's registry, owner `library`; the tag is `latest` unless given |
//! | `ollama.com/owner/model:tag` | Ollama's registry |
//! | `host[:port]/owner/model[:tag]` | another registry that speaks its protocol |
//! | `owner/name[:quant]`, `hf.co/owner/name[:quant]` | Hugging Face; `name@revision` pins one |
//! | `https://...` | Hugging Face or a registry by their addresses, else the one file |
//!
//! Every part is checked, since parts become names of folders.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use crate::Error;
use crate::digest::Sha256;

/// The host of Ollama's registry.
pub(crate) const OLLAMA_HOST: &str = "registry.ollama.ai";
const OLLAMA_SITES: [&str; 3] = [OLLAMA_HOST, "ollama.com", "www.ollama.com"];
/// The host that stands for Hugging Face in names, whatever mirror is asked.
pub(crate) const HUGGING_FACE_HOST: &str = "huggingface.co";
const HUGGING_FACE_SITES: [&str; 3] = [HUGGING_FACE_HOST, "hf.co", "www.huggingface.co"];
/// The owner of models whose owner is not written.
const LIBRARY: &str = "library";
const LATEST: &str = "latest";
/// The longest host, and the longest of the other parts, that Ollama takes.
const HOST_MAX: usize = 350;
const PART_MAX: usize = 80;
/// The longest name of a repository.
const REPOSITORY_MAX: usize = 96;

/// Where a model is published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// In Ollama's registry, or another one of the same protocol.
    Registry(RegistryName),
    /// At Hugging Face or a mirror.
    HuggingFace(HuggingFaceName),
    /// One file, or one part of a split file, at any address.
    Url(String),
}

/// `host/owner/model:tag`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryName {
    /// Host, with its port if it is not the usual one.
    pub host: String,
    /// The owner, `library` for Ollama's own.
    pub owner: String,
    /// The model.
    pub model: String,
    /// Which variant of it.
    pub tag: String,
    /// `http://` was written.
    pub plain: bool,
}

/// `owner/repository:quant`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HuggingFaceName {
    /// The owner.
    pub owner: String,
    /// The repository.
    pub repository: String,
    /// A branch, tag or commit; `main` unless given.
    pub revision: Option<String>,
    /// A quantization, or the path of a file.
    pub quant: Option<String>,
}

impl Name {
    /// What the library files it under: host, owner, model, tag. Each part is a safe file name.
    pub fn key(&self) -> [String; 4] {
        match self {
            Self::Registry(name) => {
                [name.host.clone(), name.owner.clone(), name.model.clone(), name.tag.clone()]
            }
            Self::HuggingFace(name) => {
                let quant = name.quant.as_deref().unwrap_or("any").replace('/', "+");
                let tag = match &name.revision {
                    Some(revision) => format!("{quant}@{}", revision.replace('/', "+")),
                    None => quant,
                };
                let (owner, repository) = (name.owner.clone(), name.repository.clone());
                [HUGGING_FACE_HOST.to_owned(), owner, repository, tag]
            }
            Self::Url(url) => {
                let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
                let file = url.split(['?', '#']).next().and_then(|url| url.rsplit('/').next());
                let file = file.unwrap_or_default().trim_end_matches(".gguf");
                let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
                let file: String = file.chars().map(keep).take(PART_MAX).collect();
                let file = format!("f{}", file.trim_start_matches('-'));
                let tag = Sha256::of(url.as_bytes()).short();
                let host: String = host.unwrap_or_default().chars().map(keep).collect();
                ["url".to_owned(), format!("h{host}"), file, tag]
            }
        }
    }

    /// The quantization that the name asks for, if it is one that names it by itself.
    pub fn quant(&self) -> Option<&str> {
        match self {
            Self::HuggingFace(name) => name.quant.as_deref(),
            _ => None,
        }
    }

    /// The same name with this quantization; for Hugging Face only.
    #[must_use]
    pub fn with_quant(self, quant: &str) -> Self {
        match self {
            Self::HuggingFace(name) => {
                Self::HuggingFace(HuggingFaceName { quant: Some(quant.to_owned()), ..name })
            }
            other => other,
        }
    }

    /// Whether it is a name at Ollama without owner: one that its own catalogue has.
    pub fn is_ollama_library(&self) -> bool {
        matches!(self, Self::Registry(name) if name.host == OLLAMA_HOST && name.owner == LIBRARY)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(RegistryName { host, owner, model, tag, .. }) => {
                match (host == OLLAMA_HOST, owner == LIBRARY) {
                    (true, true) => write!(f, "{model}:{tag}"),
                    (true, false) => write!(f, "ollama.com/{owner}/{model}:{tag}"),
                    (false, _) => write!(f, "{host}/{owner}/{model}:{tag}"),
                }
            }
            Self::HuggingFace(HuggingFaceName { owner, repository, revision, quant }) => {
                write!(f, "{owner}/{repository}")?;
                revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
                quant.iter().try_for_each(|quant| write!(f, ":{quant}"))
            }
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        parse(text).map_err(|reason| Error::Name { name: shown(text), reason })
    }
}

/// At most so much of a name is repeated in an error.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn parse(text: &str) -> Result<Name, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => address(text),
            "hf" => hugging_face(rest),
            "ollama" => registry(OLLAMA_HOST, rest, false),
            other => Err(format!("{other}: addresses begin with https:// (or http://)")),
        };
    }
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let Some((first, rest)) = text.split_once('/') else {
        return registry(OLLAMA_HOST, text, false);
    };
    if HUGGING_FACE_SITES.contains(&first.to_ascii_lowercase().as_str()) {
        return hugging_face(rest);
    }
    if OLLAMA_SITES.contains(&first.to_ascii_lowercase().as_str()) {
        return registry(OLLAMA_HOST, rest, false);
    }
    if is_host(first) {
        return registry(first, rest, false);
    }
    match rest.split_once(':').map_or(rest, |(path, _)| path).contains('/') {
        false => hugging_face(text),
        true => Err(format!(
            "`{first}` is not a host: a name has the form owner/name[:quant] for \
                             Hugging Face, or host/owner/model[:tag]"
        )),
    }
}

/// A host has a dot or a port, or is this machine.
fn is_host(text: &str) -> bool {
    text.contains('.') || text.contains(':') || text.eq_ignore_ascii_case("localhost")
}

/// An address: of a page at Hugging Face or Ollama, of a model in a registry, or of a file.
fn address(text: &str) -> Result<Name, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or password in it, which this program does not send".to_owned());
    }
    let host = url.host_str().ok_or("it has no host")?.to_ascii_lowercase();
    let path = url.path().trim_matches('/');
    if HUGGING_FACE_SITES.contains(&host.as_str()) {
        return hugging_face(path);
    }
    if OLLAMA_SITES.contains(&host.as_str()) {
        return registry(OLLAMA_HOST, path, false);
    }
    if path.to_ascii_lowercase().ends_with(".gguf") {
        return Ok(Name::Url(url.to_string()));
    }
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    registry(&host, path, url.scheme() == "http")
}

/// `[owner/]model[:tag]` at this host.
fn registry(host: &str, rest: &str, plain: bool) -> Result<Name, String> {
    let host_part = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty()
        || host.len() > HOST_MAX
        || !host.chars().all(host_part)
        || !host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        || Url::parse(&format!("https://{host}/")).is_err()
    {
        return Err(format!("`{}` is not a host", shown(host)));
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (rest, LATEST),
    };
    let mut parts = path.split('/');
    let (owner, model) = match (parts.next(), parts.next(), parts.next()) {
        (Some(model), None, None) => (LIBRARY, model),
        (Some(owner), Some(model), None) => (owner, model),
        _ => return Err("after the host, owner/model[:tag] was expected".to_owned()),
    };
    for (what, part) in [("owner", owner), ("model", model), ("tag", tag)] {
        checked(what, part, PART_MAX)?;
    }
    let host = host.to_ascii_lowercase();
    let [owner, model, tag] = [owner, model, tag].map(str::to_owned);
    Ok(Name::Registry(RegistryName { host, owner, model, tag, plain }))
}

/// `owner/repository[@revision][:quant]`, or a path as pages have it:
/// `owner/repository/(blob|resolve|tree)/revision[/file]`.
fn hugging_face(text: &str) -> Result<Name, String> {
    let expected = || "owner/name[:quant] was expected".to_owned();
    let (owner, rest) = text.split_once('/').ok_or_else(expected)?;
    let (repository, path) = match rest.split_once('/') {
        Some((repository, path)) if !repository.contains([':', '@']) => (repository, Some(path)),
        _ => (rest, None),
    };
    let (repository, quant) = match repository.split_once(':') {
        Some((repository, quant)) => (repository, Some(quant)),
        None => (repository, None),
    };
    let (repository, mut revision) = match repository.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision)),
        None => (repository, None),
    };
    let mut quant = quant;
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
        if ["blob", "resolve", "tree"].contains(&kind) {
            let (at, file) = rest.split_once('/').unwrap_or((rest, ""));
            revision = (!at.is_empty() && at != "main").then_some(at);
            quant = (!file.is_empty()).then_some(file);
        } else {
            quant = Some(path);
        }
    }
    checked("owner", owner, REPOSITORY_MAX)?;
    checked("name", repository, REPOSITORY_MAX)?;
    revision.map_or(Ok(()), |revision| checked("revision", revision, PART_MAX))?;
    for part in quant.unwrap_or("x").split('/') {
        checked("quantization", part, 2 * PART_MAX)?;
    }
    Ok(Name::HuggingFace(HuggingFaceName {
        owner: owner.to_owned(),
        repository: repository.to_owned(),
        revision: revision.map(str::to_owned),
        quant: quant.map(str::to_owned),
    }))
}

/// A part of a name that is a safe name of a folder as well.
fn checked(what: &str, part: &str, longest: usize) -> Result<(), String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if part.is_empty() {
        return Err(format!("its {what} is empty"));
    }
    if part.len() > longest {
        return Err(format!("its {what} is longer than {longest} characters"));
    }
    let begins = part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !begins || !part.chars().all(is_part) || part.contains("..") {
        let part = shown(part);
        return Err(format!(
            "its {what} `{part}` may only have letters a to z, digits, `-`, `_` and `.`, begins with a \
             letter or digit, and has no `..`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn the_forms_of_the_table_are_read() {
        for (text, key, shown) in [
            ("deepseek-r1", "registry.ollama.ai library deepseek-r1 latest", "deepseek-r1:latest"),
            ("deepseek-r1:671b", "registry.ollama.ai library deepseek-r1 671b", "deepseek-r1:671b"),
            (
                "ollama.com/someone/r1:q4",
                "registry.ollama.ai someone r1 q4",
                "ollama.com/someone/r1:q4",
            ),
            ("ollama.com/library/r1", "registry.ollama.ai library r1 latest", "r1:latest"),
            ("localhost:5000/a/b:c", "localhost:5000 a b c", "localhost:5000/a/b:c"),
            ("Example.org/b", "example.org library b latest", "example.org/library/b:latest"),
            ("u/r", "huggingface.co u r any", "u/r"),
            (
                "unsloth/R1-GGUF:UD-IQ1_S",
                "huggingface.co unsloth R1-GGUF UD-IQ1_S",
                "unsloth/R1-GGUF:UD-IQ1_S",
            ),
            ("hf.co/u/r:Q4_K_M", "huggingface.co u r Q4_K_M", "u/r:Q4_K_M"),
            ("hf.co/u/r@abc:Q4", "huggingface.co u r Q4@abc", "u/r@abc:Q4"),
            ("https://huggingface.co/u/r", "huggingface.co u r any", "u/r"),
            (
                "https://huggingface.co/u/r/blob/main/Q4/x-00001-of-00002.gguf",
                "huggingface.co u r Q4+x-00001-of-00002.gguf",
                "u/r:Q4/x-00001-of-00002.gguf",
            ),
            (
                "https://ollama.com/library/deepseek-r1:671b",
                "registry.ollama.ai library deepseek-r1 671b",
                "deepseek-r1:671b",
            ),
            ("http://127.0.0.1:81/a/b:c", "127.0.0.1:81 a b c", "127.0.0.1:81/a/b:c"),
        ] {
            assert_eq!(name(text).key().join(" "), key, "{text}");
            assert_eq!(name(text).to_string(), shown, "{text}");
        }
        let url = name("https://example.org/a/m.gguf?download=true");
        assert!(matches!(url, Name::Url(_)));
        assert_eq!(url.key()[..3], ["url", "hexample-org", "fm"]);
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (bad, reason) in [
            ("", "empty"),
            ("a/b/c", "not a host"),
            ("../x", "not a host"),
            ("hf.co/u", "owner/name"),
            ("hf.co/u/..", "`..`"),
            ("hf.co/u/r:../../etc", "`..`"),
            ("example.org/a/b/c", "owner/model"),
            ("a b:c", "letters"),
            ("file:///etc/passwd", "https://"),
            ("https://user:pw@example.org/a.gguf", "password"),
            ("deepseek-r1:", "tag is empty"),
            (":671b", "model is empty"),
        ] {
            let error = bad.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
        assert!("a".repeat(81).parse::<Name>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_safe_name_or_an_error(text in "\\PC{0,60}|[a-z:/@._-]{0,40}") {
            if let Ok(name) = text.parse::<Name>() {
                for part in name.key() {
                    prop_assert!(!part.is_empty() && !part.contains('/') && !part.contains('\0'));
                    prop_assert!(!part.starts_with('.') && !part.contains(".."), "{part}");
                }
                let again: Name = name.to_string().parse().unwrap();
                prop_assert_eq!(again.key(), name.key());
            }
        }
    }
}
