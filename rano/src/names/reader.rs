//! From packets to evidence: who asked for which name, and what a client says first. Keeps what must be remembered from
//! packet to packet, all of it bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::dns::{self, Question, Said};
use super::packet::{Content, Segment};
use super::proxy::{self, Asked, Request};
use super::quic;
use super::stream::Stream;
use super::tls::{self, Hello};
use super::{Answer, Evidence, Greeting, Party};
use crate::bounded::{Parted, Whose};
use crate::change::SocketId;
use crate::event::{DomainSource, Moment, Protocol};

const DNS_PORT: u16 = 53;
/// An answer that takes longer is no answer any more; resolvers give up after ten seconds or so.
const PATIENCE: Duration = Duration::from_secs(30);
/// Questions that wait for an answer. All of these bounds hold twice: for watched processes, and for everybody else.
const QUESTIONS_MAX: usize = 4096;
/// Connections whose first bytes are awaited, or that are done with.
const FLOWS_MAX: usize = 4096;
/// Streams of which a part is there; each holds at most twice [`super::stream::ROOM`].
const STREAMS_MAX: usize = 128;

/// Where a segment was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// On a device, where both directions pass.
    OnTheWay,
    /// At a socket; TCP sequence numbers count its stream from zero.
    Sent {
        netns: u32,
        cookie: u64,
    },
    Received {
        netns: u32,
        cookie: u64,
    },
}

/// A TCP connection from the side of its client.
enum Flow {
    /// Its first byte will have this number.
    Begun(u32),
    /// It offered to speak SOCKS 5, and its request comes with this number or later: a password may stand before it.
    SocksOffered(u32),
    /// What it says first was read, or is nothing of interest.
    Done,
}

/// All state between packets.
pub struct Reader {
    questions: Parted<(Party, Question), Moment>,
    /// DNS over TCP, by the asking end and whether it is that end's side.
    dialogues: Parted<(Party, bool), Stream>,
    flows: Parted<Party, Flow>,
    hellos: Parted<Party, Stream>,
    initials: Parted<Party, quic::Client>,
    /// Packets that hold names and could not be read: malformed, incomplete, of a name that is none, or too many at
    /// once; and questions that had to make room for others.
    pub unread: u64,
    /// Answers to what nobody was seen to ask.
    pub unasked: u64,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            questions: Parted::new(QUESTIONS_MAX),
            dialogues: Parted::new(STREAMS_MAX),
            flows: Parted::new(FLOWS_MAX),
            hellos: Parted::new(STREAMS_MAX),
            initials: Parted::new(STREAMS_MAX),
            unread: 0,
            unasked: 0,
        }
    }
}

/// An end of a segment's connection that may have asked or greeted.
#[derive(Clone, Copy)]
struct Sight {
    at: Moment,
    party: Party,
    /// That end sent the segment.
    sent: bool,
    whose: Whose,
    /// Of the socket, where the kernel says.
    uid: Option<u32>,
}

/// What is known of the socket beside its packets.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    pub whose: Whose,
    pub uid: Option<u32>,
}

/// Where only packets are seen.
const NOBODY_KNOWN: Standing = Standing { whose: Whose::Anybodys, uid: None };

impl Reader {
    /// Packets that hold names and gave none, those of greetings included that are not whole so far.
    pub fn unread(&self) -> u64 {
        // A stream whose beginning is missing may be anything, and so may a word that could become a method of HTTP.
        let is_begun = |stream: &&Stream| {
            let begins = stream.ready();
            begins.first().is_some_and(|first| !first.is_ascii_uppercase()) || begins.starts_with(b"CONNECT ")
        };
        let hellos = self.hellos.values().filter(is_begun).count();
        let begun = hellos + self.initials.values().count();
        self.unread + u64::try_from(begun).unwrap_or(u64::MAX)
    }

    /// What a segment tells goes to `out`.
    pub fn read(&mut self, at: Moment, seen: Seen, segment: &Segment<'_>, out: &mut Vec<Evidence>) {
        self.read_knowing(at, seen, segment, &|_| NOBODY_KNOWN, out);
    }

    /// The same, where `standing` says what is known of a party.
    pub fn read_knowing(
        &mut self,
        at: Moment,
        seen: Seen,
        segment: &Segment<'_>,
        standing: &dyn Fn(Party) -> Standing,
        out: &mut Vec<Evidence>,
    ) {
        let sight = |sent| sight(at, seen, segment, sent, standing);
        match segment.content {
            Content::Datagram(payload) => {
                let to_dns = segment.destination.port() == DNS_PORT;
                let from_dns = segment.source.port() == DNS_PORT;
                if to_dns || from_dns {
                    // The bit that says "response" decides between two ends that both use the port.
                    let answers =
                        from_dns && (!to_dns || payload.get(2).is_some_and(|flags| flags & 0x80 != 0));
                    if let Some(sight) = sight(!answers) {
                        self.message(sight, payload, out);
                    }
                } else if quic::begins_initial(payload)
                    && let Some(sight) = sight(true)
                {
                    self.initial(sight, payload, out);
                }
            }
            Content::Tcp { sequence, opens, payload } => {
                if segment.destination.port() == DNS_PORT {
                    if let Some(sight) = sight(true) {
                        self.dialogue(sight, sequence, opens, payload, out);
                    }
                } else if segment.source.port() == DNS_PORT {
                    if let Some(sight) = sight(false) {
                        self.dialogue(sight, sequence, opens, payload, out);
                    }
                } else if let Some(sight) = sight(true) {
                    let start = matches!(seen, Seen::Sent { .. }).then_some(0);
                    self.client(sight, start, (sequence, opens), payload, out);
                }
            }
        }
    }

    fn message(&mut self, sight: Sight, bytes: &[u8], out: &mut Vec<Evidence>) {
        match dns::read(bytes) {
            Said::Asked(question) if sight.sent => {
                let gone = self.questions.insert(sight.whose, (sight.party, question), sight.at);
                self.unread += u64::from(gone.is_some_and(|asked| sight.at.since(asked) <= PATIENCE));
            }
            Said::Answered(question, addresses) if !sight.sent => {
                let key = (sight.party, question);
                let Some(asked_at) = self.questions.remove(&key) else { return self.unasked += 1 };
                if sight.at.since(asked_at) <= PATIENCE && !addresses.is_empty() {
                    let asked = key.1.name;
                    let (at, to, uid) = (sight.at, sight.party, sight.uid);
                    out.push(Evidence::Answer(Answer { at, to, uid, asked, addresses }));
                }
            }
            Said::Asked(_) | Said::Answered(..) | Said::Other => {}
            Said::Unread => self.unread += 1,
        }
    }

    /// DNS over TCP (RFC 7766): each message after its length.
    fn dialogue(
        &mut self,
        sight: Sight,
        sequence: u32,
        opens: bool,
        payload: &[u8],
        out: &mut Vec<Evidence>,
    ) {
        let key = (sight.party, sight.sent);
        if opens {
            self.dialogues.remove(&(sight.party, false));
            self.insert_dialogue(sight.whose, key, sequence);
        }
        if payload.is_empty() {
            return;
        }
        if self.dialogues.get(&key).is_none() {
            self.insert_dialogue(sight.whose, key, sequence);
        }
        let Some(stream) = self.dialogues.get_mut(&key) else { return };
        let whole = stream.add(sequence, payload);
        let mut messages = Vec::new();
        while let Some((length, rest)) = stream.ready().split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(message) = rest.get(..length) else { break };
            messages.push(message.to_vec());
            stream.consume(2 + length);
        }
        if !whole {
            // A piece was missed, or a message is longer than is kept: begin anew with the next segment.
            self.dialogues.remove(&key);
            self.unread += 1;
        }
        for message in messages {
            self.message(sight, &message, out);
        }
    }

    fn insert_dialogue(&mut self, whose: Whose, key: (Party, bool), sequence: u32) {
        let gone = self.dialogues.insert(whose, key, Stream::new(sequence));
        self.unread += u64::from(gone.is_some_and(|stream| !stream.ready().is_empty()));
    }

    /// What a client of any TCP service sends. `start`: the number of its first byte, where that is known.
    fn client(
        &mut self,
        sight: Sight,
        start: Option<u32>,
        (sequence, opens): (u32, bool),
        payload: &[u8],
        out: &mut Vec<Evidence>,
    ) {
        let party = sight.party;
        if opens {
            self.hellos.remove(&party);
            self.flows.insert(sight.whose, party, Flow::Begun(sequence));
        }
        if payload.is_empty() {
            return;
        }
        let is_socks = matches!(self.flows.get(&party), Some(Flow::SocksOffered(_)));
        if self.hellos.get(&party).is_none() {
            let start = match self.flows.get(&party) {
                Some(Flow::Done) => return,
                Some(Flow::Begun(start)) => *start,
                Some(Flow::SocksOffered(after)) => {
                    let is_request =
                        payload[0] == proxy::SOCKS_5 && Stream::distance(*after, sequence).is_some();
                    if !is_request {
                        return;
                    }
                    sequence
                }
                // Neither the beginning was seen, nor does it look like one.
                None => match start {
                    Some(start) => start,
                    None if looks_like_hello(payload) => sequence,
                    None => return,
                },
            };
            match Stream::distance(start, sequence) {
                Some(0) if !is_socks && !looks_like_hello(payload) && !proxy::may_begin(payload) => {
                    self.flows.insert(sight.whose, party, Flow::Done);
                    return;
                }
                Some(_) => {
                    let gone = self.hellos.insert(sight.whose, party, Stream::new(start));
                    self.unread += u64::from(gone.is_some());
                }
                None => return,
            }
        }
        let Some(stream) = self.hellos.get_mut(&party) else { return };
        let whole = stream.add(sequence, payload);
        let begins = stream.ready();
        let mut flow = Flow::Done;
        let opening = match begins {
            _ if is_socks => Opening::Request(proxy::from_socks_5(begins)),
            [] | [tls::HANDSHAKE, ..] => Opening::Hello(tls::from_records(begins)),
            _ => Opening::Request(proxy::from_stream(begins)),
        };
        match opening {
            Opening::Hello(tls::Greeting::Unfinished) | Opening::Request(Request::Unfinished) if whole => {
                return;
            }
            Opening::Hello(tls::Greeting::Unfinished) | Opening::Request(Request::Unfinished) => {
                self.unread += 1;
            }
            Opening::Hello(tls::Greeting::Finished(hello)) => {
                self.greeted(sight, hello, DomainSource::Sni, out);
            }
            Opening::Request(Request::Finished(asked)) => requested(sight, asked, out),
            Opening::Request(Request::SocksOffer(length)) => {
                let length = u32::try_from(length).unwrap_or_default();
                flow = Flow::SocksOffered(stream.start().wrapping_add(length));
            }
            Opening::Hello(tls::Greeting::Other) | Opening::Request(Request::Other) => {}
        }
        self.hellos.remove(&party);
        self.flows.insert(sight.whose, party, flow);
    }

    fn initial(&mut self, sight: Sight, datagram: &[u8], out: &mut Vec<Evidence>) {
        let known = self.initials.get_mut(&sight.party);
        // Another connection of the same socket has another id; the server's first answer changes it too.
        let greeting = match known {
            Some(client) if client.goes_on_with(datagram) => client.read(datagram),
            known => match quic::Client::begin(datagram) {
                Some((client, greeting)) => {
                    let gone = self.initials.insert(sight.whose, sight.party, client);
                    self.unread += u64::from(gone.is_some());
                    greeting
                }
                None => match known {
                    Some(client) => client.read(datagram),
                    None => return,
                },
            },
        };
        match greeting {
            tls::Greeting::Unfinished => return,
            tls::Greeting::Finished(hello) => self.greeted(sight, hello, DomainSource::Quic, out),
            tls::Greeting::Other => self.unread += 1,
        }
        self.initials.remove(&sight.party);
    }

    fn greeted(&mut self, sight: Sight, hello: Hello, by: DomainSource, out: &mut Vec<Evidence>) {
        self.unread += u64::from(hello.odd_name);
        let Some(name) = hello.name else { return };
        let by = if hello.encrypted { DomainSource::EchOuter } else { by };
        out.push(Evidence::Greeting(Greeting {
            at: sight.at,
            from: sight.party,
            name: Arc::clone(&name),
            by,
            port: None,
        }));
    }
}

/// What a connection begins with.
enum Opening {
    Hello(tls::Greeting),
    Request(Request),
}

fn requested(sight: Sight, Asked { host, port }: Asked, out: &mut Vec<Evidence>) {
    let (at, from, by) = (sight.at, sight.party, DomainSource::Proxy);
    out.push(Evidence::Greeting(Greeting { at, from, name: host, by, port: Some(port) }));
}

/// A handshake record that begins with a `ClientHello`, as far as it is there.
fn looks_like_hello(payload: &[u8]) -> bool {
    payload
        .iter()
        .zip([Some(22), Some(3), None, None, None, Some(1)])
        .all(|(&byte, wanted)| wanted.is_none_or(|wanted| wanted == byte))
}

/// `None` where the segment was seen at the other end's socket.
fn sight(
    at: Moment,
    seen: Seen,
    segment: &Segment<'_>,
    sent: bool,
    standing: &dyn Fn(Party) -> Standing,
) -> Option<Sight> {
    let (local, remote) =
        if sent { (segment.source, segment.destination) } else { (segment.destination, segment.source) };
    let protocol = match segment.content {
        Content::Datagram(_) => Protocol::Udp,
        Content::Tcp { .. } => Protocol::Tcp,
    };
    let party = match seen {
        Seen::OnTheWay => Party::Flow { protocol, local, remote },
        Seen::Sent { netns, cookie } if sent => socket(protocol, netns, cookie, remote),
        Seen::Received { netns, cookie } if !sent => socket(protocol, netns, cookie, remote),
        Seen::Sent { .. } | Seen::Received { .. } => return None,
    };
    let Standing { whose, uid } = standing(party);
    Some(Sight { at, party, sent, whose, uid })
}

fn socket(protocol: Protocol, netns: u32, cookie: u64, remote: SocketAddr) -> Party {
    Party::Socket(match protocol {
        Protocol::Udp => SocketId::Flow { netns, cookie, remote },
        _ => SocketId::Cookie { netns, cookie },
    })
}

#[cfg(test)]
mod tests;
