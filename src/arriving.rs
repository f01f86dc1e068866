//! `run --while-pulling`: a model that answers while it is downloaded.
//!
//! A thread downloads; the engine waits for the bytes that it needs, which moves them to the front.
//! The model is in the library once it is verified, as after any other download.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::anyhow;
use cachalot_engine::event::FinishReason;
use cachalot_gguf::split::part_paths;
use cachalot_hub::{Arrival, Error, Model, Name, Progress};
use cachalot_plan::units;
use cachalot_store::{FileRange, Ranges};

use crate::command::pull;
use crate::command::pull::bars::Bars;
use crate::failure::{Exit, usage};
use crate::interrupt::Interrupt;
use crate::models::{self, NetworkArgs};
use crate::settings::Environment;
use crate::terminal::note;

/// Between two looks at a download that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// A download in a thread of its own.
#[derive(Debug)]
pub(crate) struct Arriving {
    name: Name,
    arrival: Arrival,
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<Progress>>,
    interrupt: Interrupt,
    thread: JoinHandle<Result<Model, Error>>,
}

impl Arriving {
    /// Begins to download the model that the first word names, unless it is here; returns the file
    /// to run as soon as its headers are there.
    ///
    /// # Errors
    /// If the word names no model that can be downloaded and run, or the download fails.
    pub(crate) fn begin(
        words: &[OsString],
        environment: &Environment,
    ) -> anyhow::Result<Option<(Self, PathBuf)>> {
        let word = words.first().and_then(|word| word.to_str());
        let word = word.ok_or_else(|| usage("--while-pulling: name a model to download"))?;
        let Ok(name) = word.parse::<Name>() else {
            return Err(usage(format!("--while-pulling: `{word}` is not a model name")));
        };
        // A chat needs nothing of this; a prompt may also be piped.
        if words.len() < 2 && io::stdin().is_terminal() {
            return Err(usage(
                "--while-pulling: give a prompt; a chat starts with a complete model",
            ));
        }
        let hub = models::hub(environment, &NetworkArgs::default())?;
        if hub.library().find(&name)?.is_some() {
            return Ok(None);
        }
        let offer = pull::offered(word, &hub, environment)?;
        let headers: Vec<u64> =
            offer.headers.iter().map(|header| header.bytes.len() as u64).collect();
        let size = units::bytes(offer.set.size());
        note(&format!(
            "Downloading {name} ({size}). Until it is complete, it is not verified: an answer may \
             come from bytes that turn out to be wrong."
        ));
        let interrupt = Interrupt::install()?;
        let arrival = Arrival::default();
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Mutex::new(Progress::default()));
        let thread = {
            let (arrival, stop, progress) = (arrival.clone(), stop.clone(), progress.clone());
            let interrupt = interrupt.clone();
            move || {
                let mut report = |now: &Progress| {
                    *progress.lock().unwrap_or_else(PoisonError::into_inner) = now.clone();
                    !stop.load(Ordering::SeqCst) && !interrupt.is_cancelled()
                };
                let result = hub.pull_arriving(&offer, &arrival, &mut report);
                if result.is_err() {
                    interrupt.cancel(); // an answer from it is not worth waiting for
                }
                result
            }
        };
        let thread = thread::Builder::new().name("pull".to_owned()).spawn(thread)?;
        let arriving = Self { name, arrival, stop, progress, interrupt, thread };
        let Some(first) = arriving.arrival.first() else {
            arriving.join()?;
            return Ok(None); // it was here after all, or another process has downloaded it
        };
        let parts = part_paths(&first);
        let wanted: Vec<FileRange<'_>> =
            parts.iter().zip(&headers).map(|(part, &len)| (part.as_path(), 0..len)).collect();
        if let Err(error) = arriving.arrival.wait(&wanted) {
            arriving.join()?;
            return Err(error.into());
        }
        Ok(Some((arriving, first)))
    }

    /// The files, for those who read them.
    pub(crate) fn ranges(&self) -> Arc<dyn Ranges> {
        Arc::new(Files(self.arrival.clone()))
    }

    /// Ends with the answer: after one, waits for the rest of the download; after none, stops it.
    ///
    /// # Errors
    /// That of the download, if it is the reason; else that of the answer.
    pub(crate) fn end(
        self,
        answered: anyhow::Result<FinishReason>,
    ) -> anyhow::Result<FinishReason> {
        if matches!(answered, Err(_) | Ok(FinishReason::Cancelled)) {
            // A download that has ended before was stopped by Ctrl-C, or has failed.
            let has_ended = self.thread.is_finished();
            self.stop.store(true, Ordering::SeqCst);
            let name = self.name.clone();
            return match self.join() {
                Err(error) if is_cancelled(&error) => {
                    note(&kept(&name));
                    if has_ended { Err(Exit::Interrupted.into()) } else { answered }
                }
                Err(error) => Err(error),
                Ok(_) => answered,
            };
        }
        let (name, interrupt) = (self.name.clone(), self.interrupt.clone());
        if !self.thread.is_finished() {
            note(&format!(
                "The download goes on; Ctrl-C stops it, and `cachalot pull {name}` continues it."
            ));
        }
        let mut bars = Bars::new(false);
        interrupt.during(|_| {
            while !self.thread.is_finished() {
                let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _ = bars.show(&progress, &mut io::sink());
                thread::sleep(LOOK);
            }
        });
        bars.clear();
        match self.join() {
            Ok(_) => {
                note(&format!("{name} is complete and verified."));
                answered
            }
            Err(error) if is_cancelled(&error) => {
                note(&kept(&name));
                Err(Exit::Interrupted.into())
            }
            Err(error) => Err(error),
        }
    }

    fn join(self) -> anyhow::Result<Model> {
        let result = self.thread.join().map_err(|_| anyhow!("the download has failed"))?;
        result.map_err(|error| match error {
            error @ (Error::WrongHash { .. } | Error::Changed { .. }) => {
                anyhow!(error).context("an answer may have come from wrong bytes")
            }
            error => error.into(),
        })
    }
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Cancelled))
}

fn kept(name: &Name) -> String {
    format!("What has arrived is kept: `cachalot pull {name}` continues.")
}

/// The files of a download.
#[derive(Debug)]
struct Files(Arrival);

impl Ranges for Files {
    fn wait(&self, ranges: &[FileRange<'_>]) -> io::Result<()> {
        self.0.wait(ranges)
    }

    fn has(&self, ranges: &[FileRange<'_>]) -> bool {
        self.0.has(ranges)
    }
}
