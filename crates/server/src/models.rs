//! The models of this machine, as the program that starts the server knows them. This crate knows
//! neither files of models nor where they come from.

use std::fmt::Debug;
use std::time::SystemTime;

/// A model that is here, whole.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name, as clients write it.
    pub name: String,
    /// When it arrived.
    pub modified: SystemTime,
    /// Bytes of its files.
    pub bytes: u64,
    /// A hash that changes with its files, in hexadecimal digits.
    pub digest: String,
    /// The architecture that its header names.
    pub architecture: String,
    /// Weights; 0 if they are not known.
    pub parameters: u64,
    /// The quantization, as far as names tell.
    pub quantization: String,
}

/// How far a file of a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// `sha256:` and its hash, or its name where no hash is known.
    pub digest: String,
    /// Bytes that have arrived.
    pub done: u64,
    /// Bytes of the file.
    pub total: u64,
    /// Whether its hash has been checked.
    pub verified: bool,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such model: here, or where it would come from.
    NotFound(String),
    /// The request cannot be met, whenever it is made.
    Invalid(String),
    /// It failed.
    Failed(String),
}

/// The models of this machine. Calls block.
pub trait Models: Debug + Send + Sync {
    /// All of them, the latest first.
    ///
    /// # Errors
    /// If there is no place for models.
    fn list(&self) -> Result<Vec<Stored>, Refusal>;

    /// Downloads a model. `report` is called several times a second and returns whether to go on;
    /// what has arrived is kept in any case. `insecure` allows plain http beyond this machine.
    ///
    /// # Errors
    /// If it is not to be had, not wanted here, or does not arrive.
    fn pull(
        &self,
        name: &str,
        insecure: bool,
        report: &mut dyn FnMut(&[Arriving]) -> bool,
    ) -> Result<(), Refusal>;

    /// Gives a model another name.
    ///
    /// # Errors
    /// If it is not here, or the name is taken.
    fn copy(&self, source: &str, target: &str) -> Result<(), Refusal>;

    /// Removes a model, and the files that no other name needs.
    ///
    /// # Errors
    /// If it is not here, belongs to another program, or is being downloaded.
    fn remove(&self, name: &str) -> Result<(), Refusal>;
}
