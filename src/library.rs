//! The models of this machine, for clients of the server.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cachalot_gguf::split::Set;
use cachalot_hub::{Error, Hub, Model, Name, Progress};
use cachalot_server::{Arriving, Models, Refusal, Stored};

use crate::command::pull;
use crate::models::{self, NetworkArgs};
use crate::settings::Environment;

/// The library, as the server sees it.
#[derive(Debug)]
pub(crate) struct Library {
    hub: Hub,
    environment: Environment,
    /// By digest: what headers say, since reading one takes a while.
    headers: Mutex<HashMap<String, Header>>,
}

#[derive(Clone, Debug, Default)]
struct Header {
    architecture: String,
    parameters: u64,
}

impl Library {
    /// # Errors
    /// Without a folder for models.
    pub(crate) fn new(environment: &Environment) -> anyhow::Result<Self> {
        let hub = models::hub(environment, &NetworkArgs::default())?;
        Ok(Self { hub, environment: environment.clone(), headers: Mutex::default() })
    }

    fn header(&self, model: &Model) -> Header {
        let digest = model.digest.to_string();
        let known = || self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = known().get(&digest) {
            return header.clone();
        }
        let path = model.parts().next().map(|part| &part.path);
        let header = path.and_then(|path| Set::open(path).ok()).map(|set| Header {
            architecture: set.metadata.arch().unwrap_or("unknown").to_owned(),
            parameters: set.tensors.iter().map(|t| t.info.shape.iter().product::<u64>()).sum(),
        });
        let header = header.unwrap_or_default();
        known().insert(digest, header.clone());
        header
    }
}

fn name(text: &str) -> Result<Name, Refusal> {
    text.parse::<Name>().map_err(|error| Refusal::Invalid(error.to_string()))
}

/// Who can do something about an error.
fn refusal(error: &anyhow::Error) -> Refusal {
    let message = format!("{error:#}");
    match error.downcast_ref::<Error>() {
        Some(Error::NotHere { .. } | Error::NotFound { .. }) => Refusal::NotFound(message),
        Some(
            Error::Name { .. }
            | Error::Choose { .. }
            | Error::NoQuant { .. }
            | Error::Refused { .. }
            | Error::Offline { .. }
            | Error::Locked { .. }
            | Error::Foreign { .. }
            | Error::Exists { .. },
        )
        | None => Refusal::Invalid(message),
        Some(_) => Refusal::Failed(message),
    }
}

impl Models for Library {
    fn list(&self) -> Result<Vec<Stored>, Refusal> {
        let models = self.hub.library().list().models;
        let stored = models.into_iter().map(|model| {
            let header = self.header(&model);
            Stored {
                name: model.name.to_string(),
                modified: model.modified,
                bytes: model.size(),
                digest: model.digest.to_string(),
                quantization: model.quant().unwrap_or_default(),
                architecture: header.architecture,
                parameters: header.parameters,
            }
        });
        Ok(stored.collect())
    }

    fn pull(
        &self,
        name: &str,
        insecure: bool,
        report: &mut dyn FnMut(&[Arriving]) -> bool,
    ) -> Result<(), Refusal> {
        let mut settings = self.hub.settings().clone();
        settings.insecure |= insecure;
        let hub = Hub::new(settings);
        let mut pulled = || -> anyhow::Result<()> {
            let offer = pull::offered(name, &hub, &self.environment)?;
            hub.pull(&offer, &[], &mut |progress| report(&arriving(progress)))?;
            Ok(())
        };
        pulled().map_err(|error| refusal(&error))
    }

    fn copy(&self, source: &str, target: &str) -> Result<(), Refusal> {
        let (source, target) = (name(source)?, name(target)?);
        let copied = self.hub.library().copy(&source, &target);
        copied.map_err(|error| refusal(&error.into()))
    }

    fn remove(&self, text: &str) -> Result<(), Refusal> {
        let removed = self.hub.library().remove(&name(text)?);
        removed.map(drop).map_err(|error| refusal(&error.into()))
    }
}

fn arriving(progress: &Progress) -> Vec<Arriving> {
    let file = |file: &cachalot_hub::FileProgress| Arriving {
        digest: file.sha256.map_or_else(|| file.name.clone(), |hash| format!("sha256:{hash}")),
        done: file.done,
        total: file.total,
        verified: file.verified,
    };
    progress.files.iter().map(file).collect()
}
