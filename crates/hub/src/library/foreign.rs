//! Models that other programs have downloaded: Ollama's store and Hugging Face's cache, read only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{is_file_name, read_bounded};
use super::{Listing, Model, ModelFile, Place, Role, digest_of, files_below, folders_below};
use crate::manifest::{Layer, Manifest};
use crate::quant::{self, Listed};
use crate::{HuggingFaceName, Name, RegistryName, Sha256};

/// No manifest of Ollama's is longer.
const MANIFEST_MAX: u64 = 4 << 20;
/// How deep files are in a repository.
const DEPTH_MAX: usize = 6;

/// Adds the models of Ollama's store whose blobs are all there.
pub(super) fn ollama(store: &Path, listing: &mut Listing) {
    for path in files_below(&store.join("manifests"), 4) {
        let Some(name) = registry_name(&path) else { continue };
        match ollama_model(store, &path, name) {
            Ok(Some(model)) => listing.models.push(model),
            Ok(None) => {} // Ollama is still pulling it
            Err(error) => listing.warnings.push(format!("{}: {error}", path.display())),
        }
    }
}

/// `manifests/HOST/OWNER/MODEL/TAG`.
fn registry_name(path: &Path) -> Option<Name> {
    let mut parts = path.iter().rev().map(|part| part.to_str());
    let [tag, model, owner, host] =
        [parts.next()??, parts.next()??, parts.next()??, parts.next()??];
    let name = format!("{host}/{owner}/{model}:{tag}").parse().ok()?;
    // `hf.co/owner/model:quant`, as Ollama pulls it, is a name at Hugging Face.
    match name {
        Name::Registry(name) => Some(Name::Registry(RegistryName { plain: false, ..name })),
        other => Some(other),
    }
}

fn ollama_model(store: &Path, path: &Path, name: Name) -> Result<Option<Model>, String> {
    let bytes = read_bounded(path, MANIFEST_MAX).map_err(|error| error.to_string())?;
    let manifest = Manifest::parse(&bytes)?;
    let blob = |layer: &Layer| store.join("blobs").join(format!("sha256-{}", layer.digest));
    let file = |layer: &Layer, name: String, role| ModelFile {
        path: blob(layer),
        name,
        size: layer.size,
        sha256: Some(layer.digest),
        role,
        modified_ns: None,
    };
    let parts = manifest.models.iter().map(|layer| (blob(layer), *layer)).collect();
    let Some(parts) = in_order(parts)? else { return Ok(None) };
    let count = parts.len();
    let stem = stem(&name);
    let mut files: Vec<ModelFile> = parts
        .iter()
        .enumerate()
        .map(|(index, layer)| file(layer, part_name(&stem, index, count), Role::Model))
        .collect();
    let config = manifest.config.map(|layer| (Role::Config, layer));
    for (role, layer) in manifest.companions.iter().copied().chain(config) {
        files.push(file(&layer, format!("{role:?}").to_lowercase(), role));
    }
    let modified = fs::metadata(path).and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
    let digest = Sha256::of(&bytes);
    Ok(Some(Model { name, place: Place::Ollama, files, modified, digest }))
}

/// What a model's file is called that the registry knows by its hash alone.
pub(crate) fn stem(name: &Name) -> String {
    let [_, _, model, tag] = name.key();
    format!("{model}-{tag}")
}

/// The file name of part `index`, from 0, of `count`.
pub(crate) fn part_name(stem: &str, index: usize, count: usize) -> String {
    match count {
        1 => format!("{stem}.gguf"),
        _ => format!("{stem}-{:05}-of-{count:05}.gguf", index + 1),
    }
}

/// Blobs in the order of `split.no`, whatever the manifest's order; `None` if one is not there yet.
fn in_order(blobs: Vec<(PathBuf, Layer)>) -> Result<Option<Vec<Layer>>, String> {
    let whole = |(path, layer): &(PathBuf, Layer)| {
        fs::metadata(path).is_ok_and(|metadata| metadata.len() == layer.size)
    };
    if !blobs.iter().all(whole) {
        return Ok(None);
    }
    if blobs.len() == 1 {
        return Ok(Some(vec![blobs[0].1]));
    }
    let mut numbered = Vec::with_capacity(blobs.len());
    for (path, layer) in blobs {
        let gguf = cachalot_gguf::Gguf::open(&path).map_err(|error| error.to_string())?;
        numbered.push((gguf.metadata.u64("split.no").unwrap_or(u64::MAX), layer));
    }
    crate::fileset::in_split_order(numbered).map(Some)
}

/// Adds the GGUF models of Hugging Face's cache: one for each quantization of a snapshot.
pub(super) fn hugging_face(cache: &Path, listing: &mut Listing) {
    for folder in folders_below(cache, 1) {
        let Some(repository) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((owner, name)) =
            repository.strip_prefix("models--").and_then(|name| name.split_once("--"))
        else {
            continue;
        };
        let Some((snapshot, revision)) = snapshot(&folder) else { continue };
        for choice in quant::choices(&files_of(&snapshot)) {
            if !choice.missing.is_empty() {
                continue; // still being downloaded, or only a part is wanted
            }
            let name = Name::HuggingFace(HuggingFaceName {
                owner: owner.to_owned(),
                repository: name.to_owned(),
                revision: None,
                quant: Some(choice.label.clone()),
            });
            // Names of folders are anybody's: only what is a name is one.
            let Ok(name) = name.to_string().parse::<Name>() else { continue };
            let files = choice.files.iter().map(|file| cached(&snapshot, file));
            let Some(files) = files.collect::<Option<Vec<_>>>() else { continue };
            let metadata = files.first().and_then(|file| fs::metadata(&file.path).ok());
            let modified = metadata.and_then(|metadata| metadata.modified().ok());
            let modified: SystemTime = modified.unwrap_or(UNIX_EPOCH);
            let digest = Sha256::of(format!("{revision} {}", digest_of(&files)).as_bytes());
            listing.models.push(Model { name, place: Place::HuggingFace, files, modified, digest });
        }
    }
}

/// The snapshot of `main`, or else the latest one.
fn snapshot(folder: &Path) -> Option<(PathBuf, String)> {
    let snapshots = folder.join("snapshots");
    if let Ok(bytes) = read_bounded(&folder.join("refs/main"), 200)
        && let Ok(commit) = String::from_utf8(bytes)
        && is_file_name(commit.trim())
        && snapshots.join(commit.trim()).is_dir()
    {
        let commit = commit.trim().to_owned();
        return Some((snapshots.join(&commit), commit));
    }
    let changed = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    let latest = folders_below(&snapshots, 1).into_iter().max_by_key(changed)?;
    let commit = latest.file_name()?.to_str()?.to_owned();
    Some((latest, commit))
}

/// GGUF files of a snapshot; links are followed, through however many links they lead.
fn files_of(snapshot: &Path) -> Vec<Listed> {
    let mut found = Vec::new();
    for depth in 1..=DEPTH_MAX {
        for path in files_below(snapshot, depth) {
            let Ok(relative) = path.strip_prefix(snapshot) else { continue };
            let Some(relative) = relative.to_str() else { continue };
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            found.push(Listed { path: relative.to_owned(), size, sha256: None });
        }
    }
    found
}

/// The hash is the name of the blob that the snapshot's link leads to, for large files.
fn cached(snapshot: &Path, file: &Listed) -> Option<ModelFile> {
    let path = snapshot.join(&file.path);
    let name = path.file_name()?.to_str()?.to_owned();
    let blob = fs::read_link(&path).ok();
    let blob = blob.as_ref().and_then(|blob| blob.file_name()).and_then(|name| name.to_str());
    let sha256 = blob.and_then(|name| name.parse().ok());
    let (size, role) = (file.size, Role::Model);
    Some(ModelFile { path, name, size, sha256, role, modified_ns: None })
}
