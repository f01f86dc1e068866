//! One connection: it takes ranges and fetches them, however often that fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use tokio::sync::Semaphore;

use super::disk::Note;
use super::journal::{self, CHUNK, Entry, PENDING_CHUNKS};
use super::limit::Limit;
use super::schedule::Job;
use super::source::{Reader, Source, Trouble};
use super::{Event, Shared};
use crate::Error;
use crate::http::{Failure, Patience, Web};

/// What all connections of a pull use.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) shared: Arc<Shared>,
    pub(crate) web: Web,
    pub(crate) sources: Vec<Source>,
    /// By folder.
    pub(crate) notes: Vec<Sender<Note>>,
    pub(crate) limit: Limit,
}

/// Where a connection is within its range.
struct Place {
    /// The next byte to ask for, and to write.
    at: u64,
    end: u64,
    /// The signed address was refused: the next request asks for another.
    renewed: bool,
}

/// Fetches until there is nothing left.
pub(crate) async fn run(line: Arc<Line>) {
    let pending = Arc::new(Semaphore::new(PENDING_CHUNKS));
    while let Some(job) = line.shared.next_job().await {
        if let Err(error) = fetch(&line, &job, &pending).await {
            line.shared.tell(Event::Fatal(error));
            return;
        }
    }
}

async fn fetch(line: &Line, job: &Job, pending: &Arc<Semaphore>) -> Result<(), Error> {
    let source = &line.sources[job.file];
    let Range { start: at, end } = journal::bytes(job.chunks.clone(), line.shared.size(job.file));
    let mut place = Place { at, end, renewed: false };
    let mut patience = Patience::new(&line.web.settings);
    while place.at < place.end {
        if line.shared.is_stopped() || line.shared.schedule().epoch(job.file) != job.epoch {
            return Ok(());
        }
        let before = place.at;
        let result = attempt(line, job, &mut place, pending).await;
        if place.at > before {
            patience.succeeded();
        }
        place.renewed = matches!(result, Err(Trouble::Failure(Failure::Expired)));
        let (reason, pause) = match result {
            Ok(()) => continue,
            Err(Trouble::Changed) => {
                line.shared.tell(Event::Changed { file: job.file, epoch: job.epoch });
                return Ok(());
            }
            Err(Trouble::Failure(Failure::Final(error))) => return Err(error),
            Err(Trouble::Failure(Failure::Again { reason, pause })) => (reason, pause),
            Err(Trouble::Failure(Failure::Expired)) => {
                let reason = "its signed address is not accepted".to_owned();
                (reason, Some(std::time::Duration::ZERO))
            }
        };
        patience.wait(source.url(), reason, pause).await?;
    }
    Ok(())
}

/// One request, from where the last one ended.
async fn attempt(
    line: &Line,
    job: &Job,
    place: &mut Place,
    pending: &Arc<Semaphore>,
) -> Result<(), Trouble> {
    let source = &line.sources[job.file];
    let response = source.open(&line.web, &(place.at..place.end), place.renewed).await?;
    let mut reader = Reader::new(response, line.web.settings.stall);
    while let Some(bytes) = reader.next().await? {
        let mut bytes: &[u8] = bytes.as_ref();
        if bytes.len() as u64 > place.end - place.at {
            return Err(Failure::again("it sends more bytes than its answer said").into());
        }
        line.limit.pass(bytes.len()).await;
        while !bytes.is_empty() {
            let room = CHUNK - place.at % CHUNK;
            let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
            let state = &line.shared.files[job.file];
            match state.write(job.epoch, now, place.at) {
                Ok(true) => {}
                Ok(false) => return Ok(()), // the file begins again
                Err(error) => {
                    line.shared.tell(Event::Disk { file: job.file, error });
                    return Err(Failure::Final(Error::Cancelled).into());
                }
            }
            place.at += now.len() as u64;
            bytes = rest;
            state.received.fetch_add(now.len() as u64, Ordering::Relaxed);
            if place.at.is_multiple_of(CHUNK) || place.at == place.end {
                hand_over(line, job, place, pending).await;
            }
        }
    }
    if place.at < place.end {
        return Err(Failure::again("its connection ended early").into());
    }
    Ok(())
}

/// Has a whole chunk recorded, once few enough others are on their way to that.
async fn hand_over(line: &Line, job: &Job, place: &Place, pending: &Arc<Semaphore>) {
    let Ok(permit) = pending.clone().acquire_owned().await else { return };
    let (file, epoch) = (job.file, job.epoch);
    let chunk = (place.at - 1) / CHUNK;
    let entry = Entry::Safe(chunk..chunk + 1);
    let disk = line.shared.files[file].disk;
    let _ = line.notes[disk].send(Note { file, epoch, entry, _permit: Some(permit) });
    if line.shared.schedule().arrived(file, epoch, chunk) {
        line.shared.announce();
    }
}
