//! The engine as its users see it: requests in, events out, from any thread.
//!
//! The engine itself runs in one thread of its own (`step.rs`). What both sides share is here: the
//! requests that were submitted and not yet taken, a `Ticket` for each request, and the status
//! that the engine publishes after every step.

mod saved;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, TryRecvError};

use crate::Error;
use crate::constraint::{Constrained, Constraints};
use crate::event::Event;
use crate::pages::Job;
use crate::request::{Constraint, Request, RequestId, SubmitError, UNREAD_MAX};
use crate::status::{ModelInfo, Status};

pub use saved::{SaveError, Saved};

/// Many answers at once, and how many more may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that are answered at the same time.
    pub parallel: usize,
    /// Requests that may wait for that.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { parallel: 1, queue: 64 }
    }
}

/// A running engine. Clones are handles of the same one; it ends when the last of them is dropped.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

/// Ends the engine's thread with the last handle.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Owner {
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic was printed already, and its requests have failed.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close(Instant::now());
        self.join();
    }
}

/// What handles, generations and the engine's thread share.
pub(crate) struct Shared {
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) limits: Limits,
    inbox: Mutex<Inbox>,
    /// The engine waits here while there is nothing to do.
    wake: Condvar,
    status: Mutex<Status>,
    /// Made for the first request that needs it.
    constraints: OnceLock<Result<Constraints, String>>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    submissions: VecDeque<Submission>,
    /// What is wanted of the engine's pages.
    jobs: Vec<Job>,
    /// Requests that wait: submitted and not yet admitted.
    waiting: usize,
    tickets: HashMap<RequestId, Weak<Ticket>>,
    /// When running requests are cancelled; nothing is accepted any more.
    closing: Option<Instant>,
    /// The engine's thread has ended.
    is_gone: bool,
}

/// A request on its way to the engine.
pub(crate) struct Submission {
    pub(crate) request: Request,
    pub(crate) constraint: Option<Constrained>,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) events: EventSender,
    pub(crate) since: Instant,
}

/// What the two ends of a request tell each other.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: RequestId,
    cancelled: AtomicBool,
    /// The caller's own flag.
    flag: Option<Arc<AtomicBool>>,
    end_thinking: AtomicBool,
    thinking: AtomicBool,
    /// Bytes of events that were sent and not received.
    unread: AtomicUsize,
}

impl Ticket {
    pub(crate) fn new(id: RequestId, flag: Option<Arc<AtomicBool>>) -> Self {
        Self {
            id,
            cancelled: AtomicBool::new(false),
            flag,
            end_thinking: AtomicBool::new(false),
            thinking: AtomicBool::new(false),
            unread: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        let flag = self.flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed));
        flag || self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the caller wants the thought to end; asked once.
    pub(crate) fn take_end_thinking(&self) -> bool {
        self.end_thinking.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_thinking(&self, thinking: bool) {
        self.thinking.store(thinking, Ordering::Relaxed);
    }

    /// Whether the reader is so far behind that generation has to wait for it.
    pub(crate) fn is_behind(&self) -> bool {
        self.unread.load(Ordering::Relaxed) > UNREAD_MAX
    }
}

/// The engine's end of a request's events.
#[derive(Debug)]
pub(crate) struct EventSender {
    pub(crate) events: Sender<Event>,
    pub(crate) ticket: Arc<Ticket>,
}

impl EventSender {
    /// Sends an event. Nothing is lost for a reader that is behind; the engine pauses instead.
    pub(crate) fn send(&self, event: Event) {
        self.ticket.unread.fetch_add(size(&event), Ordering::Relaxed);
        // A receiver that is gone has cancelled the request.
        let _ = self.events.try_send(event);
    }
}

/// About the memory that an event takes.
fn size(event: &Event) -> usize {
    let own = match event {
        Event::Token(token) => {
            let tokens = token.tokens.iter().map(|token| 32 + 8 * token.top.len());
            token.text.len() + tokens.sum::<usize>()
        }
        _ => 0,
    };
    64 + own
}

impl Shared {
    pub(crate) fn new(info: Arc<ModelInfo>, limits: Limits) -> Self {
        Self {
            info,
            limits: Limits { parallel: limits.parallel.max(1), ..limits },
            inbox: Mutex::default(),
            wake: Condvar::new(),
            status: Mutex::default(),
            constraints: OnceLock::new(),
            next_id: AtomicU64::new(1),
        }
    }

    pub(crate) fn submit(shared: &Arc<Self>, request: Request) -> Result<Generation, SubmitError> {
        request.check(&shared.info)?;
        let constraint = request.constraint.as_ref();
        let constraint = constraint.map(|constraint| shared.compile(constraint)).transpose()?;
        let id = RequestId(shared.next_id.fetch_add(1, Ordering::Relaxed));
        let ticket = Arc::new(Ticket::new(id, request.cancel.clone()));
        let (events, receiver) = async_channel::unbounded();
        let submission = Submission {
            request,
            constraint,
            ticket: Arc::clone(&ticket),
            events: EventSender { events, ticket: Arc::clone(&ticket) },
            since: Instant::now(),
        };
        let mut inbox = shared.inbox();
        if inbox.closing.is_some() {
            return Err(SubmitError::ShuttingDown);
        }
        // Those that will be admitted at once do not wait.
        let running = inbox.tickets.len() - inbox.waiting.min(inbox.tickets.len());
        let free = shared.limits.parallel.saturating_sub(running);
        if inbox.waiting >= shared.limits.queue + free {
            let position = inbox.waiting;
            drop(inbox);
            let retry_after = shared.status().turnover();
            return Err(SubmitError::QueueFull { position, retry_after });
        }
        inbox.waiting += 1;
        inbox.tickets.insert(id, Arc::downgrade(&ticket));
        inbox.submissions.push_back(submission);
        shared.wake.notify_all();
        drop(inbox);
        let shared = Arc::clone(shared);
        Ok(Generation { shared, ticket, events: receiver, is_over: false })
    }

    fn status(&self) -> Status {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inbox = self.inbox();
        status.queued = inbox.waiting;
        status.limits = self.limits;
        status.is_shutting_down = inbox.closing.is_some();
        status.experts = self.info.streaming.as_ref().map(|streaming| streaming.stats());
        status
    }

    fn compile(&self, constraint: &Constraint) -> Result<Constrained, Error> {
        match self.constraints() {
            Ok(constraints) => constraints.compile(constraint),
            Err(fault) => Err(Error::Constraint { fault: fault.clone() }),
        }
    }

    /// What all constraints share. Making it takes seconds for a large vocabulary.
    fn constraints(&self) -> &Result<Constraints, String> {
        self.constraints.get_or_init(|| Constraints::new(&self.info.vocab))
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing is left half done where this lock is held.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests that came in since the last call. With nothing to do (`idle`), waits for one,
    /// for shutdown, or for `timeout`.
    pub(crate) fn receive(&self, idle: bool, timeout: Option<Duration>) -> Vec<Submission> {
        let mut inbox = self.inbox();
        while idle
            && inbox.submissions.is_empty()
            && inbox.jobs.is_empty()
            && inbox.closing.is_none()
        {
            match timeout {
                Some(timeout) => {
                    let waited = self.wake.wait_timeout(inbox, timeout);
                    inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
                None => inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            }
        }
        inbox.submissions.drain(..).collect()
    }

    /// What is wanted of the engine's pages.
    pub(crate) fn take_jobs(&self) -> Vec<Job> {
        std::mem::take(&mut self.inbox().jobs)
    }

    /// Lets the engine look what is new.
    pub(crate) fn wake(&self) {
        self.wake.notify_all();
    }

    /// Whether the engine ends, and when it cancels what still runs.
    pub(crate) fn closing(&self) -> Option<Instant> {
        self.inbox().closing
    }

    /// A request no longer waits.
    pub(crate) fn admitted(&self) {
        let mut inbox = self.inbox();
        inbox.waiting = inbox.waiting.saturating_sub(1);
    }

    /// A request has ended.
    pub(crate) fn ended(&self, id: RequestId) {
        self.inbox().tickets.remove(&id);
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn close(&self, deadline: Instant) {
        let mut inbox = self.inbox();
        let earlier = inbox.closing.map_or(deadline, |closing| closing.min(deadline));
        inbox.closing = Some(earlier);
        self.wake.notify_all();
    }

    /// The engine's thread ends: requests that still wait see a closed channel.
    pub(crate) fn gone(&self) {
        let mut inbox = self.inbox();
        inbox.is_gone = true;
        inbox.closing.get_or_insert_with(Instant::now);
        inbox.submissions.clear();
        inbox.jobs.clear();
        inbox.waiting = 0;
    }

    fn ticket(&self, id: RequestId) -> Option<Arc<Ticket>> {
        self.inbox().tickets.get(&id)?.upgrade()
    }
}

impl Handle {
    /// A handle of the engine that `run` runs, in a thread of its own.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        shared: Arc<Shared>,
        run: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<Self, Error> {
        let theirs = Arc::clone(&shared);
        let body = move || {
            // However it ends, no reader waits for it any longer.
            let gone = Gone(&theirs);
            run(gone.0);
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(body);
        let thread = Mutex::new(Some(thread.map_err(|source| Error::Thread { source })?));
        let owner = Arc::new(Owner { shared: Arc::clone(&shared), thread });
        Ok(Self { shared, owner })
    }

    /// Submits a request; its events come from the [`Generation`].
    ///
    /// # Errors
    /// If the queue is full, the prompt does not fit, or the request makes no sense. Nothing has
    /// been computed then.
    pub fn submit(&self, request: Request) -> Result<Generation, SubmitError> {
        Shared::submit(&self.shared, request)
    }

    /// Prepares for requests with constraints, in a thread of its own: the first would wait for
    /// that.
    pub fn prepare_constraints(&self) {
        let shared = Arc::clone(&self.shared);
        let prepare = move || _ = shared.constraints();
        // Without a thread, the first request does it.
        _ = std::thread::Builder::new().name("constraints".to_owned()).spawn(prepare);
    }

    /// Asks the engine's thread for something; dropped if it has ended.
    pub(crate) fn send(&self, job: Job) {
        let mut inbox = self.shared.inbox();
        if !inbox.is_gone {
            inbox.jobs.push(job);
            self.shared.wake.notify_all();
        }
    }

    /// Cancels a request, which ends within one step with
    /// [`FinishReason::Cancelled`](crate::event::FinishReason::Cancelled). One that has ended
    /// already is not changed.
    pub fn cancel(&self, id: RequestId) {
        if let Some(ticket) = self.shared.ticket(id) {
            ticket.cancel();
            self.shared.wake.notify_all();
        }
    }

    /// Closes the thought of a request, so that its answer begins. Returns whether it is thinking.
    pub fn end_thinking(&self, id: RequestId) -> bool {
        let thinking = |ticket: &Arc<Ticket>| ticket.thinking.load(Ordering::Relaxed);
        let Some(ticket) = self.shared.ticket(id).filter(thinking) else { return false };
        ticket.end_thinking.store(true, Ordering::Relaxed);
        true
    }

    /// What the engine is doing.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The model.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Accepts nothing any more, lets running requests finish for at most `grace`, cancels what is
    /// left, and returns when the engine has ended.
    pub fn shutdown(&self, grace: Duration) {
        let now = Instant::now();
        self.shared.close(now.checked_add(grace).unwrap_or(now));
        self.owner.join();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

/// Marks the engine as ended when its thread does, by whatever way.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.gone();
    }
}

/// The events of one request. Dropping it cancels the request.
///
/// Up to [`UNREAD_MAX`] bytes of events wait to be received; a reader that is further behind pauses
/// its own request, and after [`Request::reader_timeout`] ends it.
pub struct Generation {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
    events: Receiver<Event>,
    is_over: bool,
}

impl Generation {
    /// The request.
    pub fn id(&self) -> RequestId {
        self.ticket.id
    }

    /// Waits for the next event; `None` after the last one.
    pub fn recv(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        let event = self.events.recv_blocking().ok();
        Some(received(&self.shared, &self.ticket, &mut self.is_over, event))
    }

    /// As [`Generation::recv`], for tasks of any async runtime. Dropping the future loses no event.
    pub fn recv_async(&mut self) -> impl Future<Output = Option<Event>> + Send + '_ {
        let Self { shared, ticket, events, is_over } = self;
        let mut next = Box::pin(events.recv());
        std::future::poll_fn(move |context| {
            if *is_over {
                return Poll::Ready(None);
            }
            let event = next.as_mut().poll(context);
            event.map(|event| Some(received(shared, ticket, is_over, event.ok())))
        })
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = match self.events.try_recv() {
            _ if self.is_over => return None,
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Closed) => None,
        };
        Some(received(&self.shared, &self.ticket, &mut self.is_over, event))
    }

    /// Cancels the request; its last event still comes.
    pub fn cancel(&self) {
        self.ticket.cancel();
        self.shared.wake.notify_all();
    }

    /// As [`Handle::end_thinking`].
    pub fn end_thinking(&self) -> bool {
        let thinking = self.ticket.thinking.load(Ordering::Relaxed);
        if thinking {
            self.ticket.end_thinking.store(true, Ordering::Relaxed);
        }
        thinking
    }
}

/// Accounts for an event. A channel that closes before the last one belongs to an engine that is
/// gone.
fn received(shared: &Shared, ticket: &Ticket, is_over: &mut bool, event: Option<Event>) -> Event {
    let Some(event) = event else {
        *is_over = true;
        return Event::Failed(Error::EngineGone);
    };
    let read = size(&event);
    let before = ticket.unread.fetch_sub(read, Ordering::Relaxed);
    if before > UNREAD_MAX && before - read <= UNREAD_MAX {
        shared.wake.notify_all();
    }
    *is_over = matches!(event, Event::Finished(_) | Event::Failed(_));
    event
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.is_over {
            self.cancel();
        }
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generation({})", self.id())
    }
}
