//! `cachalot serve`: one model for many clients, over HTTP.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use cachalot_engine::handle::Limits;
use cachalot_engine::layout::{LoadPlan, Options, PrefixCache, Source};
use cachalot_engine::status::ModelInfo;
use cachalot_plan::units;
use cachalot_server::{
    Address, App, Config, Defaults, Facts, Keys, Listener, Models, Server, TlsFiles,
};
use clap::{Args, ValueEnum};

use crate::args::{ModelArgs, SamplingArgs, ThinkArg};
use crate::facts::facts;
use crate::failure::usage;
use crate::forecast::Forecast;
use crate::input;
use crate::library::Library;
use crate::models;
use crate::settings::{self, Environment};
use crate::subject;
use crate::terminal;
use crate::values;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The model: a name in the library, or a .gguf file (any part of a split one); without it, the
    /// embedded calf
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<OsString>,

    /// Address to listen on, or the path of a Unix socket; several separated by commas
    /// [default: 127.0.0.1, or CACHALOT_HOST or OLLAMA_HOST]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port to listen on; 0 takes any that is free [default: 11434]
    #[arg(long, value_name = "PORT", value_parser = values::within::<u16>(0..=u16::MAX))]
    pub(crate) port: Option<u16>,
    /// Name of the model in answers; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) alias: Vec<String>,
    /// Words about the model for lists of models; may be given several times
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
    /// Refuse requests that name another model
    #[arg(long)]
    pub(crate) strict_model: bool,
    /// Context window of each request, in tokens [default: the model's, at most 32768]
    #[arg(long, value_name = "TOKENS", value_parser = values::tokens)]
    pub(crate) ctx: Option<usize>,
    /// Requests answered at the same time
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = values::within::<u16>(1..=256))]
    pub(crate) parallel: u16,
    /// Requests that may wait; further ones are refused
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = values::whole::<usize>)]
    pub(crate) queue: usize,
    /// Origins of web pages that may ask, besides those of this machine; * is all
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    pub(crate) cors_origins: Vec<String>,
    /// Chat template that replaces the model's
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Do not serve the web page
    #[arg(long)]
    pub(crate) no_page: bool,
    /// Do not tell what runs (/slots)
    #[arg(long)]
    pub(crate) no_slots: bool,
    /// Do not serve metrics (/metrics)
    #[arg(long)]
    pub(crate) no_metrics: bool,
    /// Key that requests must show [default: LLAMA_API_KEY]
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub(crate) api_key: Vec<String>,
    /// File of keys: lines `key` or `name:key`, then optional limits rpm=N, tpm=N
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Certificate (PEM), read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen beyond this machine without a key
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Time that answers in flight have after SIGTERM: seconds, or 2m
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = values::seconds)]
    pub(crate) grace: u64,
    /// Largest body of a request
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = values::size)]
    pub(crate) max_body: u64,
    /// Think before answering, where requests say nothing: as the model's chat template says
    /// (auto), always (force), or never (off)
    #[arg(long, value_enum, default_value_t = ThinkArg::Auto, value_name = "WHEN")]
    pub(crate) think: ThinkArg,
    /// Tell in answers what was computed (__verbose): prompts in particular
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Keep computed prompts in this folder, to find them again after a restart
    #[arg(long, value_name = "DIR")]
    pub(crate) prefix_cache: Option<PathBuf>,
    /// Largest size of the folder of --prefix-cache; what was not used longest goes first
    #[arg(long, value_name = "SIZE", default_value = "32GiB", value_parser = values::size)]
    pub(crate) prefix_cache_size: u64,
    /// Let clients save and restore slots, in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) slot_save_path: Option<PathBuf>,
    /// Let clients change the defaults of sampling (POST /props)
    #[arg(long)]
    pub(crate) props: bool,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) computation: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  cachalot serve                                      serve the embedded calf
  cachalot serve DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf --alias r1
  cachalot serve R1.gguf --host 0.0.0.0 --api-key-file keys.txt";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Serves until it is told to stop.
pub(crate) fn run(args: ServeArgs, environment: &Environment) -> anyhow::Result<()> {
    let source = source(args.model.as_ref(), environment)?;
    let name = args.model.as_ref().and_then(|word| word.to_str());
    let name = name.filter(|name| models::here(name, environment).is_some()).map(str::to_owned);
    let inherited = Listener::inherited().context("a socket of LISTEN_FDS cannot be used")?;
    let addresses = if inherited.is_empty() { addresses(&args, environment)? } else { Vec::new() };
    let outside = addresses.iter().filter(|address| !is_loopback(address)).map(shown);
    let theirs = inherited.iter().filter(|listener| !listener.is_local());
    let outside = outside.chain(theirs.map(ToString::to_string)).next();
    let config = config(&args, environment, outside)?;
    let ansi = environment.colour && io::stderr().is_terminal();
    cachalot_server::log(args.log_format == LogFormat::Json, ansi);
    let mut options = settings::model_options(&args.computation, environment);
    options.context = args.ctx;
    options.parallel = usize::from(args.parallel);
    options.expert_stats.clone_from(&environment.expert_stats);
    let (folder, size) = (args.prefix_cache.clone(), args.prefix_cache_size);
    options.prefix_cache = folder.map(|folder| PrefixCache { folder, size });
    let mut listeners = inherited;
    for address in &addresses {
        let listener = Listener::bind(address);
        listeners.push(listener.with_context(|| format!("cannot listen on {}", shown(address)))?);
    }
    let tls = args.tls_cert.zip(args.tls_key).map(|(cert, key)| TlsFiles { cert, key });
    let greeting = Greeting {
        addresses: listeners.iter().map(ToString::to_string).collect(),
        scheme: if tls.is_some() { "https" } else { "http" },
        needs_key: !config.keys.is_empty(),
    };
    let limits = Limits { parallel: usize::from(args.parallel), queue: args.queue };
    let app = App::new(config);
    let server = Server::new(Arc::clone(&app), listeners, tls, Duration::from_secs(args.grace))?;
    let failure = Arc::new(Mutex::new(None));
    let loader = Loader { app: Arc::clone(&app), source, name, options, limits, greeting };
    let notify = environment.notify_socket.clone();
    let environment = environment.clone();
    let failed = Arc::clone(&failure);
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        if let Err(error) = loader.load(&environment) {
            loader.app.failed(format!("{error:#}"));
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            loader.app.stop();
        }
    })?;
    let told = |state: &str| {
        if let Some(socket) = &notify
            && let Err(error) = cachalot_server::notify(socket, state)
        {
            tracing::warn!("systemd cannot be told {state}: {error}");
        }
    };
    // Health is answered while the model is being loaded.
    server.run(|| told("READY=1"))?;
    told("STOPPING=1");
    app.shut_down();
    let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(()), Err)
}

/// Loads the model while the server answers that it does.
struct Loader {
    app: Arc<App>,
    source: Source,
    /// Its name in the library.
    name: Option<String>,
    options: Options,
    limits: Limits,
    greeting: Greeting,
}

impl Loader {
    fn load(&self, environment: &Environment) -> anyhow::Result<()> {
        let plan = LoadPlan::of(&self.source, &self.options)?;
        let forecast = Forecast::of(&plan, environment);
        let engine = terminal::loading(|progress| {
            plan.load(&mut |done, total| {
                self.app.progress(done, total);
                progress(done, total);
            })
        });
        let handle = engine?.start(self.limits)?;
        handle.prepare_constraints();
        let mut facts = facts(handle.info(), &self.source, forecast.as_ref());
        if let Some(name) = &self.name {
            facts.id.clone_from(name);
        }
        let lines = self.greeting.lines(handle.info(), &facts, self.limits, forecast.as_ref());
        self.app.serve(handle, facts)?;
        eprintln!("{lines}");
        Ok(())
    }
}

fn source(model: Option<&OsString>, environment: &Environment) -> anyhow::Result<Source> {
    let words = model.into_iter().cloned().collect();
    match subject::model_and_prompt(words, environment)? {
        (source, None) => Ok(source),
        (_, Some(word)) => {
            Err(usage(format!("there is no model `{word}` here: give a .gguf file or its name")))
        }
    }
}

/// Where to listen: the flags, `CACHALOT_HOST`, `OLLAMA_HOST`, or Ollama's address.
fn addresses(args: &ServeArgs, environment: &Environment) -> anyhow::Result<Vec<Address>> {
    let text = args.host.as_deref().or(environment.host.as_deref()).unwrap_or("127.0.0.1");
    let mut addresses = Vec::new();
    for host in text.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        if host.contains('/') && !host.contains("://") || host.ends_with(".sock") {
            let path = host.strip_prefix("unix:").unwrap_or(host);
            addresses.push(Address::Unix(PathBuf::from(path)));
            continue;
        }
        let (host, port) = host_and_port(host);
        let port = args.port.or(port).unwrap_or(11434);
        let found = (host, port).to_socket_addrs();
        let found: Vec<SocketAddr> =
            found.map_err(|error| usage(format!("--host {host}: {error}")))?.collect();
        let v4 = found.iter().find(|address| address.is_ipv4());
        let Some(address) = v4.or(found.first()) else {
            return Err(usage(format!("--host {host}: no address has this name")));
        };
        addresses.push(Address::Tcp(*address));
    }
    if addresses.is_empty() {
        return Err(usage("--host names no address"));
    }
    Ok(addresses)
}

/// `host`, `host:port`, `http://host:port`, `[::1]:port`, `:port`.
pub(crate) fn host_and_port(text: &str) -> (&str, Option<u16>) {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (if host.is_empty() { "0.0.0.0" } else { host }, port)
}

fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

fn shown(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

/// The API's settings; `outside` is an address that others can reach.
fn config(
    args: &ServeArgs,
    environment: &Environment,
    outside: Option<String>,
) -> anyhow::Result<Config> {
    let given = match args.api_key.is_empty() {
        false => args.api_key.clone(),
        true => environment.api_keys.clone(),
    };
    let key_file = args.api_key_file.as_deref().map(input::file).transpose()?;
    let keys = Keys::new(&given, key_file.as_deref()).map_err(usage)?;
    let loopback = outside.is_none();
    if let Some(outside) = outside.filter(|_| keys.is_empty() && !args.insecure) {
        return Err(usage(format!(
            "listening on {outside} lets others use this machine: protect it with --api-key KEY or \
             --api-key-file FILE, or allow it to everybody with --insecure"
        )));
    }
    let mut origins = args.cors_origins.clone();
    origins.extend(environment.origins.iter().cloned());
    Ok(Config {
        aliases: args.alias.iter().filter(|alias| !alias.is_empty()).cloned().collect(),
        tags: args.tags.clone(),
        strict_model: args.strict_model,
        defaults: Defaults {
            sampling: settings::checked(&args.sampling)?,
            seed: args.sampling.seed.and_then(|seed| i64::try_from(seed.0?).ok()),
            max_tokens: args.sampling.max_tokens.and_then(|limit| limit.0),
            stop: args.sampling.stop.clone(),
            think: args.think.into(),
        },
        keys,
        cors_origins: origins,
        loopback,
        body_max: usize::try_from(args.max_body).unwrap_or(usize::MAX),
        page: !args.no_page,
        slots: !args.no_slots,
        metrics: !args.no_metrics,
        parallel: usize::from(args.parallel),
        queue: args.queue,
        template: args.chat_template.as_deref().map(input::file).transpose()?,
        models: environment
            .models
            .is_some()
            .then(|| Library::new(environment))
            .transpose()?
            .map(|library| -> Arc<dyn Models> { Arc::new(library) }),
        slot_save_path: args.slot_save_path.clone(),
        set_props: args.props,
        verbose: args.verbose,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// What is printed once the model is there.
struct Greeting {
    addresses: Vec<String>,
    scheme: &'static str,
    needs_key: bool,
}

impl Greeting {
    fn lines(
        &self,
        info: &ModelInfo,
        facts: &Facts,
        limits: Limits,
        forecast: Option<&Forecast>,
    ) -> String {
        let Self { addresses, scheme, needs_key } = self;
        let what = match facts.embedded {
            true => "calf, the small embedded model (a real one: cachalot serve FILE.gguf)",
            false => facts.id.as_str(),
        };
        let tokens = units::grouped(info.context.tokens as u64);
        let mut text = format!(
            "Serving {what}\n  context {tokens} tokens, {} at a time, {} may wait",
            limits.parallel, limits.queue
        );
        if let Some(forecast) = forecast {
            text += &format!("\n  {}", forecast.line());
        }
        for address in addresses {
            match address.starts_with('/') || !address.contains(':') {
                true => text += &format!("\n  on the Unix socket {address}"),
                false => text += &format!("\n  on {scheme}://{address}"),
            }
        }
        if let Some(address) = addresses.iter().find(|address| address.contains(':')) {
            let key = if *needs_key { " -H 'Authorization: Bearer KEY'" } else { "" };
            text += &format!(
                "\nTry: curl {scheme}://{address}/v1/chat/completions{key} -d \
                 '{{\"messages\":[{{\"role\":\"user\",\"content\":\"How many letters are in strawberry?\"}}]}}'"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_with_and_without_ports() {
        assert_eq!(host_and_port("127.0.0.1"), ("127.0.0.1", None));
        assert_eq!(host_and_port("127.0.0.1:80"), ("127.0.0.1", Some(80)));
        assert_eq!(host_and_port("http://box:80/"), ("box", Some(80)));
        assert_eq!(host_and_port("[::1]:80"), ("::1", Some(80)));
        assert_eq!(host_and_port("::1"), ("::1", None));
        assert_eq!(host_and_port(":80"), ("0.0.0.0", Some(80)));
    }
}
