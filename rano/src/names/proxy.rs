//! What a client asks a proxy for: `CONNECT` and whole addresses in HTTP (RFC 9112, section 3.2), SOCKS 5 (RFC 1928),
//! SOCKS 4 and 4a. Host and port are taken, and nothing else: paths, headers and passwords are not even looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::host_name;

/// A request line whose host does not stand within so many bytes is none. The kernel programs copy 512.
const LINE_MAX: usize = 1024;
/// The longest method that anybody has registered is shorter.
const METHOD_MAX: usize = 24;
/// The name of a user of SOCKS 4.
const USER_MAX: usize = 255;
/// The first byte of all that a client of SOCKS 5 says but for a password.
pub const SOCKS_5: u8 = 5;
const SOCKS_4: u8 = 4;
const SOCKS_CONNECT: u8 = 1;
const SOCKS_IPV4: u8 = 1;
const SOCKS_NAME: u8 = 3;
const SOCKS_IPV6: u8 = 4;

/// What the beginning of a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// As far as it goes, it may become a request.
    Unfinished,
    Finished(Asked),
    /// A client of SOCKS 5 says in so many bytes how it can prove who it is. The request comes when the server has
    /// answered, perhaps after a password.
    SocksOffer(usize),
    /// A request for something that is no host, or none.
    Other,
}

/// Where a proxy is to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// A host name in lower case, or an IP address without brackets.
    pub host: Arc<str>,
    /// Never 0.
    pub port: u16,
}

impl Request {
    fn of(host: Option<Arc<str>>, port: u16) -> Self {
        match host {
            Some(host) if port != 0 => Self::Finished(Asked { host, port }),
            Some(_) | None => Self::Other,
        }
    }
}

/// Whether a stream that begins so may hold a request.
pub fn may_begin(stream: &[u8]) -> bool {
    from_stream(stream) != Request::Other
}

/// Reads what a client sends first.
pub fn from_stream(stream: &[u8]) -> Request {
    match stream.first() {
        None => Request::Unfinished,
        Some(&SOCKS_5) => socks_5_offer(stream),
        Some(&SOCKS_4) => socks_4(stream),
        Some(first) if first.is_ascii_uppercase() => http(stream),
        Some(_) => Request::Other,
    }
}

/// Reads what a client of SOCKS 5 sends after its offer.
pub fn from_socks_5(stream: &[u8]) -> Request {
    let wanted = [SOCKS_5, SOCKS_CONNECT, 0];
    if stream.iter().zip(wanted).any(|(byte, wanted)| *byte != wanted) {
        return Request::Other;
    }
    let Some((&kind, rest)) = stream.get(3..).and_then(<[u8]>::split_first) else {
        return Request::Unfinished;
    };
    let (length, rest) = match (kind, rest.split_first()) {
        (SOCKS_IPV4, _) => (4, rest),
        (SOCKS_IPV6, _) => (16, rest),
        (SOCKS_NAME, Some((&length, rest))) => (usize::from(length), rest),
        (SOCKS_NAME, None) => return Request::Unfinished,
        _ => return Request::Other,
    };
    let Some((host, rest)) = rest.split_at_checked(length) else { return Request::Unfinished };
    let Some(port) = rest.first_chunk() else { return Request::Unfinished };
    let host = match kind {
        SOCKS_NAME => host_from_text(host),
        _ => host_from_bytes(host),
    };
    Request::of(host, u16::from_be_bytes(*port))
}

/// Version, number of methods, methods: nothing may follow before the server has answered.
fn socks_5_offer(stream: &[u8]) -> Request {
    match stream.get(1) {
        None => Request::Unfinished,
        Some(0) => Request::Other,
        Some(&methods) => match stream.len().cmp(&(2 + usize::from(methods))) {
            std::cmp::Ordering::Less => Request::Unfinished,
            std::cmp::Ordering::Equal => Request::SocksOffer(stream.len()),
            std::cmp::Ordering::Greater => Request::Other,
        },
    }
}

/// Version, command, port, address, user; of SOCKS 4a the address is 0.0.0.x and a name follows.
fn socks_4(stream: &[u8]) -> Request {
    if stream.get(1).is_some_and(|command| *command != SOCKS_CONNECT) {
        return Request::Other;
    }
    let Some((head, rest)) = stream.split_first_chunk::<8>() else { return Request::Unfinished };
    let port = u16::from_be_bytes([head[2], head[3]]);
    let address = [head[4], head[5], head[6], head[7]];
    let Some(user) = rest.iter().position(|byte| *byte == 0) else {
        return if rest.len() > USER_MAX { Request::Other } else { Request::Unfinished };
    };
    if address[..3] != [0, 0, 0] || address[3] == 0 {
        return Request::of(host_from_bytes(&address), port);
    }
    let name = &rest[user + 1..];
    match name.iter().position(|byte| *byte == 0) {
        Some(length) => Request::of(host_from_text(&name[..length]), port),
        None if name.len() > USER_MAX => Request::Other,
        None => Request::Unfinished,
    }
}

fn http(stream: &[u8]) -> Request {
    let line = &stream[..stream.len().min(LINE_MAX)];
    let unfinished = if stream.len() < LINE_MAX { Request::Unfinished } else { Request::Other };
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method > METHOD_MAX {
        return Request::Other;
    }
    match line.get(method) {
        None => unfinished,
        Some(b' ') if &line[..method] == b"CONNECT" => connect(&line[method + 1..], unfinished),
        Some(b' ') => absolute(&line[method + 1..], unfinished),
        Some(_) => Request::Other,
    }
}

/// `host:port HTTP/1.1`.
fn connect(target: &[u8], unfinished: Request) -> Request {
    let Some(end) = target.iter().position(|byte| !is_of_authority(*byte)) else { return unfinished };
    let (authority, version) = target.split_at(end);
    let wanted = b" HTTP/1.";
    if version.iter().zip(wanted).any(|(byte, wanted)| byte != wanted) {
        return Request::Other;
    }
    if version.len() < wanted.len() {
        return unfinished;
    }
    from_authority(authority, None)
}

/// `http://user:password@host:port/path`. Of servers' own paths, which begin with a slash, this says nothing.
fn absolute(target: &[u8], unfinished: Request) -> Request {
    let schemes: [(&[u8], u16); 2] = [(b"http://", 80), (b"https://", 443)];
    for (scheme, port) in schemes {
        let length = scheme.len().min(target.len());
        if !target[..length].eq_ignore_ascii_case(&scheme[..length]) {
            continue;
        }
        let Some(rest) = target.get(scheme.len()..) else { return unfinished };
        let Some(end) = rest.iter().position(|byte| !is_of_authority(*byte)) else { return unfinished };
        if !matches!(rest[end], b'/' | b'?' | b'#' | b' ') {
            return Request::Other;
        }
        return from_authority(&rest[..end], Some(port));
    }
    Request::Other
}

/// Visible, and none of what ends an authority (RFC 3986, section 3.2).
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'\\')
}

fn from_authority(authority: &[u8], default_port: Option<u16>) -> Request {
    // Who asks stands before the last @.
    let place = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let place = &authority[place..];
    let (host, port) = match place.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !place[colon..].contains(&b']') => (&place[..colon], Some(&place[colon + 1..])),
        Some(_) | None => (place, None),
    };
    let port = match port {
        None | Some([]) => default_port,
        Some(digits) => number(digits),
    };
    let Some(port) = port else { return Request::Other };
    let host = match host {
        [b'[', address @ .., b']'] => ip(address).filter(IpAddr::is_ipv6).map(text),
        _ => host_from_text(host),
    };
    Request::of(host, port)
}

fn number(digits: &[u8]) -> Option<u16> {
    let is_number = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn host_from_text(host: &[u8]) -> Option<Arc<str>> {
    ip(host).map(text).or_else(|| host_name::from_text(host))
}

fn host_from_bytes(address: &[u8]) -> Option<Arc<str>> {
    let v4 = <[u8; 4]>::try_from(address).ok().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    let v6 = || <[u8; 16]>::try_from(address).ok().map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
    v4.or_else(v6).map(text)
}

fn ip(host: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(host).ok()?.parse().ok()
}

/// As everywhere: IPv4-mapped IPv6 is IPv4.
fn text(ip: IpAddr) -> Arc<str> {
    ip.to_canonical().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, port: u16) -> Request {
        Request::Finished(Asked { host: host.into(), port })
    }

    fn socks_5(kind: u8, host: &[u8], port: u16) -> Vec<u8> {
        [&[SOCKS_5, SOCKS_CONNECT, 0, kind], host, &port.to_be_bytes()].concat()
    }

    #[test]
    fn a_request_to_an_http_proxy_names_host_and_port() {
        for (line, host, port) in [
            ("CONNECT Api.Example.com:443 HTTP/1.1\r\nHost: other.example", "api.example.com", 443),
            ("CONNECT api.example:8443 HTTP/1.0\r\n\r\n", "api.example", 8443),
            ("CONNECT [2001:DB8::7]:443 HTTP/1.1\r\n", "2001:db8::7", 443),
            ("CONNECT 203.0.113.7:443 HTTP/1.1\r\n", "203.0.113.7", 443),
            ("GET http://a.example/path?q=secret HTTP/1.1\r\n", "a.example", 80),
            ("GET http://a.example HTTP/1.1\r\n", "a.example", 80),
            ("POST HTTP://A.example:8080/x HTTP/1.1\r\n", "a.example", 8080),
            ("PUT https://a.example./x HTTP/1.1\r\n", "a.example", 443),
            ("GET http://user:pw@a.example:81/ HTTP/1.1\r\n", "a.example", 81),
            ("GET http://user:p@w:1@a.example/ HTTP/1.1\r\n", "a.example", 80),
            ("GET http://[::1]/ HTTP/1.1\r\n", "::1", 80),
            ("GET http://[::ffff:10.0.0.1]:3000/ HTTP/1.1\r\n", "10.0.0.1", 3000),
            ("VERSION-CONTROL http://a.example/ HTTP/1.1\r\n", "a.example", 80),
        ] {
            assert_eq!(from_stream(line.as_bytes()), asked(host, port), "{line}");
        }
    }

    #[test]
    fn a_request_to_a_socks_server_names_host_and_port() {
        assert_eq!(from_stream(&[5, 1, 0]), Request::SocksOffer(3));
        assert_eq!(from_stream(&[5, 2, 0, 2]), Request::SocksOffer(4));
        let named = [&[11][..], b"Api.Example"].concat();
        assert_eq!(from_socks_5(&socks_5(SOCKS_NAME, &named, 443)), asked("api.example", 443));
        let numbered = [&[9][..], b"192.0.2.1"].concat();
        assert_eq!(from_socks_5(&socks_5(SOCKS_NAME, &numbered, 443)), asked("192.0.2.1", 443));
        assert_eq!(from_socks_5(&socks_5(SOCKS_IPV4, &[192, 0, 2, 1], 22)), asked("192.0.2.1", 22));
        let address = Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]).octets();
        assert_eq!(from_socks_5(&socks_5(SOCKS_IPV6, &address, 22)), asked("2001:db8::1", 22));
        assert_eq!(from_stream(b"\x04\x01\x01\xbb\0\0\0\x01me\0api.example\0"), asked("api.example", 443));
        assert_eq!(from_stream(b"\x04\x01\0\x50\xc0\0\x02\x01user\0"), asked("192.0.2.1", 80));
    }

    #[test]
    fn any_beginning_of_a_request_is_unfinished() {
        let http: [&[u8]; 3] = [
            b"CONNECT a.example:443 HTTP/1.1",
            b"GET http://me:pw@a.example/",
            b"DELETE https://a.example:1 ",
        ];
        for line in http {
            let until = line.len() - usize::from(line.starts_with(b"CONNECT"));
            for length in 0..until {
                assert_eq!(from_stream(&line[..length]), Request::Unfinished, "{length} of {line:?}");
            }
        }
        let socks_4 = b"\x04\x01\x01\xbb\0\0\0\x01me\0api.example\0";
        for length in 0..socks_4.len() {
            assert_eq!(from_stream(&socks_4[..length]), Request::Unfinished, "{length}");
        }
        let request = socks_5(SOCKS_NAME, b"\x01a", 443);
        for length in 0..request.len() {
            assert_eq!(from_socks_5(&request[..length]), Request::Unfinished, "{length}");
        }
    }

    #[test]
    fn what_is_no_request_to_a_proxy_is_other() {
        let long = [b"CONNECT ".as_slice(), &[b'a'; 300], b":443 HTTP/1.1\r\n"].concat();
        let endless = [b"GET http://".as_slice(), &[b'a'; LINE_MAX]].concat();
        let hostile: [&[u8]; 27] = [
            b"GET / HTTP/1.1\r\nHost: a.example\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"GET ftp://a.example/ HTTP/1.1\r\n",
            b"CONNECT a.example HTTP/1.1\r\n",
            b"CONNECT a.example:0 HTTP/1.1\r\n",
            b"CONNECT a.example:65536 HTTP/1.1\r\n",
            b"CONNECT a.example:+443 HTTP/1.1\r\n",
            b"CONNECT a.example:443\r\nX: b.example:443 HTTP/1.1\r\n",
            b"CONNECT a.example:443 b HTTP/1.1\r\n",
            b"CONNECT a.example%0d%0a:443 HTTP/1.1\r\n",
            b"CONNECT a\0b.example:443 HTTP/1.1\r\n",
            b"CONNECT \x1b[31ma.example:443 HTTP/1.1\r\n",
            b"CONNECT :443 HTTP/1.1\r\n",
            b"CONNECT [a.example]:443 HTTP/1.1\r\n",
            b"CONNECT [::1:443 HTTP/1.1\r\n",
            b"CONNECT 2001:db8::1 HTTP/1.1\r\n",
            b"CONNECTION a.example:443 HTTP/1.1\r\n",
            b"GET http://a.example\r\n/ HTTP/1.1\r\n",
            b"GET http://a.example\\@b.example/ HTTP/1.1\r\n",
            b"GET http:///etc HTTP/1.1\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"\x05\0",
            b"\x05\x01\0\x05\x01\0\x03",
            b"\x04\x02\0\x50\0\0\0\x01\0a\0",
            b"\x04\x01\0\0\xc0\0\x02\x01\0",
            &long,
            &endless,
        ];
        for stream in hostile {
            assert_eq!(from_stream(stream), Request::Other, "{:?}", String::from_utf8_lossy(stream));
        }
        let hostile: [Vec<u8>; 6] = [
            socks_5(SOCKS_NAME, b"\0", 443),
            socks_5(SOCKS_NAME, b"\x04a\r\nb", 443),
            socks_5(SOCKS_NAME, b"\x01a", 0),
            socks_5(2, b"abcd", 443),
            vec![5, 2, 0],
            vec![1, 4, b'u', b's', b'e', b'r', 2, b'p', b'w'],
        ];
        for stream in hostile {
            assert_eq!(from_socks_5(&stream), Request::Other, "{stream:?}");
        }
    }
}
