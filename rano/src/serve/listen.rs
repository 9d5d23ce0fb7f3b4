//! Where clients come: a port of this machine, or a unix socket.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::Router;
use axum::serve::ListenerExt as _;
use rustix::fs::Mode;

use super::gate::Gate;
use super::guard::{Hosts, Token};
use crate::files::Files;

/// What `--listen` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Address(SocketAddr),
    Path(PathBuf),
}

impl Default for Listen {
    /// Any port, for this machine only.
    fn default() -> Self {
        Self::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path".to_owned()),
            Some(path) => Ok(Self::Path(path.into())),
            None => text.parse().map(Self::Address).map_err(|_| {
                format!("'{text}' is no ADDRESS:PORT (127.0.0.1:0, [::1]:8080) and no unix:PATH")
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Others than those on this machine can come.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Address(address) if !address.ip().is_loopback())
    }

    /// A path is made with the rights of whoever named it.
    pub fn bind(&self, files: &Files) -> io::Result<Bound> {
        match self {
            Self::Address(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Bound::Address(listener.local_addr()?, listener))
            }
            Self::Path(path) => {
                let path = std::path::absolute(path)?;
                let named = path.clone();
                let listener = files.with_rights(move |_| bind(&named))?;
                listener.set_nonblocking(true)?;
                Ok(Bound::Path(Socket { path, files: files.clone() }, listener))
            }
        }
    }
}

/// For its owner alone. A socket that nobody answers at is left over and taken away.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path).or_else(|error| {
        let refused =
            || UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if error.kind() != io::ErrorKind::AddrInUse || !refused() {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        UnixListener::bind(path)
    });
    rustix::process::umask(before);
    bound
}

/// A socket in the file system, taken away when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    files: Files,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let _ = self.files.with_rights(move |_| std::fs::remove_file(path));
    }
}

/// Something that listens.
#[derive(Debug)]
pub enum Bound {
    Address(SocketAddr, TcpListener),
    Path(Socket, UnixListener),
}

impl Bound {
    /// What a person opens. The token stands in the fragment, which no server is sent and no log has.
    pub fn url(&self, token: &Token) -> String {
        match self {
            Self::Address(address, _) => format!("http://{address}/#token={}", token.text()),
            Self::Path(socket, _) => format!("unix:{}#token={}", socket.path.display(), token.text()),
        }
    }

    pub(super) fn hosts(&self) -> Hosts {
        match self {
            Self::Address(address, _) => Hosts::Address(*address),
            Self::Path(..) => Hosts::Any,
        }
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, router: Router) {
        match self {
            Self::Address(_, listener) => {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let listener = listener.tap_io(|client| {
                    let _ = client.set_nodelay(true);
                });
                let _ = axum::serve(Gate::new(listener), router).await;
            }
            Self::Path(_socket, listener) => {
                let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
                let _ = axum::serve(Gate::new(listener), router).await;
            }
        }
    }
}
