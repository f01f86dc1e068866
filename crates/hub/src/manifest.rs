//! Ollama's manifests: a JSON list of layers, each a blob named by its SHA-256.
//!
//! The registry serves them, and Ollama's store keeps them as they were received.

use serde::Deserialize;

use crate::Sha256;
use crate::library::Role;

/// More layers than any model has.
const LAYERS_MAX: usize = 4096;
const TYPES: &str = "application/vnd.ollama.image.";

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Ollama's description of the model.
    pub(crate) config: Option<Layer>,
    /// The model's parts, in the manifest's order, which need not be that of `split.no`.
    pub(crate) models: Vec<Layer>,
    /// What else the library keeps.
    pub(crate) companions: Vec<(Role, Layer)>,
    /// Types of layers that are of no use here: adapters, projectors and others.
    pub(crate) others: Vec<String>,
}

/// A blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Its hash, which is its name.
    pub(crate) digest: Sha256,
    /// Its bytes.
    pub(crate) size: u64,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    config: Option<RawLayer>,
    layers: Vec<RawLayer>,
}

#[derive(Deserialize)]
struct RawLayer {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
}

impl RawLayer {
    fn layer(&self) -> Result<Layer, String> {
        let is_named = self.digest.starts_with("sha256:") || self.digest.starts_with("sha256-");
        let digest = self.digest.parse().ok().filter(|_| is_named).ok_or_else(|| {
            let digest: String = self.digest.chars().take(80).collect();
            format!(
                "its manifest has the digest `{}`, which is not a SHA-256",
                digest.escape_debug()
            )
        })?;
        Ok(Layer { digest, size: self.size })
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// A reason for what is not a manifest, names no model, has a digest that is not a SHA-256,
    /// or sizes whose sum overflows.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| format!("its answer is not the manifest of a model ({error})"))?;
        if raw.layers.len() > LAYERS_MAX {
            return Err(format!("its manifest has {} layers", raw.layers.len()));
        }
        let config = raw.config.filter(|config| !config.digest.is_empty());
        let config = config.map(|config| config.layer()).transpose()?;
        let mut manifest =
            Self { config, models: Vec::new(), companions: Vec::new(), others: Vec::new() };
        let mut total = config.map_or(0, |config| config.size);
        for raw in &raw.layers {
            let layer = raw.layer()?;
            total = total.checked_add(layer.size).ok_or("the sizes in its manifest overflow")?;
            let role = match raw.media_type.strip_prefix(TYPES) {
                Some("model") => {
                    if !manifest.models.contains(&layer) {
                        manifest.models.push(layer);
                    }
                    continue;
                }
                Some("params") => Role::Params,
                Some("template") => Role::Template,
                Some("system") => Role::System,
                Some("license") => Role::License,
                _ => {
                    manifest.others.push(raw.media_type.chars().take(80).collect());
                    continue;
                }
            };
            manifest.companions.push((role, layer));
        }
        if manifest.models.is_empty() {
            return Err("its manifest names no model".to_owned());
        }
        if manifest.models.iter().any(|layer| layer.size == 0) {
            return Err("its manifest has a model of no bytes".to_owned());
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(kind: &str, digest: &str, size: &str) -> String {
        format!(r#"{{"mediaType":"{TYPES}{kind}","digest":"{digest}","size":{size}}}"#)
    }

    fn manifest(layers: &[String]) -> Result<Manifest, String> {
        Manifest::parse(
            format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(",")).as_bytes(),
        )
    }

    #[test]
    fn layers_are_sorted_by_their_use() {
        let hash = |c: &str| format!("sha256:{}", c.repeat(64));
        let found = manifest(&[
            layer("model", &hash("b"), "5"),
            layer("model", &hash("a"), "4"),
            layer("model", &hash("b"), "5"),
            layer("params", &hash("c"), "1"),
            layer("projector", &hash("d"), "1"),
        ]);
        let found = found.unwrap();
        assert_eq!(found.models.iter().map(|layer| layer.size).collect::<Vec<_>>(), [5, 4]);
        assert_eq!(found.companions[0].0, Role::Params);
        assert_eq!(found.others, ["application/vnd.ollama.image.projector"]);
    }

    #[test]
    fn tricks_are_refused() {
        let good = format!("sha256:{}", "a".repeat(64));
        for (digest, size) in [
            ("sha256:../../etc/passwd", "1"),
            (&*"z".repeat(64), "1"),
            (&*"a".repeat(64), "1"),
            (&*format!("sha256:{}/../x", "a".repeat(64)), "1"),
            (&*good, "-1"),
            (&*good, "1e99"),
            (&*good, "0"),
            (&*good, "18446744073709551616"),
        ] {
            assert!(manifest(&[layer("model", digest, size)]).is_err(), "{digest} {size}");
        }
        let overflow = [("a", u64::MAX), ("b", 1)].map(|(c, size)| {
            layer("model", &format!("sha256:{}", c.repeat(64)), &size.to_string())
        });
        assert!(manifest(&overflow).unwrap_err().contains("overflow"));
        assert!(manifest(&[layer("params", &good, "1")]).unwrap_err().contains("names no model"));
        assert!(Manifest::parse(b"<html>").unwrap_err().contains("not the manifest"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
