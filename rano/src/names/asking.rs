//! Names without packets: a look-up that a watched process was seen to send is sent again, to the same resolver, and
//! what that answers is evidence. Only this machine's configured resolvers are asked: what another one says may be made
//! up by whoever wants to go by a better name. One thread, and one socket a family, which are not connected, so that no
//! source takes them for anybody's connections.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::dns::{self, Said};
use super::feed::{Feed, Sender};
use super::{Answer, Evidence, Party, resolver};
use crate::event::Moment;
use crate::files::Rights;

/// Questions that may wait for their turn; more are dropped and counted.
const WAITING_MAX: usize = 1024;
/// Questions that are on their way at a time.
const OUTSTANDING_MAX: usize = 256;
/// What is not answered by then is not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer is waited for before the next question is looked at.
const STEP: Duration = Duration::from_millis(2);

/// A look-up that was seen.
#[derive(Debug)]
struct Seen {
    server: SocketAddr,
    question: dns::Question,
    by: Party,
    at: Moment,
}

/// The side that has seen look-ups.
#[derive(Debug, Clone)]
pub struct Asker {
    questions: SyncSender<Seen>,
    /// Questions that are waited for.
    open: Arc<AtomicUsize>,
    servers: Arc<HashSet<IpAddr>>,
}

impl Asker {
    /// Never waits. What is no question, or not for this machine's resolvers, is left.
    pub fn ask(&self, server: SocketAddr, message: &[u8], by: Party, at: Moment) {
        if !self.servers.contains(&server.ip().to_canonical()) {
            return;
        }
        if let Said::Asked(question) = dns::read(message) {
            // Without room the connection has no name, and is counted as such.
            if self.questions.try_send(Seen { server, question, by, at }).is_ok() {
                self.open.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// An answer may still come.
    pub fn is_waiting(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }
}

/// Starts the thread; it ends with the feed.
pub fn start() -> Result<(Feed, Asker)> {
    let (questions, seen) = sync_channel(WAITING_MAX);
    let servers = Arc::new(resolver::of_this_machine().into_iter().collect());
    let open = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&open);
    let feed = Feed::from_thread(Rights::here(), move |sender| run(&seen, &asked, &sender))?;
    Ok((feed, Asker { questions, open, servers }))
}

struct Outstanding {
    seen: Seen,
    asked: Instant,
}

fn run(seen: &Receiver<Seen>, open: &AtomicUsize, sender: &Sender) {
    let (random, mut number) = (RandomState::new(), 0u64);
    let mut sockets: [Option<UdpSocket>; 2] = [None, None];
    let mut outstanding: HashMap<u16, Outstanding> = HashMap::new();
    while !sender.stop.is_raised() {
        // While nothing is on its way there is nothing to do but to wait; the end of whoever asks ends that.
        let next = if outstanding.is_empty() {
            seen.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            seen.recv_timeout(STEP)
        };
        match next {
            Ok(seen) if outstanding.len() < OUTSTANDING_MAX => {
                number += 1;
                let [low, high, ..] = random.hash_one(number).to_ne_bytes();
                let id = u16::from_ne_bytes([low, high]);
                let replaced = match send(&mut sockets, id, &seen) {
                    Some(()) => outstanding.insert(id, Outstanding { seen, asked: Instant::now() }).is_some(),
                    None => true,
                };
                open.fetch_sub(usize::from(replaced), Ordering::Relaxed);
            }
            Ok(_) => {
                sender.lost(1);
                open.fetch_sub(1, Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let before = outstanding.len();
        for socket in sockets.iter().flatten() {
            receive(socket, &mut outstanding, sender);
        }
        outstanding.retain(|_, one| one.asked.elapsed() < PATIENCE);
        open.fetch_sub(before - outstanding.len(), Ordering::Relaxed);
    }
}

fn send(sockets: &mut [Option<UdpSocket>; 2], id: u16, seen: &Seen) -> Option<()> {
    let (place, any): (_, IpAddr) = match seen.server {
        SocketAddr::V4(_) => (&mut sockets[0], Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (&mut sockets[1], Ipv6Addr::UNSPECIFIED.into()),
    };
    if place.is_none() {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        *place = Some(socket);
    }
    let message = dns::question(id, &seen.question.name, seen.question.family)?;
    place.as_ref()?.send_to(&message, seen.server).ok().map(drop)
}

fn receive(socket: &UdpSocket, outstanding: &mut HashMap<u16, Outstanding>, sender: &Sender) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Said::Answered(answered, addresses) = dns::read(&buffer[..length]) else { continue };
        let fits = outstanding.get(&answered.id).is_some_and(|one| {
            let asked = &one.seen.question;
            (one.seen.server.ip(), one.seen.server.port()) == (from.ip(), from.port())
                && (&asked.name, asked.family) == (&answered.name, answered.family)
        });
        if !fits {
            continue;
        }
        if let Some(Outstanding { seen, .. }) = outstanding.remove(&answered.id)
            && !addresses.is_empty()
        {
            // As of the question, so that it precedes what is connected with the answer.
            let (at, to, asked) = (seen.at, seen.by, seen.question.name);
            sender.send(Evidence::Answer(Answer { at, to, uid: None, asked, addresses }));
        }
    }
}
