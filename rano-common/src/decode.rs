//! From the ring buffer's bytes to records: total, whatever the bytes are.

use core::mem::{offset_of, size_of};

use crate::{
    ForkRecord, Header, ImageRecord, PATH, PacketKind, PacketRecord, ProcessKind, ProcessRecord, SocketKind,
    SocketRecord, Verdict,
};

/// Bytes that are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    TooShort,
    UnknownKind(u32),
    /// The record says of itself that it is longer, or holds more, than there is.
    Size(u32),
    /// A verdict that does not exist.
    Verdict(u32),
}

/// A record as it lies in the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    Socket(SocketKind, SocketRecord),
    Process(Told<'a>),
    /// With the packet's bytes, from its IP header on.
    Packet(PacketKind, PacketRecord, &'a [u8]),
}

/// What was told of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    pub kind: ProcessKind,
    pub process: ProcessRecord,
    /// Of a fork, where it could be read.
    pub forker: Option<Forker>,
    /// Up to its NUL; empty where there is none.
    pub path: &'a [u8],
    pub arguments: &'a [u8],
}

/// Who forked a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forker {
    pub pid: u32,
    pub start_ns: u64,
    /// What the kernel programs knew of it then.
    pub verdict: Verdict,
}

/// Takes one record apart.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    let header = header(bytes).ok_or(Malformed::TooShort)?;
    if header.size as usize > bytes.len() {
        return Err(Malformed::Size(header.size));
    }
    if let Some(kind) = SocketKind::ALL.into_iter().find(|kind| *kind as u32 == header.kind) {
        return socket(header, bytes).map(|record| Record::Socket(kind, record)).ok_or(Malformed::TooShort);
    }
    if let Some(kind) = PacketKind::ALL.into_iter().find(|kind| *kind as u32 == header.kind) {
        let packet = packet(header, bytes).ok_or(Malformed::TooShort)?;
        let rest = &bytes[size_of::<PacketRecord>()..];
        let content = rest.get(..packet.length as usize).ok_or(Malformed::Size(packet.length))?;
        return Ok(Record::Packet(kind, packet, content));
    }
    let Some(kind) = ProcessKind::ALL.into_iter().find(|kind| *kind as u32 == header.kind) else {
        return Err(Malformed::UnknownKind(header.kind));
    };
    let process = process(header, bytes).ok_or(Malformed::TooShort)?;
    let told = Told { kind, process, forker: None, path: &[], arguments: &[] };
    Ok(Record::Process(match kind {
        ProcessKind::Fork => Told { forker: forker(bytes)?, ..told },
        ProcessKind::Exit | ProcessKind::Rename => told,
        ProcessKind::Exec | ProcessKind::Sight => {
            let (path, arguments) = image(&process, bytes)?;
            Told { path, arguments, ..told }
        }
    }))
}

fn forker(bytes: &[u8]) -> Result<Option<Forker>, Malformed> {
    let word = |offset| u32_at(bytes, offset).ok_or(Malformed::TooShort);
    let verdict = word(offset_of!(ForkRecord, verdict))?;
    let pid = word(offset_of!(ForkRecord, forker))?;
    let start_ns = u64_at(bytes, offset_of!(ForkRecord, forker_start_ns)).ok_or(Malformed::TooShort)?;
    let verdict = Verdict::of(verdict).ok_or(Malformed::Verdict(verdict))?;
    Ok((pid != 0).then_some(Forker { pid, start_ns, verdict }))
}

fn image<'a>(process: &ProcessRecord, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    const ARGUMENTS: usize = offset_of!(ImageRecord<0>, arguments);
    let path = bytes.get(ARGUMENTS - PATH..ARGUMENTS).ok_or(Malformed::TooShort)?;
    let path = path.iter().position(|&b| b == 0).map_or(&[][..], |end| &path[..end]);
    let rest = &bytes[ARGUMENTS..];
    let arguments = rest.get(..process.arguments as usize).ok_or(Malformed::Size(process.arguments))?;
    Ok((path, arguments))
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_ne_bytes)
}

fn header(bytes: &[u8]) -> Option<Header> {
    Some(Header {
        kind: u32_at(bytes, offset_of!(Header, kind))?,
        size: u32_at(bytes, offset_of!(Header, size))?,
        at_ns: u64_at(bytes, offset_of!(Header, at_ns))?,
    })
}

fn socket(header: Header, bytes: &[u8]) -> Option<SocketRecord> {
    let bytes = bytes.get(..size_of::<SocketRecord>())?;
    Some(SocketRecord {
        header,
        cookie: u64_at(bytes, offset_of!(SocketRecord, cookie))?,
        owner_start_ns: u64_at(bytes, offset_of!(SocketRecord, owner_start_ns))?,
        established_ns: u64_at(bytes, offset_of!(SocketRecord, established_ns))?,
        bytes_sent: u64_at(bytes, offset_of!(SocketRecord, bytes_sent))?,
        bytes_received: u64_at(bytes, offset_of!(SocketRecord, bytes_received))?,
        pid: u32_at(bytes, offset_of!(SocketRecord, pid))?,
        exec_id: u32_at(bytes, offset_of!(SocketRecord, exec_id))?,
        flags: u32_at(bytes, offset_of!(SocketRecord, flags))?,
        netns: u32_at(bytes, offset_of!(SocketRecord, netns))?,
        error: u32_at(bytes, offset_of!(SocketRecord, error))?,
        local_port: u16_at(bytes, offset_of!(SocketRecord, local_port))?,
        remote_port: u16_at(bytes, offset_of!(SocketRecord, remote_port))?,
        family: u16_at(bytes, offset_of!(SocketRecord, family))?,
        protocol: *bytes.get(offset_of!(SocketRecord, protocol))?,
        state_before: *bytes.get(offset_of!(SocketRecord, state_before))?,
        interface: u32_at(bytes, offset_of!(SocketRecord, interface))?,
        local: array(bytes, offset_of!(SocketRecord, local))?,
        remote: array(bytes, offset_of!(SocketRecord, remote))?,
    })
}

fn packet(header: Header, bytes: &[u8]) -> Option<PacketRecord> {
    let bytes = bytes.get(..size_of::<PacketRecord>())?;
    Some(PacketRecord {
        header,
        cookie: u64_at(bytes, offset_of!(PacketRecord, cookie))?,
        netns: u32_at(bytes, offset_of!(PacketRecord, netns))?,
        length: u32_at(bytes, offset_of!(PacketRecord, length))?,
        place: u32_at(bytes, offset_of!(PacketRecord, place))?,
        uid: u32_at(bytes, offset_of!(PacketRecord, uid))?,
    })
}

fn process(header: Header, bytes: &[u8]) -> Option<ProcessRecord> {
    Some(ProcessRecord {
        header,
        start_ns: u64_at(bytes, offset_of!(ProcessRecord, start_ns))?,
        pid: u32_at(bytes, offset_of!(ProcessRecord, pid))?,
        parent: u32_at(bytes, offset_of!(ProcessRecord, parent))?,
        exec_id: u32_at(bytes, offset_of!(ProcessRecord, exec_id))?,
        uid: u32_at(bytes, offset_of!(ProcessRecord, uid))?,
        arguments: u32_at(bytes, offset_of!(ProcessRecord, arguments))?,
        arguments_total: u32_at(bytes, offset_of!(ProcessRecord, arguments_total))?,
        comm: array(bytes, offset_of!(ProcessRecord, comm))?,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// A record of so many bytes, all `fill` behind the header.
    fn record(kind: u32, size: u32, length: usize, fill: u8) -> Vec<u8> {
        let mut bytes = [kind.to_ne_bytes(), size.to_ne_bytes()].concat();
        bytes.extend(42_u64.to_ne_bytes());
        bytes.resize(length, fill);
        bytes
    }

    fn exec(arguments: &[u8], said: u32) -> Vec<u8> {
        let mut bytes = record(ProcessKind::Exec as u32, 0, 320, 0);
        bytes[40..44].copy_from_slice(&said.to_ne_bytes());
        bytes[64..72].copy_from_slice(b"/bin/cat");
        bytes.extend(arguments);
        bytes
    }

    #[test]
    fn a_socket_is_read_field_by_field() {
        let mut bytes = record(SocketKind::Closed as u32, 120, 120, 0);
        bytes[16..24].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[76..78].copy_from_slice(&4000_u16.to_ne_bytes());
        bytes[104..108].copy_from_slice(&[127, 0, 0, 1]);
        let Ok(Record::Socket(SocketKind::Closed, socket)) = decode(&bytes) else {
            panic!("{:?}", decode(&bytes))
        };
        assert_eq!((socket.cookie, socket.local_port, socket.header.at_ns), (77, 4000, 42));
        assert_eq!(socket.remote[..4], [127, 0, 0, 1]);
    }

    #[test]
    fn an_exec_has_its_path_and_as_many_arguments_as_it_says() {
        let bytes = exec(b"cat\0-n\0beyond", 7);
        let Ok(Record::Process(Told { path, arguments, .. })) = decode(&bytes) else {
            panic!("{:?}", decode(&bytes))
        };
        assert_eq!((path, arguments), (&b"/bin/cat"[..], &b"cat\0-n\0"[..]));
        assert_eq!(decode(&exec(b"cat\0", 5)), Err(Malformed::Size(5)));
    }

    #[test]
    fn a_fork_has_its_forker() {
        let mut bytes = record(ProcessKind::Fork as u32, 80, 80, 0);
        bytes[64..72].copy_from_slice(&5_u64.to_ne_bytes());
        bytes[72..76].copy_from_slice(&77_u32.to_ne_bytes());
        bytes[76] = Verdict::Tracked as u8;
        let Ok(Record::Process(told)) = decode(&bytes) else { panic!("{:?}", decode(&bytes)) };
        assert_eq!(told.forker, Some(Forker { pid: 77, start_ns: 5, verdict: Verdict::Tracked }));
        bytes[76] = 99;
        assert_eq!(decode(&bytes), Err(Malformed::Verdict(99)));
        bytes[72..77].fill(0);
        assert!(matches!(decode(&bytes), Ok(Record::Process(Told { forker: None, .. }))));
        assert_eq!(decode(&record(ProcessKind::Fork as u32, 64, 64, 0)), Err(Malformed::TooShort));
    }

    #[test]
    fn a_packet_has_as_many_bytes_as_it_says() {
        let mut bytes = record(PacketKind::Received as u32, 0, 40, 0);
        bytes[28] = 3;
        bytes.extend(b"abcdef");
        let Ok(Record::Packet(PacketKind::Received, packet, content)) = decode(&bytes) else {
            panic!("{:?}", decode(&bytes))
        };
        assert_eq!((packet.length, content), (3, &b"abc"[..]));
        bytes[28] = 7;
        assert_eq!(decode(&bytes), Err(Malformed::Size(7)));
    }

    #[test]
    fn a_path_without_an_end_is_none() {
        let mut bytes = exec(b"", 0);
        bytes[64..320].fill(b'x');
        assert!(matches!(decode(&bytes), Ok(Record::Process(Told { path: b"", .. }))));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error() {
        assert_eq!(decode(b""), Err(Malformed::TooShort));
        assert_eq!(decode(&record(15, 0, 16, 0)), Err(Malformed::UnknownKind(15)));
        assert_eq!(decode(&record(1, 121, 120, 0)), Err(Malformed::Size(121)));
        for kind in 0..64 {
            for length in 0..400 {
                for fill in [0, 1, 0xff] {
                    let bytes = record(kind, 0, length.max(16), fill);
                    let _ = decode(&bytes[..length]);
                }
            }
        }
    }
}
