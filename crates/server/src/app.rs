//! What all handlers share: the settings, the model once it is loaded, and what runs.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cachalot_engine::Handle;
use cachalot_engine::request::RequestId;
use cachalot_engine::status::ModelInfo;
use cachalot_text::{ChatTemplate, Think};
use tokio::sync::Notify;

use crate::error::{ApiError, ApiResult};
use crate::generate::Live;
use crate::http::auth::{Caller, Keys};
use crate::http::origin::Origins;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::slots::Slots;
use crate::status::Facts;
use crate::streams::Streams;

/// Defaults of requests that say nothing.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Numbers of sampling, by name: they replace what the file recommends.
    pub sampling: Vec<(&'static str, f64)>,
    /// The seed; negative or none is another one each time.
    pub seed: Option<i64>,
    /// The most tokens of an answer, whatever a request says.
    pub max_tokens: Option<usize>,
    /// Texts that end every answer.
    pub stop: Vec<String>,
    /// Whether to think.
    pub think: Think,
}

impl Defaults {
    /// A request's own limit of tokens, within the server's.
    pub(crate) fn limit(&self, asked: Option<usize>) -> Option<usize> {
        match (asked, self.max_tokens) {
            (Some(asked), Some(max)) => Some(asked.min(max)),
            (asked, max) => asked.or(max),
        }
    }
}

/// How the API behaves; where it listens is in [`crate::Listener`].
#[derive(Debug, Default)]
pub struct Config {
    /// Further names of the model; the first one is its id.
    pub aliases: Vec<String>,
    /// What lists of models say about it.
    pub tags: Vec<String>,
    /// Names of other models are refused.
    pub strict_model: bool,
    /// Defaults of sampling.
    pub defaults: Defaults,
    /// Keys; none lets everybody ask.
    pub keys: Keys,
    /// Origins of pages that may ask, besides those of this machine.
    pub cors_origins: Vec<String>,
    /// Whether all addresses are loopback ones.
    pub loopback: bool,
    /// Bytes of the largest body.
    pub body_max: usize,
    /// Whether `/slots` and `/metrics` are answered.
    pub slots: bool,
    /// See there.
    pub metrics: bool,
    /// Whether the page is served.
    pub page: bool,
    /// Requests answered at the same time.
    pub parallel: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// A chat template in place of the file's.
    pub template: Option<String>,
    /// The models of this machine; without them, none is listed but the served one.
    pub models: Option<Arc<dyn Models>>,
    /// Where `/slots` saves sequences; without it, it does not.
    pub slot_save_path: Option<PathBuf>,
    /// Whether answers tell what was computed (`__verbose`), as if requests asked for it.
    pub verbose: bool,
    /// Whether `POST /props` may change the defaults of sampling.
    pub set_props: bool,
    /// The version of the program.
    pub version: &'static str,
}

/// The model, and what belongs to it.
pub(crate) struct Served {
    pub(crate) handle: Handle,
    template: Option<ChatTemplate>,
    /// Whether requests think that say nothing.
    pub(crate) think: Think,
    pub(crate) facts: Facts,
    /// When it was loaded.
    pub(crate) since: SystemTime,
}

impl Served {
    pub(crate) fn info(&self) -> &ModelInfo {
        self.handle.info()
    }

    pub(crate) fn template(&self) -> &ChatTemplate {
        self.template.as_ref().unwrap_or(&self.info().template)
    }
}

/// How far loading has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loading {
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) error: Option<String>,
}

/// The server's state.
pub struct App {
    pub(crate) config: Config,
    pub(crate) origins: Origins,
    served: OnceLock<Arc<Served>>,
    loading: Mutex<Loading>,
    pub(crate) metrics: Metrics,
    pub(crate) streams: Streams,
    pub(crate) slots: Arc<Slots>,
    /// The defaults of sampling now; [`Config::defaults`] are those of the start.
    sampling: Mutex<Vec<(&'static str, f64)>>,
    running: Mutex<HashMap<String, Answering>>,
    draining: AtomicBool,
    /// Told when the server is to shut down.
    pub(crate) stop: Notify,
    pub(crate) begun: Instant,
    pub(crate) started: SystemTime,
}

impl App {
    /// A server whose model is still being loaded.
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            slots: Slots::new(config.parallel),
            sampling: Mutex::new(config.defaults.sampling.clone()),
            origins: Origins { allowed: config.cors_origins.clone(), loopback: config.loopback },
            config,
            served: OnceLock::new(),
            loading: Mutex::default(),
            metrics: Metrics::default(),
            streams: Streams::default(),
            running: Mutex::default(),
            draining: AtomicBool::new(false),
            stop: Notify::new(),
            begun: Instant::now(),
            started: SystemTime::now(),
        })
    }

    /// The defaults of requests now.
    pub(crate) fn defaults(&self) -> Defaults {
        let sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Defaults { sampling, ..self.config.defaults.clone() }
    }

    /// Changes a default of sampling, which was checked.
    pub(crate) fn set_default(&self, name: &'static str, value: f64) {
        let mut sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        sampling.retain(|(known, _)| *known != name);
        sampling.push((name, value));
    }

    /// Says how much of the model is loaded.
    pub fn progress(&self, done: u64, total: u64) {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        (loading.done, loading.total) = (done, total);
    }

    /// The model is loaded: requests are answered from now on.
    ///
    /// # Errors
    /// If the template that was given is none.
    pub fn serve(&self, handle: Handle, facts: Facts) -> Result<(), cachalot_text::Error> {
        let vocab = &handle.info().vocab;
        let template = match &self.config.template {
            None => None,
            Some(source) => Some(ChatTemplate::new(Some(source), vocab)?),
        };
        let think = self.config.defaults.think;
        let served = Served { handle, template, think, facts, since: SystemTime::now() };
        let _ = self.served.set(Arc::new(served)); // a second model is not served
        Ok(())
    }

    /// The model cannot be loaded.
    pub fn failed(&self, error: String) {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error);
    }

    pub(crate) fn loading(&self) -> Loading {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model.
    ///
    /// # Errors
    /// 503 while it is being loaded, with the progress, and once the server is shutting down.
    pub(crate) fn model(&self) -> ApiResult<Arc<Served>> {
        if self.is_draining() {
            let message = "the server is shutting down";
            return Err(ApiError { retry_after: Some(10), ..ApiError::unavailable(message) });
        }
        self.ready()
    }

    /// As [`App::model`], also while the server is shutting down.
    pub(crate) fn ready(&self) -> ApiResult<Arc<Served>> {
        if let Some(served) = self.served.get() {
            return Ok(Arc::clone(served));
        }
        let loading = self.loading();
        if let Some(error) = loading.error {
            return Err(ApiError::unavailable(format!("the model cannot be loaded: {error}")));
        }
        let share =
            if loading.total == 0 { 0.0 } else { loading.done as f64 / loading.total as f64 };
        Err(ApiError {
            retry_after: Some(5),
            progress: Some(share),
            ..ApiError::unavailable("Loading model")
        })
    }

    /// The names of the model, its id first.
    pub(crate) fn names(&self, served: &Served) -> Vec<String> {
        let mut names = self.config.aliases.clone();
        if names.is_empty() {
            names.push(served.facts.id.clone());
        }
        names
    }

    /// The name under which the model answers.
    pub(crate) fn model_id(&self, served: &Served) -> String {
        self.names(served).swap_remove(0)
    }

    /// Whether a client's name means this model.
    pub(crate) fn is_name(&self, served: &Served, name: &str) -> bool {
        let short = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_lowercase();
        let same = |own: &String| short(own) == short(name);
        self.names(served).iter().any(same) || same(&served.facts.id)
    }

    /// Shuts the server down, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// No request is accepted from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Ends the engine, and with it whatever still runs.
    pub fn shut_down(&self) {
        if let Some(served) = self.served.get() {
            served.handle.shutdown(Duration::ZERO);
        }
    }

    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Answers that run or wait.
    pub(crate) fn running(&self) -> MutexGuard<'_, HashMap<String, Answering>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A request that runs or waits.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    /// The engine's names, one for each answer.
    pub(crate) ids: Vec<RequestId>,
    pub(crate) since: Instant,
}

/// An answer that runs: found by its name, counted, and forgotten when dropped.
pub(crate) struct Running {
    app: Arc<App>,
    pub(crate) id: String,
    caller: Option<Caller>,
}

impl Running {
    pub(crate) fn new(
        app: &Arc<App>,
        id: String,
        ids: Vec<RequestId>,
        caller: Option<Caller>,
    ) -> Self {
        app.running().insert(id.clone(), Answering { ids, since: Instant::now() });
        Self { app: Arc::clone(app), id, caller }
    }

    /// Counts an answer that is complete.
    pub(crate) fn count(&mut self, live: &Live) {
        self.app.metrics.answered(live);
        if let Some(caller) = self.caller {
            let computed = live.prompt.saturating_sub(live.cached);
            self.app.config.keys.charge(caller, computed + live.generated);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.app.running().remove(&self.id);
    }
}

/// A name that nobody else has, and that cannot be guessed: `chatcmpl-` and 128 random bits.
pub(crate) fn fresh_id(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The standard library's source of hash keys is the system's.
    let random = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(count);
        hasher.finish()
    };
    format!("{prefix}{:016x}{:016x}", random(), random())
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_answers_are_unique() {
        let (a, b) = (fresh_id("x-"), fresh_id("x-"));
        assert_ne!(a, b);
        assert_eq!(a.len(), 34);
    }

    #[test]
    fn a_server_says_that_it_loads_and_that_it_ends() {
        let app = App::new(Config::default());
        app.progress(1, 4);
        let error = app.model().err().unwrap();
        assert_eq!((error.status.as_u16(), error.progress), (503, Some(0.25)));
        app.failed("no such file".to_owned());
        assert!(app.model().err().unwrap().message.contains("no such file"));
        app.drain();
        assert!(app.model().err().unwrap().message.contains("shutting down"));
    }
}
