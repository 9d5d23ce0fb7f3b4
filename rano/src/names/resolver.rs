//! Reverse look-ups over the resolvers of `/etc/resolv.conf`, after `/etc/hosts`: one thread, and one socket a family,
//! made with the first question. Whoever asks never waits: a question too many is refused, an answer is fetched.
//!
//! A name that is found is asked for in turn: only if it leads back to the address is it confirmed. The sockets are not
//! connected, so that no source takes them for connections of anybody.

mod config;
mod message;

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::thread::CapabilitySet;

use crate::event::Moment;
use crate::names::Pointer;
use crate::privileges;
use message::{Answered, Question};

/// Questions that are on their way at a time.
const OUTSTANDING_MAX: usize = 32;
/// Questions that may wait for their turn; more are refused.
const QUEUE_MAX: usize = 1024;
/// Time for the name of an address, all servers and the confirmation included: less than what alerts wait for a name.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Time for one server before the next one is asked.
const RESEND: Duration = Duration::from_millis(500);
/// How long not to ask again for what nobody answered.
const FAILED: Duration = Duration::from_mins(1);
/// How long not to ask again for an address that has no name.
const NAMELESS: Duration = Duration::from_mins(10);
/// A name of `/etc/hosts`.
const HOSTS: Duration = Duration::from_mins(1);
/// How often the files are looked at, whether they have changed.
const FRESH: Duration = Duration::from_secs(5);
/// The thread reads files and small messages.
const STACK: usize = 256 * 1024;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct ResolverFiles {
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

impl Default for ResolverFiles {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ask {
    address: IpAddr,
    hosts_only: bool,
    since: Instant,
}

#[derive(Debug)]
struct Reply {
    address: IpAddr,
    name: Option<Arc<str>>,
    confirmed: bool,
    lasts: Duration,
}

/// The addresses of this machine's resolvers: those of resolv.conf, and those that its stubs ask in turn.
pub fn of_this_machine() -> Vec<IpAddr> {
    const FILES: [&str; 3] =
        ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
    let named = |file: &str| {
        // Without a file, resolv.conf(5) means this machine, which is known for what it is.
        let text = config::read(Path::new(file));
        config::servers(&text).into_iter().map(|server| server.ip().to_canonical())
    };
    let mut all: Vec<IpAddr> = FILES.into_iter().flat_map(named).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The resolvers that a resolv.conf names, in their order.
pub(super) fn servers_in(resolv_conf: &Path) -> Vec<SocketAddr> {
    config::servers(&config::read(resolv_conf))
}

/// The addresses of a name in a hosts file.
pub(super) fn addresses_in(hosts: &Path, name: &str) -> Vec<IpAddr> {
    config::addresses(&config::read(hosts), name)
}

/// The asking side.
#[derive(Debug)]
pub struct Resolver {
    questions: SyncSender<Ask>,
    answers: Arc<Mutex<Vec<Reply>>>,
    wake: Arc<OwnedFd>,
}

impl Resolver {
    /// Starts the thread; it ends when the resolver is dropped.
    pub fn new(files: ResolverFiles) -> io::Result<Self> {
        let (questions, asked) = sync_channel(QUEUE_MAX);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let answers = Arc::default();
        let worker = Worker {
            asked,
            answers: Arc::clone(&answers),
            wake: Arc::clone(&wake),
            files: Files::new(files),
            sockets: [None, None],
            outstanding: HashMap::new(),
            random: RandomState::new(),
            number: 0,
            is_over: false,
        };
        thread::Builder::new()
            .name("rano-names".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                privileges::keep_only(CapabilitySet::empty());
                worker.run();
            })
            .map(drop)?;
        Ok(Self { questions, answers, wake })
    }

    /// Whether there was room for the question.
    pub fn ask(&self, address: IpAddr, hosts_only: bool) -> bool {
        let ask = Ask { address, hosts_only, since: Instant::now() };
        match self.questions.try_send(ask) {
            Ok(()) => {
                self.wake();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// What has been answered, as of `now`.
    pub fn take(&self, now: Moment) -> Vec<Pointer> {
        let replies = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let pointer = |Reply { address, name, confirmed, lasts }: Reply| Pointer {
            at: now,
            address,
            name,
            confirmed,
            lasts,
        };
        replies.into_iter().map(pointer).collect()
    }

    fn wake(&self) {
        // A full counter is as good as another wake-up.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The channel closes with it, but the thread has to look.
        let (closed, _) = sync_channel(0);
        self.questions = closed;
        self.wake();
    }
}

/// What a question on its way is about.
#[derive(Debug, Clone)]
enum Stage {
    /// The name of the address.
    Name,
    /// Whether the name leads back.
    Confirmation { name: Arc<str>, lasts: Duration },
}

#[derive(Debug)]
struct Outstanding {
    ask: Ask,
    stage: Stage,
    question: Question,
    server: usize,
    sent: Instant,
}

struct Worker {
    asked: Receiver<Ask>,
    answers: Arc<Mutex<Vec<Reply>>>,
    wake: Arc<OwnedFd>,
    files: Files,
    /// Of IPv4 and IPv6.
    sockets: [Option<UdpSocket>; 2],
    /// By the number in the message.
    outstanding: HashMap<u16, Outstanding>,
    random: RandomState,
    number: u64,
    is_over: bool,
}

impl Worker {
    fn run(mut self) {
        while !self.is_over {
            self.wait();
            self.receive();
            self.look_at_time(Instant::now());
            self.begin();
        }
    }

    fn wait(&self) {
        let next = self.outstanding.values().map(|one| one.sent + RESEND).min();
        let next =
            next.into_iter().chain(self.outstanding.values().map(|one| one.ask.since + PATIENCE)).min();
        let patience = next.map(|next| next.saturating_duration_since(Instant::now()));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        fds.extend(self.sockets.iter().flatten().map(|socket| PollFd::new(socket, PollFlags::IN)));
        // Whatever went wrong, the sockets are not waited for by spinning: one that fails is given up in `receive`.
        let _ = poll(&mut fds, patience.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
    }

    /// The next question that waits for its turn. They wait in the channel, which has a bound.
    fn next_question(&mut self) -> Option<Ask> {
        let asked = self.asked.try_recv();
        self.is_over = asked == Err(TryRecvError::Disconnected);
        asked.ok()
    }

    fn begin(&mut self) {
        while self.outstanding.len() < OUTSTANDING_MAX
            && let Some(ask) = self.next_question()
        {
            self.files.refresh();
            if let Some(name) = self.files.hosts.get(&ask.address) {
                let name = Some(Arc::clone(name));
                // Whoever writes that file may say what he likes.
                self.reply(Reply { address: ask.address, name, confirmed: true, lasts: HOSTS });
            } else if ask.hosts_only || ask.since.elapsed() >= PATIENCE {
                let lasts = if ask.hosts_only { HOSTS } else { FAILED };
                self.reply(Reply { address: ask.address, name: None, confirmed: false, lasts });
            } else {
                self.send(ask, Stage::Name, Question::name_of(ask.address), 0);
            }
        }
    }

    /// Sends a question to the first server from `server` on that can be reached.
    fn send(&mut self, ask: Ask, stage: Stage, question: Question, mut server: usize) {
        let number = self.new_number();
        let Some(message) = question.message(number) else { return self.failed(ask, stage) };
        while let Some(address) = self.files.servers.get(server).copied() {
            let is_sent =
                self.socket(address).is_some_and(|socket| socket.send_to(&message, address).is_ok());
            if is_sent {
                let sent = Instant::now();
                self.outstanding.insert(number, Outstanding { ask, stage, question, server, sent });
                return;
            }
            server += 1;
        }
        self.failed(ask, stage);
    }

    /// Not to be guessed by whoever does not see the questions.
    fn new_number(&mut self) -> u16 {
        loop {
            self.number += 1;
            let [low, high, ..] = self.random.hash_one(self.number).to_ne_bytes();
            let number = u16::from_ne_bytes([low, high]);
            if !self.outstanding.contains_key(&number) {
                return number;
            }
        }
    }

    fn socket(&mut self, server: SocketAddr) -> Option<&UdpSocket> {
        let (place, any): (usize, IpAddr) = match server {
            SocketAddr::V4(_) => (0, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (1, Ipv6Addr::UNSPECIFIED.into()),
        };
        if self.sockets[place].is_none() {
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.set_nonblocking(true).ok()?;
            self.sockets[place] = Some(socket);
        }
        self.sockets[place].as_ref()
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        for place in 0..self.sockets.len() {
            while let Some(socket) = &self.sockets[place] {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => self.received(&buffer[..length], from),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        self.sockets[place] = None;
                    }
                }
            }
        }
    }

    fn received(&mut self, message: &[u8], from: SocketAddr) {
        let Some(number) = message::number(message) else { return };
        let Some(one) = self.outstanding.get(&number) else { return };
        let is_from_server = self
            .files
            .servers
            .get(one.server)
            .is_some_and(|server| (server.ip(), server.port()) == (from.ip(), from.port()));
        if !is_from_server {
            return;
        }
        // What does not answer the question is no answer: the right one may still come.
        let Some(answered) = one.question.read(message) else { return };
        let Some(one) = self.outstanding.remove(&number) else { return };
        self.answered(one, answered);
    }

    fn answered(&mut self, one: Outstanding, answered: Answered) {
        let address = one.ask.address;
        match (one.stage, answered) {
            (stage, Answered::Refused) => self.send(one.ask, stage, one.question, one.server + 1),
            (Stage::Name, Answered::Name { name, lasts }) => {
                let question = Question::addresses_of(&name, address);
                self.send(one.ask, Stage::Confirmation { name, lasts }, question, one.server);
            }
            (Stage::Name, Answered::Nothing | Answered::Addresses(_)) => {
                self.reply(Reply { address, name: None, confirmed: false, lasts: NAMELESS });
            }
            (Stage::Confirmation { name, lasts }, Answered::Addresses(addresses)) => {
                let confirmed = addresses.contains(&address);
                self.reply(Reply { address, name: Some(name), confirmed, lasts });
            }
            (Stage::Confirmation { name, lasts }, Answered::Nothing | Answered::Name { .. }) => {
                self.reply(Reply { address, name: Some(name), confirmed: false, lasts });
            }
        }
    }

    fn look_at_time(&mut self, now: Instant) {
        let is_late = |one: &Outstanding| now >= one.sent + RESEND || now >= one.ask.since + PATIENCE;
        let late: Vec<u16> =
            self.outstanding.iter().filter(|(_, one)| is_late(one)).map(|(number, _)| *number).collect();
        for number in late {
            let Some(Outstanding { ask, stage, question, server, .. }) = self.outstanding.remove(&number)
            else {
                continue;
            };
            if now >= ask.since + PATIENCE {
                self.failed(ask, stage);
            } else {
                let next = if server + 1 < self.files.servers.len() { server + 1 } else { 0 };
                self.send(ask, stage, question, next);
            }
        }
    }

    fn failed(&mut self, ask: Ask, stage: Stage) {
        let (name, lasts) = match stage {
            Stage::Name => (None, FAILED),
            Stage::Confirmation { name, lasts } => (Some(name), lasts),
        };
        self.reply(Reply { address: ask.address, name, confirmed: false, lasts });
    }

    fn reply(&self, reply: Reply) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
    }
}

/// Whom reverse look-ups would ask here.
pub fn servers() -> Vec<SocketAddr> {
    config::servers(&config::read(&ResolverFiles::default().resolv_conf))
}

/// What the two files say.
struct Files {
    paths: ResolverFiles,
    servers: Vec<SocketAddr>,
    hosts: HashMap<IpAddr, Arc<str>>,
    changed: [Option<SystemTime>; 2],
    looked: Option<Instant>,
}

impl Files {
    fn new(paths: ResolverFiles) -> Self {
        Self { paths, servers: Vec::new(), hosts: HashMap::new(), changed: [None, None], looked: None }
    }

    fn refresh(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return;
        }
        let is_first = self.looked.replace(Instant::now()).is_none();
        let changed = [&self.paths.resolv_conf, &self.paths.hosts]
            .map(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        if !is_first && changed == self.changed {
            return;
        }
        self.changed = changed;
        self.servers = config::servers(&config::read(&self.paths.resolv_conf));
        self.hosts = config::hosts(&config::read(&self.paths.hosts));
    }
}

#[cfg(test)]
mod tests;
