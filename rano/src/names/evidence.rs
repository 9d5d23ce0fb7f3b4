//! What is told of names: by a DNS answer, by the first packet of a TLS or QUIC connection, by a reverse look-up. Whose
//! it is, is for the one who joins it with sockets to say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::SocketId;
use crate::event::{DomainSource, Moment, Protocol};

/// One piece of evidence. Names are lower case, without the final dot, and raw: escape before showing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    Answer(Answer),
    Greeting(Greeting),
    Pointer(Pointer),
}

impl Evidence {
    pub fn at(&self) -> Moment {
        match self {
            Self::Answer(answer) => answer.at,
            Self::Greeting(greeting) => greeting.at,
            Self::Pointer(pointer) => pointer.at,
        }
    }

    pub fn at_mut(&mut self) -> &mut Moment {
        match self {
            Self::Answer(answer) => &mut answer.at,
            Self::Greeting(greeting) => &mut greeting.at,
            Self::Pointer(pointer) => &mut pointer.at,
        }
    }
}

/// Whose packet it was: the end that asked, or that greets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The very socket.
    Socket(SocketId),
    /// What a packet shows, as that end sees it. IPv4-mapped IPv6 is IPv4.
    Flow { protocol: Protocol, local: SocketAddr, remote: SocketAddr },
}

/// A DNS answer (RFC 1035) as its asker received it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub at: Moment,
    pub to: Party,
    /// The user whose socket received it, where the kernel says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name that was asked for, not what it is an alias of.
    pub asked: Arc<str>,
    /// Where the chain of aliases ends, and for how long that holds: the smallest TTL on the way.
    pub addresses: Vec<(IpAddr, Duration)>,
}

/// What a client says first: the server's name in a TLS `ClientHello` (RFC 6066, section 3) or a QUIC Initial (RFC
/// 9001), or where a proxy is to connect to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Greeting {
    pub at: Moment,
    pub from: Party,
    pub name: Arc<str>,
    /// `Sni`, `Quic`, or `EchOuter` where the true name is hidden; `Proxy` of a request to one.
    pub by: DomainSource,
    /// Of a request to a proxy: which port there. `name` may then be an IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a reverse look-up found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pointer {
    pub at: Moment,
    pub address: IpAddr,
    /// `None`: it has none, or nobody answered in time.
    pub name: Option<Arc<str>>,
    /// The name leads back to the address: whoever has the address did not just make it up.
    #[serde(default)]
    pub confirmed: bool,
    /// How long the answer holds, or how long not to ask again.
    #[serde(default)]
    pub lasts: Duration,
}
