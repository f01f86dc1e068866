//! Asks a server of ours on this machine: one request, one answer, over plain HTTP.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::command::serve::host_and_port;
use crate::settings::Environment;

/// The longest answer that is read.
const ANSWER_MAX: u64 = 4 << 20;

/// Which server to ask.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Address or Unix socket of the server [default: 127.0.0.1, or CACHALOT_HOST or OLLAMA_HOST]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port of the server [default: 11434]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The server's key [default: LLAMA_API_KEY]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
}

/// Sends a request without a body, and gives the JSON of the answer.
///
/// # Errors
/// If nothing listens there, or what does is not cachalot, or refuses.
pub(crate) fn ask(
    args: &ServerArgs,
    environment: &Environment,
    method: &str,
    path: &str,
) -> anyhow::Result<Value> {
    let host = args.host.as_deref().or(environment.host.as_deref()).unwrap_or("127.0.0.1");
    let host = host.split(',').next().unwrap_or(host);
    let key = args.api_key.as_ref().or(environment.api_keys.first());
    let key = key.map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
    let request =
        format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\n{key}content-length: 0\r\n\r\n");
    let patience = Some(Duration::from_secs(10));
    let mut answer = Vec::new();
    let shown = if host.contains('/') {
        let nobody = || format!("no server listens on {host}");
        let mut stream = UnixStream::connect(host).with_context(nobody)?;
        stream.set_read_timeout(patience)?;
        stream.write_all(request.as_bytes())?;
        stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
        host.to_owned()
    } else {
        let (host, port) = host_and_port(host);
        let host = if host == "0.0.0.0" { "127.0.0.1" } else { host };
        let port = args.port.or(port).unwrap_or(11434);
        let nobody = || format!("no server listens on {host}:{port}");
        let address = (host, port).to_socket_addrs().with_context(nobody)?.next();
        let address = address.with_context(nobody)?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5));
        let mut stream = stream.with_context(nobody)?;
        stream.set_read_timeout(patience)?;
        stream.write_all(request.as_bytes())?;
        stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
        format!("{host}:{port}")
    };
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("none");
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        bail!("what listens on {shown} is not cachalot: it answered with status {status}");
    };
    if status != "200" {
        let message = body.pointer("/error/message").or(body.get("error"));
        bail!("{shown}: {}", message.and_then(Value::as_str).unwrap_or("it refused"));
    }
    Ok(body)
}
