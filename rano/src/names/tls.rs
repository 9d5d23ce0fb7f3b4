//! The name in a TLS `ClientHello` (RFC 8446, section 4.1.2; RFC 6066, section 3).

use std::sync::Arc;

use tls_parser::{
    TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_extension_sni_content,
    parse_tls_message_handshake,
};

use super::host_name;

/// The first byte of a handshake in a record.
pub const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// A record has at most so many bytes (RFC 8446, section 5.1).
const RECORD_MAX: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// `encrypted_client_hello` (RFC 9849). A client that has no keys for it sends one filled at random, which cannot be
/// told apart.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What the beginning of a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// A `ClientHello`, as far as it goes.
    Unfinished,
    /// A whole one.
    Finished(Hello),
    /// Something else.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// `None`: it has none, or none that is a host name.
    pub name: Option<Arc<str>>,
    /// A name is there that is no host name.
    pub odd_name: bool,
    /// The true name may be hidden, and `name` be that of whoever serves it.
    pub encrypted: bool,
}

/// Reads what a client sends first over TCP: a handshake message in one or more records.
pub fn from_records(stream: &[u8]) -> Greeting {
    let mut message = Vec::new();
    let mut rest = stream;
    loop {
        match rest {
            [] => break,
            [HANDSHAKE] | [HANDSHAKE, 3] => return Greeting::Unfinished,
            [HANDSHAKE, 3, ..] => {}
            _ => return Greeting::Other,
        }
        let Some(&length) = rest.get(3..).and_then(<[u8]>::first_chunk) else { return Greeting::Unfinished };
        let length = usize::from(u16::from_be_bytes(length));
        if length == 0 || length > RECORD_MAX {
            return Greeting::Other;
        }
        let fragment = &rest[RECORD_HEADER..];
        message.extend_from_slice(&fragment[..length.min(fragment.len())]);
        match from_message(&message) {
            Greeting::Unfinished if length < fragment.len() => rest = &fragment[length..],
            greeting => return greeting,
        }
    }
    Greeting::Unfinished
}

/// Reads a handshake message, as QUIC carries it.
pub fn from_message(message: &[u8]) -> Greeting {
    let Some((&kind, rest)) = message.split_first() else { return Greeting::Unfinished };
    if kind != CLIENT_HELLO {
        return Greeting::Other;
    }
    let Some(&length) = rest.first_chunk::<3>() else { return Greeting::Unfinished };
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    if length > super::stream::ROOM {
        return Greeting::Other;
    }
    let Some(message) = message.get(..MESSAGE_HEADER + length) else { return Greeting::Unfinished };
    match parse_tls_message_handshake(message) {
        Ok(([], TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) => {
            extensions(hello.ext.unwrap_or_default()).map_or(Greeting::Other, Greeting::Finished)
        }
        _ => Greeting::Other,
    }
}

/// `None` where they are malformed: then nothing in them is believed.
fn extensions(mut rest: &[u8]) -> Option<Hello> {
    let mut hello = Hello::default();
    let mut names = 0;
    while !rest.is_empty() {
        let (&kind, after) = rest.split_first_chunk()?;
        let (&length, after) = after.split_first_chunk()?;
        let (content, after) = after.split_at_checked(usize::from(u16::from_be_bytes(length)))?;
        rest = after;
        match u16::from_be_bytes(kind) {
            SERVER_NAME => {
                names += 1;
                hello.name = host_name::from_text(server_name(content)?);
                hello.odd_name = hello.name.is_none();
            }
            ENCRYPTED_CLIENT_HELLO => hello.encrypted = true,
            _ => {}
        }
    }
    // None may come twice (RFC 8446, section 4.2): which of two names a server takes is not known.
    (names <= 1).then_some(hello)
}

/// The one name in the list.
fn server_name(content: &[u8]) -> Option<&[u8]> {
    let Ok(([], TlsExtension::SNI(names))) = parse_tls_extension_sni_content(content) else { return None };
    match names[..] {
        [(kind, name)] if kind.0 == HOST_NAME => Some(name),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A handshake message with these extensions.
    pub(in crate::rooms::names) fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01, 1, 0]);
        let all: Vec<u8> = extensions.iter().flat_map(|(kind, content)| extension(*kind, content)).collect();
        body.extend(u16::try_from(all.len()).expect("short").to_be_bytes());
        body.extend(all);
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&kind.to_be_bytes()[..], &length, content].concat()
    }

    pub(in crate::rooms::names) fn name_extension(name: &[u8]) -> (u16, Vec<u8>) {
        let length = u16::try_from(name.len()).expect("short");
        let list = [&[HOST_NAME][..], &length.to_be_bytes(), name].concat();
        (SERVER_NAME, [&(length + 3).to_be_bytes()[..], &list].concat())
    }

    pub(in crate::rooms::names) fn hello(name: &str) -> Vec<u8> {
        hello_with(&[(10, vec![0, 2, 0, 29]), name_extension(name.as_bytes()), (51, vec![0; 1200])])
    }

    /// In records of at most `size` bytes.
    pub(in crate::rooms::names) fn records(message: &[u8], size: usize) -> Vec<u8> {
        let records = message.chunks(size).flat_map(|part| {
            let length = u16::try_from(part.len()).expect("short").to_be_bytes();
            [&[HANDSHAKE, 3, 1][..], &length, part].concat()
        });
        records.collect()
    }

    fn name_of(greeting: &Greeting) -> Option<&str> {
        match greeting {
            Greeting::Finished(hello) => hello.name.as_deref(),
            Greeting::Unfinished | Greeting::Other => None,
        }
    }

    #[test]
    fn the_name_is_found_in_one_record_or_many() {
        for size in [16_000, 500, 7, 1] {
            assert_eq!(
                name_of(&from_records(&records(&hello("Api.Example.com"), size))),
                Some("api.example.com")
            );
        }
    }

    #[test]
    fn any_beginning_of_a_hello_is_unfinished() {
        for size in [16_000, 100] {
            let whole = records(&hello("a.example"), size);
            for length in 0..whole.len() {
                assert_eq!(from_records(&whole[..length]), Greeting::Unfinished, "{length} of {size}");
            }
        }
    }

    #[test]
    fn an_encrypted_hello_is_marked() {
        let message = hello_with(&[name_extension(b"outer.example"), (ENCRYPTED_CLIENT_HELLO, vec![0; 40])]);
        let Greeting::Finished(hello) = from_message(&message) else { panic!() };
        assert_eq!((hello.name.as_deref(), hello.encrypted), (Some("outer.example"), true));
    }

    #[test]
    fn what_is_no_name_is_not_believed() {
        let none = Greeting::Finished(Hello::default());
        assert_eq!(from_message(&hello_with(&[])), none, "no server name");
        let odd = Greeting::Finished(Hello { odd_name: true, ..Hello::default() });
        assert_eq!(from_message(&hello_with(&[name_extension(b"127.0.0.1")])), odd);
        assert_eq!(from_message(&hello_with(&[name_extension(b"a\x1b]0;x\x07.com")])), odd);
        let twice = hello_with(&[name_extension(b"good.example"), name_extension(b"evil.example")]);
        assert_eq!(from_message(&twice), Greeting::Other);
        let mut two = name_extension(b"good.example");
        two.1.extend([0, 0, 1, b'a']);
        two.1[1] += 4;
        assert_eq!(from_message(&hello_with(&[two])), Greeting::Other, "two names in a list");
        let cut = (SERVER_NAME, vec![0, 40, 0, 0, 30, b'a']);
        assert_eq!(from_message(&hello_with(&[cut])), Greeting::Other);
    }

    #[test]
    fn other_things_are_other() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[22, 3, 3, 0, 4, 2, 0, 0, 0],
            &[22, 3, 1, 0, 0],
            &[23, 3, 3, 0, 9],
            &[22, 2],
        ] {
            assert_eq!(from_records(bytes), Greeting::Other, "{bytes:?}");
        }
        assert_eq!(from_message(&[1, 1, 0, 0]), Greeting::Other, "longer than is kept");
    }
}
