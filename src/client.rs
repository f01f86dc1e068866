//! Speaks to a server of ours: one request, one answer, over plain HTTP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::command::serve::host_and_port;
use crate::settings::Environment;
use crate::values;

/// The longest answer that is read.
const ANSWER_MAX: u64 = 4 << 20;
/// How long a server may take to accept a connection, and to answer.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Which server to ask.
#[derive(Debug, Default, Args)]
pub(crate) struct ServerArgs {
    /// Address or Unix socket of the server [default: 127.0.0.1, or CACHALOT_HOST or OLLAMA_HOST]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port of the server [default: 11434]
    #[arg(long, value_name = "PORT", value_parser = values::within::<u16>(0..=u16::MAX))]
    pub(crate) port: Option<u16>,
    /// The server's key [default: LLAMA_API_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
}

/// Where a server listens, and the key to show.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    place: Place,
    key: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    Unix(String),
    Tcp(String, u16),
}

/// A connection.
pub(crate) trait Connection: Read + Write {
    /// How long reading waits.
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
}

impl Connection for TcpStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

impl Connection for UnixStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

impl Address {
    /// What the flags say, or the environment, or Ollama's address.
    pub(crate) fn of(args: &ServerArgs, environment: &Environment) -> Self {
        let host = args.host.as_deref().or(environment.host.as_deref()).unwrap_or("127.0.0.1");
        let host = host.split(',').next().unwrap_or(host);
        let place = if host.contains('/') && !host.contains("://") || host.ends_with(".sock") {
            Place::Unix(host.strip_prefix("unix:").unwrap_or(host).to_owned())
        } else {
            let (host, port) = host_and_port(host);
            let host = if host == "0.0.0.0" { "127.0.0.1" } else { host };
            Place::Tcp(host.to_owned(), args.port.or(port).unwrap_or(11434))
        };
        let key = args.api_key.as_ref().or(environment.api_keys.first()).cloned();
        Self { place, key }
    }

    /// Whether nothing leaves this machine on the way there.
    pub(crate) fn is_local(&self) -> bool {
        match &self.place {
            Place::Unix(_) => true,
            Place::Tcp(host, _) => {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        }
    }

    /// Connects, within `time`.
    pub(crate) fn connect(&self, time: Duration) -> io::Result<Box<dyn Connection>> {
        match &self.place {
            Place::Unix(path) => Ok(Box::new(UnixStream::connect(path)?)),
            Place::Tcp(host, port) => {
                let address = (host.as_str(), *port).to_socket_addrs()?.next();
                let address = address.ok_or(io::ErrorKind::NotFound)?;
                Ok(Box::new(TcpStream::connect_timeout(&address, time)?))
            }
        }
    }

    /// The bytes of a request. HTTP/1.0: the answer comes without chunks, and its end is the
    /// connection's.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> String {
        let key = self.key.as_ref();
        let key = key.map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        format!(
            "{method} {path} HTTP/1.0\r\nhost: localhost\r\n{key}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends a request without a body, and gives the JSON of the answer.
    ///
    /// # Errors
    /// If nothing listens there, or what does is not cachalot, or refuses.
    pub(crate) fn ask(&self, method: &str, path: &str, time: Duration) -> anyhow::Result<Value> {
        let nobody = || format!("no server listens on {self}");
        let mut stream = self.connect(time.min(CONNECT_TIME)).with_context(nobody)?;
        stream.set_patience(time)?;
        stream.write_all(self.request(method, path, "").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or("none");
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            bail!("what listens on {self} is not cachalot: it answered with status {status}");
        };
        if status != "200" {
            bail!("{self}: {}", refusal(&body));
        }
        Ok(body)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Unix(path) => f.write_str(path),
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// What a server says when it refuses.
pub(crate) fn refusal(body: &Value) -> &str {
    let message = body.pointer("/error/message").or(body.get("error"));
    message.and_then(Value::as_str).unwrap_or("it refused")
}

/// Sends a request without a body, and gives the JSON of the answer.
///
/// # Errors
/// As [`Address::ask`].
pub(crate) fn ask(
    args: &ServerArgs,
    environment: &Environment,
    method: &str,
    path: &str,
) -> anyhow::Result<Value> {
    Address::of(args, environment).ask(method, path, ANSWER_TIME)
}
