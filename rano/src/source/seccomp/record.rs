//! What the supervisor tells: records of at most a page in a pipe. The kernel writes such a one whole or not at all
//! (`PIPE_BUF`). Both ends are the same program, so numbers are as the machine has them.

use std::net::{IpAddr, SocketAddr};

use super::cursor::{In, Out};

/// `PIPE_BUF`
pub(super) const LONGEST: usize = 4096;
/// Length and kind.
pub(super) const HEADER: usize = 3;
/// Arguments of a process that are told; the rest is cut.
pub(super) const ARGUMENTS: usize = 3072;
/// Bytes of a question that are told: more fits into no message without EDNS (RFC 1035).
pub(super) const QUESTION: usize = 512;

/// A process at the moment of a call: pid and start time, as `/proc/<pid>/stat` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Who {
    pub(super) pid: u32,
    pub(super) start_time: u64,
}

/// A socket as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Facts {
    pub(super) cookie: u64,
    pub(super) inode: u64,
    /// Of the network namespace; 0 for the supervisor's own.
    pub(super) netns: u32,
    /// `AF_INET`, `AF_INET6`
    pub(super) family: u16,
    /// `IPPROTO_TCP` …
    pub(super) protocol: u16,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Connect = 1,
    Send = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The filter is installed (0), or why not.
    Installed {
        errno: i32,
    },
    /// The command's process is there, and waits.
    Started {
        who: Who,
    },
    /// It could not run its program.
    NotRun {
        errno: i32,
    },
    /// A process, before the first call of its program that is told.
    Process {
        who: Who,
        parent: u32,
        uid: u32,
        has_changed: bool,
        at_ns: u64,
        comm: Vec<u8>,
        exe: Vec<u8>,
        cwd: Vec<u8>,
        arguments: Vec<u8>,
    },
    /// A call on an inet socket. `address` is what the caller passed.
    Called {
        who: Who,
        at_ns: u64,
        way: Way,
        socket: Facts,
        address: Option<SocketAddr>,
    },
    /// A call of which address or socket may not be read. `is_connect`: else a datagram may have been sent.
    Unread {
        who: Who,
        is_connect: bool,
    },
    /// A look-up, as the caller sends it.
    Question {
        who: Who,
        at_ns: u64,
        socket: Facts,
        server: SocketAddr,
        message: Vec<u8>,
    },
    Ring {
        who: Who,
    },
    /// A program is about to be run.
    Exec {
        who: Who,
        path: Vec<u8>,
    },
    /// The command's process stands still.
    Stopped,
    /// Wait status of the command's process.
    Ended {
        status: i32,
    },
    /// Records that found no room since the last such one.
    Lost {
        count: u64,
    },
}

pub(super) fn put_who(out: &mut Out, who: Who) {
    out.u32(who.pid);
    out.u64(who.start_time);
}

fn get_who(bytes: &mut In<'_>) -> Option<Who> {
    Some(Who { pid: bytes.u32()?, start_time: bytes.u64()? })
}

pub(super) fn put_address(out: &mut Out, address: Option<SocketAddr>) {
    match address {
        None => out.u8(0),
        Some(SocketAddr::V4(address)) => {
            out.u8(4);
            out.u16(address.port());
            out.raw(&address.ip().octets());
        }
        Some(SocketAddr::V6(address)) => {
            out.u8(6);
            out.u16(address.port());
            out.raw(&address.ip().octets());
            out.u32(address.scope_id());
        }
    }
}

/// `None` where there is none, and where the record is cut.
fn get_address(bytes: &mut In<'_>) -> Option<SocketAddr> {
    match bytes.u8()? {
        4 => {
            let port = bytes.u16()?;
            Some(SocketAddr::new(IpAddr::from(*bytes.array::<4>()?), port))
        }
        6 => {
            let (port, ip) = (bytes.u16()?, *bytes.array::<16>()?);
            Some(std::net::SocketAddrV6::new(ip.into(), port, 0, bytes.u32()?).into())
        }
        _ => None,
    }
}

pub(super) fn put_facts(out: &mut Out, facts: &Facts) {
    out.u64(facts.cookie);
    out.u64(facts.inode);
    out.u32(facts.netns);
    out.u16(facts.family);
    out.u16(facts.protocol);
    put_address(out, facts.local);
    put_address(out, facts.peer);
}

fn get_facts(bytes: &mut In<'_>) -> Option<Facts> {
    Some(Facts {
        cookie: bytes.u64()?,
        inode: bytes.u64()?,
        netns: bytes.u32()?,
        family: bytes.u16()?,
        protocol: bytes.u16()?,
        local: get_address(bytes),
        peer: get_address(bytes),
    })
}

/// Numbers of the kinds.
pub(super) mod kind {
    pub(in super::super) const INSTALLED: u8 = 1;
    pub(in super::super) const STARTED: u8 = 2;
    pub(in super::super) const NOT_RUN: u8 = 3;
    pub(in super::super) const PROCESS: u8 = 4;
    pub(in super::super) const CALLED: u8 = 5;
    pub(in super::super) const UNREAD: u8 = 6;
    pub(in super::super) const QUESTION: u8 = 7;
    pub(in super::super) const RING: u8 = 8;
    pub(in super::super) const EXEC: u8 = 9;
    pub(in super::super) const STOPPED: u8 = 10;
    pub(in super::super) const ENDED: u8 = 11;
    pub(in super::super) const LOST: u8 = 12;
}

/// The first record of `bytes` and its length; `None` where it is not whole yet. What is no record is an error.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Record, usize)>, Malformed> {
    let Some(head) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(Malformed);
    }
    let Some(body) = bytes.get(HEADER..length) else { return Ok(None) };
    let record = parse(head[2], &mut In::new(body)).ok_or(Malformed)?;
    Ok(Some((record, length)))
}

/// Not what a supervisor writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

fn parse(kind: u8, bytes: &mut In<'_>) -> Option<Record> {
    Some(match kind {
        kind::INSTALLED => Record::Installed { errno: bytes.i32()? },
        kind::STARTED => Record::Started { who: get_who(bytes)? },
        kind::NOT_RUN => Record::NotRun { errno: bytes.i32()? },
        kind::PROCESS => Record::Process {
            who: get_who(bytes)?,
            parent: bytes.u32()?,
            uid: bytes.u32()?,
            has_changed: bytes.u8()? != 0,
            at_ns: bytes.u64()?,
            comm: bytes.text()?.to_vec(),
            exe: bytes.text()?.to_vec(),
            cwd: bytes.text()?.to_vec(),
            arguments: bytes.text()?.to_vec(),
        },
        kind::CALLED => Record::Called {
            who: get_who(bytes)?,
            at_ns: bytes.u64()?,
            way: if bytes.u8()? == Way::Connect as u8 { Way::Connect } else { Way::Send },
            socket: get_facts(bytes)?,
            address: get_address(bytes),
        },
        kind::UNREAD => Record::Unread { who: get_who(bytes)?, is_connect: bytes.u8()? != 0 },
        kind::QUESTION => Record::Question {
            who: get_who(bytes)?,
            at_ns: bytes.u64()?,
            socket: get_facts(bytes)?,
            server: get_address(bytes)?,
            message: bytes.text()?.to_vec(),
        },
        kind::RING => Record::Ring { who: get_who(bytes)? },
        kind::EXEC => Record::Exec { who: get_who(bytes)?, path: bytes.text()?.to_vec() },
        kind::STOPPED => Record::Stopped,
        kind::ENDED => Record::Ended { status: bytes.i32()? },
        kind::LOST => Record::Lost { count: bytes.u64()? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: u8, fill: impl FnOnce(&mut Out)) -> Vec<u8> {
        let mut out = Out::new();
        out.begin(kind);
        fill(&mut out);
        out.finish().to_vec()
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_whole_waits() {
        let who = Who { pid: 7, start_time: 1 << 40 };
        let socket = Facts {
            cookie: 99,
            inode: 4,
            netns: 5,
            family: 10,
            protocol: 6,
            local: Some("[fe80::1%3]:8".parse().expect("an address")),
            peer: Some("1.2.3.4:443".parse().expect("an address")),
        };
        let bytes = written(kind::CALLED, |out| {
            put_who(out, who);
            out.u64(123);
            out.u8(Way::Send as u8);
            put_facts(out, &socket);
            put_address(out, None);
        });
        let record = Record::Called { who, at_ns: 123, way: Way::Send, socket, address: None };
        assert_eq!(read(&bytes), Ok(Some((record, bytes.len()))));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), Ok(None), "{length}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_any_bytes_are_survived() {
        let bytes = written(kind::EXEC, |out| {
            put_who(out, Who::default());
            out.text(&[b'x'; 9000], 9000);
        });
        assert!(bytes.len() <= LONGEST);
        let Ok(Some((Record::Exec { path, .. }, _))) = read(&bytes) else { panic!("it is an exec") };
        assert!(path.len() > 4000);
        for seed in 0..=255_u8 {
            let noise: Vec<u8> = (0..64_u8).map(|at| at.wrapping_mul(seed) ^ seed).collect();
            let _ = read(&noise);
            let _ = parse(seed, &mut In::new(&noise));
        }
    }
}
