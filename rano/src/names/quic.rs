//! The `ClientHello` in the Initial packets of QUIC version 1 (RFC 9000, 9001) and 2 (RFC 9369). They are encrypted
//! with keys that anybody can compute, which proves that the packet is what it seems.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aes_gcm::{Aes128Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;

use super::stream::Stream;
use super::tls::{self, Greeting};

/// A connection id has at most so many bytes in these versions.
const ID_MAX: usize = 20;
const LONG_HEADER: u8 = 0x80;
const TAG: usize = 16;
const SAMPLE: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Kinds of packets with a long header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Initial,
    /// 0-RTT or Handshake: told by their length only.
    Other,
    Retry,
}

impl Version {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            0x6b33_43cf => Some(Self::V2),
            _ => None,
        }
    }

    fn kind(self, first: u8) -> Kind {
        match (self, (first >> 4) & 3) {
            (Self::V1, 0) | (Self::V2, 1) => Kind::Initial,
            (Self::V1, 3) | (Self::V2, 0) => Kind::Retry,
            _ => Kind::Other,
        }
    }

    /// RFC 9001, section 5.2; RFC 9369, section 3.3.1.
    fn salt(self) -> [u8; 20] {
        match self {
            Self::V1 => *b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a",
            Self::V2 => *b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9",
        }
    }

    fn label(self, what: &str) -> String {
        match self {
            Self::V1 => format!("tls13 quic {what}"),
            Self::V2 => format!("tls13 quicv2 {what}"),
        }
    }
}

/// Whether a datagram begins like an Initial packet, at the cost of a few comparisons.
pub fn begins_initial(datagram: &[u8]) -> bool {
    let Some((&first, rest)) = datagram.split_first() else { return false };
    let version = rest.first_chunk().and_then(|number| Version::from_number(u32::from_be_bytes(*number)));
    // The bit behind it may be anything (RFC 9287).
    first & LONG_HEADER != 0 && version.is_some_and(|version| version.kind(first) == Kind::Initial)
}

/// What protects a client's Initial packets.
struct Keys {
    packet: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

impl Keys {
    fn of_client(version: Version, destination: &[u8]) -> Self {
        let initial = Hkdf::<Sha256>::new(Some(&version.salt()), destination);
        let secret: [u8; 32] = expand(&initial, "tls13 client in");
        let client = Hkdf::<Sha256>::from_prk(&secret).expect("a hash is as long as a key");
        let key: [u8; 16] = expand(&client, &version.label("key"));
        let header: [u8; 16] = expand(&client, &version.label("hp"));
        Self {
            packet: Aes128Gcm::new(&key.into()),
            iv: expand(&client, &version.label("iv")),
            header: Aes128::new(&header.into()),
        }
    }

    /// The frames of a packet, if these are its keys. `number_at`: where its number begins.
    fn open(&self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        let sample: [u8; SAMPLE] = *packet.get(number_at + 4..)?.first_chunk()?;
        let mut mask = sample.into();
        self.header.encrypt_block(&mut mask);
        let first = packet.first()? ^ (mask[0] & 0x0f);
        let number_length = usize::from(first & 3) + 1;
        let payload_at = number_at + number_length;
        let mut header = packet.get(..payload_at)?.to_vec();
        header[0] = first;
        // Numbers of a client's first packets are small, and so not cut (RFC 9000, section 17.1).
        let mut nonce = self.iv;
        for (place, masked) in header[number_at..].iter_mut().enumerate() {
            *masked ^= mask[place + 1];
            nonce[12 - number_length + place] ^= *masked;
        }
        let payload = Payload { msg: &packet[payload_at..], aad: &header };
        self.packet.decrypt(&Nonce::from(nonce), payload).ok()
    }
}

/// HKDF-Expand-Label without a context (RFC 8446, section 7.1). `label` with its prefix.
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &str) -> [u8; N] {
    let length = u8::try_from(N).expect("keys are short");
    let label_length = u8::try_from(label.len()).expect("labels are short");
    let info = [&[0, length, label_length], label.as_bytes(), &[0]].concat();
    let mut out = [0; N];
    secret.expand(&info, &mut out).expect("it is shorter than 255 hashes");
    out
}

/// A client's side of a connection, until its `ClientHello` is there.
pub struct Client {
    destination: Vec<u8>,
    version: Version,
    keys: Keys,
    crypto: Crypto,
}

impl Client {
    /// From a datagram that begins with an Initial packet of a client; `None` for any other.
    pub fn begin(datagram: &[u8]) -> Option<(Self, Greeting)> {
        let packet = Packet::read(datagram).filter(|packet| packet.kind == Kind::Initial)?;
        let mut client = Self {
            destination: packet.destination.to_vec(),
            version: packet.version,
            keys: Keys::of_client(packet.version, packet.destination),
            crypto: Crypto::default(),
        };
        // What comes from the server does not open with a client's keys.
        client.keys.open(packet.bytes, packet.number_at)?;
        let greeting = client.read(datagram);
        Some((client, greeting))
    }

    /// Whether a datagram begins with a packet to the same connection id.
    pub fn goes_on_with(&self, datagram: &[u8]) -> bool {
        Packet::read(datagram)
            .is_some_and(|packet| packet.destination == self.destination && packet.version == self.version)
    }

    /// Takes in every Initial packet of a datagram. After the server's first answer the client uses another connection
    /// id, and the keys stay. Zeros between two packets are padding: a client may leave it outside of them, and what is
    /// handed to the kernel as several datagrams at once is seen as one.
    pub fn read(&mut self, mut datagram: &[u8]) -> Greeting {
        while let Some(packet) = Packet::read(datagram) {
            datagram = &datagram[packet.bytes.len()..];
            let padding = datagram.iter().take_while(|byte| **byte == 0).count();
            datagram = &datagram[padding..];
            if packet.kind == Kind::Initial
                && let Some(frames) = self.keys.open(packet.bytes, packet.number_at)
            {
                let whole = self.crypto.take(&frames).unwrap_or(true);
                if !whole {
                    return Greeting::Other;
                }
            }
        }
        self.crypto.greeting()
    }
}

/// What a client's CRYPTO frames carry, put in order.
pub struct Crypto(Stream);

impl Default for Crypto {
    fn default() -> Self {
        Self(Stream::new(0))
    }
}

impl Crypto {
    /// As far as it is there.
    pub fn greeting(&self) -> Greeting {
        tls::from_message(self.0.ready())
    }

    /// Takes in the frames of a packet. `Some(false)` where the hello is too long or too scattered, `None` where a
    /// frame is not understood.
    pub fn take(&mut self, frames: &[u8]) -> Option<bool> {
        const PADDING: u8 = 0;
        const PING: u8 = 1;
        const ACK: u8 = 2;
        const ACK_ECN: u8 = 3;
        const CRYPTO: u8 = 6;
        let mut rest = Cursor(frames);
        while let Some(kind) = rest.byte() {
            match kind {
                PADDING | PING => {}
                ACK | ACK_ECN => {
                    let (_largest, _delay, ranges) = (rest.number()?, rest.number()?, rest.number()?);
                    let more = if kind == ACK_ECN { 3 } else { 0 };
                    // One range, then a gap and a range each.
                    for _ in 0..ranges.checked_mul(2)?.checked_add(1 + more)? {
                        rest.number()?;
                    }
                }
                CRYPTO => {
                    let offset = rest.number()?;
                    let length = rest.number()?;
                    let data = rest.bytes(usize::try_from(length).ok()?)?;
                    let Ok(offset) = u32::try_from(offset) else { return Some(false) };
                    if !self.0.add(offset, data) {
                        return Some(false);
                    }
                }
                _ => return None,
            }
        }
        Some(true)
    }
}

/// A packet with a long header, as far as its protection lets one see.
struct Packet<'a> {
    version: Version,
    kind: Kind,
    destination: &'a [u8],
    /// Where the packet number begins.
    number_at: usize,
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The first of a datagram; `None` where none with a known length is left.
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let mut rest = Cursor(datagram);
        let first = rest.byte()?;
        if first & LONG_HEADER == 0 {
            return None;
        }
        let version = Version::from_number(u32::from_be_bytes(*rest.bytes(4)?.first_chunk()?))?;
        let kind = version.kind(first);
        let destination = rest.connection_id()?;
        let _source = rest.connection_id()?;
        match kind {
            Kind::Initial => {
                let token = rest.number()?;
                rest.bytes(usize::try_from(token).ok()?)?;
            }
            Kind::Other => {}
            Kind::Retry => return None,
        }
        let length = usize::try_from(rest.number()?).ok()?;
        if length < TAG + 4 {
            return None;
        }
        let number_at = datagram.len() - rest.0.len();
        rest.bytes(length)?;
        Some(Self { version, kind, destination, number_at, bytes: &datagram[..number_at + length] })
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A variable-length integer (RFC 9000, section 16).
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = (1_usize << (first >> 6)) - 1;
        let start = u64::from(first & 0x3f);
        Some(self.bytes(more)?.iter().fold(start, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn connection_id(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        if length > ID_MAX {
            return None;
        }
        self.bytes(length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::names::tls::tests::hello;

    pub(in crate::rooms::names) const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    fn secrets(version: Version) -> [String; 3] {
        let initial = Hkdf::<Sha256>::new(Some(&version.salt()), &ID);
        let secret: [u8; 32] = expand(&initial, "tls13 client in");
        let client = Hkdf::<Sha256>::from_prk(&secret).expect("long enough");
        let key: [u8; 16] = expand(&client, &version.label("key"));
        let iv: [u8; 12] = expand(&client, &version.label("iv"));
        let header: [u8; 16] = expand(&client, &version.label("hp"));
        [hex(&key), hex(&iv), hex(&header)]
    }

    /// RFC 9001, appendix A.1, and RFC 9369, appendix A.1.
    #[test]
    fn keys_are_those_of_the_standards() {
        assert_eq!(
            secrets(Version::V1),
            [
                "1f369613dd76d5467730efcbe3b1a22d",
                "fa044b2f42a3fd3b46fb255c",
                "9f50449e04a0e810283a1e9933adedd2"
            ]
        );
        assert_eq!(
            secrets(Version::V2),
            [
                "8b1a0bc121284290a29e0971b5cd045d",
                "91f73e2351d8fa91660e909f",
                "45b95e15235d6f45a6b19cbcb0294ba9"
            ]
        );
    }

    fn number(value: usize) -> [u8; 2] {
        (u16::try_from(value).expect("short") | 0x4000).to_be_bytes()
    }

    pub(in crate::rooms::names) fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
        [&[6], &number(offset)[..], &number(data.len()), data].concat()
    }

    /// As a client sends it first: `frames` sealed into a packet.
    pub(in crate::rooms::names) fn initial(
        version: u32,
        id: &[u8],
        packet_number: u8,
        frames: &[u8],
    ) -> Vec<u8> {
        sealed(version, id, id, packet_number, frames)
    }

    /// With the keys of a connection that began with the id `first`.
    fn sealed(version: u32, first: &[u8], id: &[u8], packet_number: u8, frames: &[u8]) -> Vec<u8> {
        let known = Version::from_number(version).expect("known");
        let keys = Keys::of_client(known, first);
        let mut packet = vec![0xc0 | if known == Version::V2 { 0x10 } else { 0 }];
        packet.extend(version.to_be_bytes());
        packet.push(u8::try_from(id.len()).expect("short"));
        packet.extend(id);
        // No source id, no token.
        packet.extend([0, 0]);
        packet.extend(number(1 + frames.len() + TAG));
        let number_at = packet.len();
        packet.push(packet_number);
        let mut nonce = keys.iv;
        nonce[11] ^= packet_number;
        let payload = Payload { msg: frames, aad: &packet };
        let protected = keys.packet.encrypt(&Nonce::from(nonce), payload).expect("short enough");
        packet.extend(protected);
        let sample: [u8; SAMPLE] = *packet[number_at + 4..].first_chunk().expect("long enough");
        let mut mask = sample.into();
        keys.header.encrypt_block(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        packet[number_at] ^= mask[1];
        packet
    }

    fn named(greeting: &Greeting) -> Option<&str> {
        match greeting {
            Greeting::Finished(hello) => hello.name.as_deref(),
            Greeting::Unfinished | Greeting::Other => None,
        }
    }

    #[test]
    fn a_hello_in_one_packet_is_read_in_both_versions() {
        let frames = [vec![1, 0, 0], crypto(0, &hello("quic.example")), vec![0; 40]].concat();
        for version in [1, 0x6b33_43cf] {
            let packet = initial(version, &ID, 0, &frames);
            assert!(begins_initial(&packet));
            let (_, greeting) = Client::begin(&packet).expect("a client");
            assert_eq!(named(&greeting), Some("quic.example"), "{version:#x}");
        }
    }

    #[test]
    fn pieces_come_in_any_order_and_over_several_packets() {
        let hello = hello("split.example");
        let (a, b) = hello.split_at(700);
        let (c, d) = b.split_at(300);
        let first = initial(1, &ID, 1, &[crypto(1000, d), vec![2, 0, 0, 0, 0], crypto(700, c)].concat());
        let second = initial(1, &ID, 2, &crypto(0, a));
        let (mut client, greeting) = Client::begin(&first).expect("a client");
        assert_eq!(greeting, Greeting::Unfinished);
        assert!(client.goes_on_with(&second));
        assert_eq!(named(&client.read(&second)), Some("split.example"));
        let together = [first, second].concat();
        let (_, greeting) = Client::begin(&together).expect("a client");
        assert_eq!(named(&greeting), Some("split.example"), "coalesced");
    }

    #[test]
    fn keys_stay_when_the_connection_id_changes() {
        let hello = hello("later.example");
        let (mut client, _) =
            Client::begin(&initial(1, &ID, 0, &crypto(0, &hello[..500]))).expect("a client");
        let later = sealed(1, &ID, &[9; 20], 1, &crypto(500, &hello[500..]));
        assert!(Client::begin(&later).is_none(), "these keys are not those of the id");
        assert!(!client.goes_on_with(&later));
        assert_eq!(named(&client.read(&later)), Some("later.example"));
    }

    #[test]
    fn what_is_no_initial_packet_is_none() {
        let packet = initial(1, &ID, 0, &crypto(0, &hello("a.example")));
        for length in 0..packet.len() {
            assert!(Client::begin(&packet[..length]).is_none(), "{length}");
        }
        for place in 0..packet.len() {
            let mut changed = packet.clone();
            changed[place] ^= 0x80;
            assert!(Client::begin(&changed).is_none(), "{place}");
        }
        assert!(!begins_initial(b"\xff\x00\x00\x00\x01"), "0-RTT or so");
    }
}
