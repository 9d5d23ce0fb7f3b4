//! What a filter means, apart from how it is written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::glob::Glob;

/// A filter or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Each of them holds; of none, it holds.
    All(Vec<Node>),
    /// One of them holds.
    Any(Vec<Node>),
    Not(Box<Node>),
    Term(Term),
}

/// One condition. Of what has no such value it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// One of the patterns fits the whole text.
    Text(TextKey, Vec<Glob>),
    /// It is one of these words, each in the spelling of every other format.
    Word(WordKey, Vec<&'static str>),
    /// It lies in one of the ranges.
    Number(NumberKey, Vec<Range>),
    /// The remote address lies in one of the networks.
    Ip(Vec<Network>),
    /// It raised an alert, or did not.
    Alert(bool),
    /// The text, in ASCII lower case, stands in name, address, program or command line.
    Anywhere(String),
}

/// Texts that are compared with patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKey {
    Domain,
    /// The command's name, or the executable by its whole path or its last part.
    Process,
    /// What a person calls the process.
    Program,
    Provider,
    Agent,
    /// The command line of the tool call.
    Tool,
}

/// Texts of which all values are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordKey {
    Type,
    Protocol,
    State,
    Event,
    Source,
    Quality,
}

/// Numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKey {
    Pid,
    /// Of the remote end.
    Port,
    /// Bytes.
    Sent,
    /// Bytes.
    Received,
    /// Milliseconds.
    Duration,
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
}

/// All numbers that are so to `than`. Numbers are at most `i64::MAX`, the largest that the history holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub ordering: Ordering,
    pub than: u64,
}

impl Range {
    pub fn contains(self, number: u64) -> bool {
        match self.ordering {
            Ordering::Above => number > self.than,
            Ordering::AtLeast => number >= self.than,
            Ordering::Below => number < self.than,
            Ordering::AtMost => number <= self.than,
            Ordering::Equal => number == self.than,
        }
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `None` where an address has not so many bits. An IPv4-mapped network is the IPv4 one.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return None;
        }
        let canonical = address.to_canonical();
        if canonical.is_ipv4() && address.is_ipv6() && prefix >= 96 {
            return Some(Self { address: canonical, prefix: prefix - 96 });
        }
        Some(Self { address, prefix })
    }

    /// Its first address, or another one of it.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that are the same in all of its addresses.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let above = |bits: u32| bits - u32::from(self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(above(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(above(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// `10.0.0.0/8`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// An address alone is a network of its own.
impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.map_or(Some(bits), |text| Some(text).filter(is_number)?.parse().ok());
        prefix.and_then(|prefix| Self::new(address, prefix)).ok_or(NetworkError::Prefix { bits })
    }
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkError {
    Address,
    /// Of an address with so many bits.
    Prefix {
        bits: u8,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => {
                f.write_str("not an address; as ip:192.0.2.1, ip:10.0.0.0/8 or ip:2001:db8::/32")
            }
            Self::Prefix { bits } => write!(f, "an address like this has {bits} bits: /0 to /{bits}"),
        }
    }
}

impl std::error::Error for NetworkError {}
