//! Socket tables as text, `/proc/<pid>/net/{tcp,tcp6,udp,udp6,unix}`: for other network namespaces, and where
//! netlink is refused. Read line by line in one buffer; a line that is not understood is counted and left out.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::inet::{InetSocket, TcpState, canonical, connected};
use super::sock_diag::Dumped;
use super::unix::{UnixKind, UnixSocket};
use crate::event::Protocol;

/// Many lines at once; the longest line that is understood.
const BUFFER: usize = 64 * 1024;

/// Every TCP socket of the namespace whose `/proc/<pid>/net` is `net`, `TIME_WAIT` included.
pub fn tcp(net: &Path, each: impl FnMut(&InetSocket)) -> io::Result<Dumped> {
    inet(net, Protocol::Tcp, ["tcp", "tcp6"], each)
}

/// Every bound UDP socket of the namespace whose `/proc/<pid>/net` is `net`.
pub fn udp(net: &Path, each: impl FnMut(&InetSocket)) -> io::Result<Dumped> {
    inet(net, Protocol::Udp, ["udp", "udp6"], each)
}

/// Every socket of another transport of the namespace whose `/proc/<pid>/net` is `net`: raw, ping and UDP-Lite sockets,
/// and packet sockets, of which there is the inode alone. A kernel may lack each of these tables.
pub fn others(
    net: &Path,
    mut each: impl FnMut(&InetSocket),
    mut packet: impl FnMut(u64),
) -> io::Result<Dumped> {
    const RAW: Protocol = Protocol::Ip(255);
    const TABLES: [(&str, Protocol); 6] = [
        ("raw", RAW),
        ("raw6", RAW),
        ("icmp", Protocol::Ip(1)),
        ("icmp6", Protocol::Ip(58)),
        ("udplite", Protocol::UdpLite),
        ("udplite6", Protocol::UdpLite),
    ];
    let mut total = Dumped::default();
    let mut read = |name: &str, understand: &mut dyn FnMut(&[u8]) -> bool| -> io::Result<()> {
        let file = match File::open(net.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let dumped = lines(file, understand)?;
        total.sockets += dumped.sockets;
        total.skipped += dumped.skipped;
        Ok(())
    };
    for (name, protocol) in TABLES {
        read(name, &mut |line| {
            let Some(mut socket) = parse_inet(line, protocol) else { return false };
            if protocol == RAW {
                // Its protocol stands where others have their port.
                socket.protocol = u8::try_from(socket.local.port()).map_or(RAW, Protocol::Ip);
            }
            each(&socket);
            true
        })?;
    }
    read("packet", &mut |line| parse_packet(line).map(&mut packet).is_some())?;
    Ok(total)
}

/// `ffff8881001f7000 3      3    0003   2     1 0        0      12345 `: the inode is the last.
fn parse_packet(line: &[u8]) -> Option<u64> {
    decimal(words(line).nth(8)?)
}

/// Every unix socket of the namespace whose `/proc/<pid>/net` is `net`; their other ends are not told.
pub fn unix(net: &Path, mut each: impl FnMut(&UnixSocket)) -> io::Result<Dumped> {
    lines(File::open(net.join("unix"))?, |line| parse_unix(line).inspect(&mut each).is_some())
}

fn inet(
    net: &Path,
    protocol: Protocol,
    names: [&str; 2],
    mut each: impl FnMut(&InetSocket),
) -> io::Result<Dumped> {
    let mut total = Dumped::default();
    for name in names {
        let file = match File::open(net.join(name)) {
            // A kernel without IPv6 has no second table. Without the first there is no table at all.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => continue,
            file => file?,
        };
        let dumped = lines(file, |line| parse_inet(line, protocol).inspect(|s| each(s)).is_some())?;
        total.sockets += dumped.sockets;
        total.skipped += dumped.skipped;
    }
    Ok(total)
}

/// Hands every line but the first, a heading, to `understand`.
fn lines(mut file: impl io::Read, mut understand: impl FnMut(&[u8]) -> bool) -> io::Result<Dumped> {
    let mut dumped = Dumped::default();
    let mut buffer = vec![0; BUFFER];
    let (mut filled, mut heading, mut overlong) = (0, true, false);
    loop {
        let count = match file.read(&mut buffer[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let end = filled + count;
        let mut start = 0;
        while let Some(length) = buffer[start..end].iter().position(|&byte| byte == b'\n') {
            let understood = overlong || heading || understand(&buffer[start..start + length]);
            dumped.sockets += u64::from(understood && !heading && !overlong);
            dumped.skipped += u64::from(!understood || overlong);
            (heading, overlong) = (false, false);
            start += length + 1;
        }
        if count == 0 {
            // The kernel ends every line: what is left was cut off.
            dumped.skipped += u64::from(start < end || overlong);
            return Ok(dumped);
        }
        buffer.copy_within(start..end, 0);
        filled = end - start;
        if filled == BUFFER {
            (filled, overlong) = (0, true);
        }
    }
}

/// `  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 12345 …`
pub fn parse_inet(line: &[u8], protocol: Protocol) -> Option<InetSocket> {
    let mut words = words(line).skip(1);
    let local = address(words.next()?)?;
    let remote = address(words.next()?)?;
    let state = u8::try_from(hexadecimal(words.next()?)?).ok()?;
    let (send_queue, receive_queue) = split_colon(words.next()?)?;
    let mut words = words.skip(2);
    let uid = decimal(words.next()?)?;
    let inode = decimal(words.nth(1)?)?;
    Some(InetSocket {
        protocol,
        local,
        remote: connected(remote),
        state: TcpState::try_from(state).ok()?,
        interface: 0,
        inode,
        uid: u32::try_from(uid).ok()?,
        cookie: None,
        receive_queue: hexadecimal(receive_queue)?,
        send_queue: hexadecimal(send_queue)?,
        expires_ms: 0,
        counters: None,
    })
}

/// `0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a path`: number of users, protocol, flags, type,
/// `enum socket_state`, inode and, after one blank, the name with its blanks.
pub fn parse_unix(line: &[u8]) -> Option<UnixSocket> {
    /// `__SO_ACCEPTCON`, in the flags of a listener.
    const LISTENS: u32 = 0x1_0000;
    let mut rest = line;
    let mut word = || -> Option<&[u8]> {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    };
    let _users_and_protocol = (word()?, word()?, word()?);
    let flags = hexadecimal(word()?)?;
    let kind = i32::try_from(hexadecimal(word()?)?).ok()?;
    let state = hexadecimal(word()?)?;
    let inode = decimal(word()?)?;
    let path = rest.strip_prefix(b" ").filter(|path| !path.is_empty());
    Some(UnixSocket {
        kind: UnixKind::from_raw(kind)?,
        state: match state {
            _ if flags & LISTENS != 0 => TcpState::Listen,
            2 => TcpState::SynSent,
            3 => TcpState::Established,
            _ => TcpState::Close,
        },
        inode,
        peer: None,
        path: path.map(|path| String::from_utf8_lossy(path).into_owned()),
        cookie: None,
    })
}

/// `0100007F:1F90`: the address as 32-bit words in the machine's byte order, the port in reading order.
fn address(word: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = split_colon(word)?;
    let port = u16::try_from(hexadecimal(port)?).ok()?;
    match ip.len() {
        8 => Some(SocketAddr::from((Ipv4Addr::from(hexadecimal(ip)?.to_ne_bytes()), port))),
        32 => {
            let mut bytes = [0; 16];
            for (bytes, digits) in bytes.chunks_exact_mut(4).zip(ip.chunks_exact(8)) {
                bytes.copy_from_slice(&hexadecimal(digits)?.to_ne_bytes());
            }
            Some(canonical(Ipv6Addr::from(bytes), port, 0))
        }
        _ => None,
    }
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn split_colon(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = word.iter().position(|&byte| byte == b':')?;
    Some((&word[..colon], &word[colon + 1..]))
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0u32, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
