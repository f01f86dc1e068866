//! Names of models to verified files: Ollama's registry, Hugging Face and the local library.
//!
//! A [`Name`] says where a model is published; [`Hub::resolve`] asks there what it consists of
//! ([`FileSet`]); [`Hub::pull`] fetches the files, checks them, and enters them in the [`Library`],
//! which also sees what other programs have downloaded already.
//!
//! The public interface is blocking, with progress in a callback: `async` stays inside this crate.
//! Nothing here reads the environment; [`Settings`] says what it means.
#![forbid(unsafe_code)]

mod arrival;
mod digest;
mod error;
mod fileset;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod hub;
mod hugging_face;
mod library;
mod manifest;
mod name;
mod older;
mod pulling;
mod quant;
mod registry;
mod resolve;
mod room;
mod settings;
mod transfer;

pub use arrival::Arrival;
pub use digest::{Hasher, Sha256};
pub use error::Error;
pub use fileset::{FileSet, RemoteFile};
pub use hub::Hub;
pub use library::{
    Library, Listing, Model, ModelFile, Partial, Place, Pruned, Role, Verdict, VerifyProgress,
};
pub use name::{HuggingFaceName, Name, RegistryName};
pub use quant::{Choice, Listed};
pub use resolve::{Header, Offer};
pub use room::Room;
pub use settings::{Proxies, Settings};
pub use transfer::{FileProgress, Progress};
