//! Where the server listens, and how it begins and ends.
//!
//! SIGTERM or SIGINT: no new requests, answers in flight finish within the grace time; a second
//! signal ends at once. SIGHUP: the certificate is read again.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::app::App;
use crate::http::connection::{Connections, Wire};
use crate::http::tls::{Tls, TlsFiles};
use crate::routes::router;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 takes any that is free.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and the file to remove in the end.
    Unix(std::os::unix::net::UnixListener, Option<PathBuf>),
}

impl Listener {
    /// The sockets that systemd has opened for this process (`LISTEN_FDS`); usually there are none.
    ///
    /// # Errors
    /// If one of them is not a socket that listens for streams.
    pub fn inherited() -> io::Result<Vec<Self>> {
        let mut sockets = listenfd::ListenFd::from_env();
        let mut listeners = Vec::new();
        for i in 0..sockets.len() {
            // Which kind it is, is found out by asking.
            let listener = match sockets.take_tcp_listener(i) {
                Ok(listener) => listener.map(Self::Tcp),
                Err(_) => sockets.take_unix_listener(i)?.map(|unix| Self::Unix(unix, None)),
            };
            listeners.extend(listener);
        }
        Ok(listeners)
    }

    /// Whether only programs on this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().is_ok_and(|address| address.ip().is_loopback())
            }
            Self::Unix(..) => true,
        }
    }

    /// Listens on an address. A file that a dead server left is replaced.
    ///
    /// # Errors
    /// If the address is in use, or not one of this machine.
    pub fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).map(Self::Tcp),
            Address::Unix(path) => {
                let bound = std::os::unix::net::UnixListener::bind(path).or_else(|error| {
                    let dead = error.kind() == io::ErrorKind::AddrInUse && is_dead(path);
                    if !dead {
                        return Err(error);
                    }
                    std::fs::remove_file(path)?;
                    std::os::unix::net::UnixListener::bind(path)
                })?;
                Ok(Self::Unix(bound, Some(path.clone())))
            }
        }
    }
}

/// Whether a path is a socket on which nobody listens.
fn is_dead(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let connected = std::os::unix::net::UnixStream::connect(path);
    socket && connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a TCP socket"),
            },
            Self::Unix(_, Some(path)) => write!(f, "{}", path.display()),
            Self::Unix(listener, None) => {
                let address = listener.local_addr().ok();
                match address.as_ref().and_then(|address| address.as_pathname()) {
                    Some(path) => path.display().fmt(f),
                    None => f.write_str("a Unix socket"),
                }
            }
        }
    }
}

/// A server with its sockets.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listeners: Vec<Listener>,
    tls: Option<Arc<Tls>>,
    grace: Duration,
}

impl Server {
    /// A server on sockets that listen already.
    ///
    /// # Errors
    /// If the certificate or its key cannot be read.
    pub fn new(
        app: Arc<App>,
        listeners: Vec<Listener>,
        tls: Option<TlsFiles>,
        grace: Duration,
    ) -> io::Result<Self> {
        let tls = tls.map(Tls::read).transpose()?.map(Arc::new);
        Ok(Self { app, listeners, tls, grace })
    }

    /// Serves until it is told to stop. `started` is called once connections are accepted.
    ///
    /// # Errors
    /// If the runtime or the handlers of signals cannot be set up.
    pub fn run(self, started: impl FnOnce()) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("http")
            .enable_all()
            .build()?;
        let result = runtime.block_on(self.serve(started));
        // What blocks (a template that is rendered) is not waited for.
        runtime.shutdown_background();
        result
    }

    async fn serve(self, started: impl FnOnce()) -> io::Result<()> {
        let (end, ending) = watch::channel(false);
        let (connections, mut over) = Connections::new(router(&self.app), ending);
        let mut files = Vec::new();
        let mut accepting = Vec::new();
        for listener in self.listeners {
            let tls = self.tls.clone();
            let connections = connections.clone();
            accepting.push(match listener {
                Listener::Tcp(listener) => {
                    listener.set_nonblocking(true)?;
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tokio::spawn(accept_tcp(listener, connections, tls))
                }
                Listener::Unix(listener, file) => {
                    listener.set_nonblocking(true)?;
                    files.extend(file);
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    tokio::spawn(accept_unix(listener, connections))
                }
            });
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        started();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = self.app.stop.notified() => break,
                _ = hangup.recv() => reload(self.tls.as_deref()),
            }
        }
        self.app.drain();
        end.send_replace(true);
        drop(connections);
        tracing::info!("shutting down: answers in flight have {} s", self.grace.as_secs());
        let finished = async {
            while !self.app.running().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // New connections are still told 503; once the answers are out, no one is waited for.
            for task in &accepting {
                task.abort();
            }
            let _ = timeout(Duration::from_secs(2), over.changed()).await;
        };
        tokio::select! {
            _ = timeout(self.grace, finished) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        for file in files {
            let _ = std::fs::remove_file(file);
        }
        Ok(())
    }
}

fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => tracing::info!("SIGHUP: there is no certificate to read again"),
        Some(Ok(())) => tracing::info!("SIGHUP: the certificate was read again"),
        Some(Err(error)) => tracing::error!("SIGHUP: the old certificate stays: {error}"),
    }
}

async fn accept_tcp(
    listener: tokio::net::TcpListener,
    connections: Connections,
    tls: Option<Arc<Tls>>,
) {
    loop {
        let Some(stream) = accepted(listener.accept().await).await else { continue };
        let _ = stream.set_nodelay(true);
        let connections = connections.clone();
        match &tls {
            None => drop(tokio::spawn(connections.serve(stream))),
            Some(tls) => {
                let acceptor = tls.acceptor();
                tokio::spawn(async move {
                    let agreed = timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await;
                    if let Ok(Ok(stream)) = agreed {
                        connections.serve(stream).await;
                    }
                });
            }
        }
    }
}

async fn accept_unix(listener: tokio::net::UnixListener, connections: Connections) {
    loop {
        let Some(stream) = accepted(listener.accept().await).await else { continue };
        tokio::spawn(connections.clone().serve(stream));
    }
}

/// A connection; without file descriptors left, waits a little.
async fn accepted<S: Wire, A>(result: io::Result<(S, A)>) -> Option<S> {
    match result {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            tracing::warn!("a connection cannot be accepted: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Tells systemd a state (`READY=1`, `STOPPING=1`) over the socket that it named in
/// `NOTIFY_SOCKET`.
///
/// # Errors
/// If nothing listens there.
pub fn notify(socket: &str, state: &str) -> io::Result<()> {
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = Address::Unix(path);
        let live = Listener::bind(&address).unwrap();
        assert!(Listener::bind(&address).is_err());
        drop(live);
        Listener::bind(&address).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(Listener::bind(&Address::Unix(file.clone())).is_err(), "a file is not a socket");
        assert_eq!(std::fs::read(file).unwrap(), b"x");
    }

    #[test]
    fn systemd_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        notify(path.to_str().unwrap(), "READY=1").unwrap();
        let mut buffer = [0; 16];
        let len = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"READY=1");
    }
}
