//! Names without packets: the endpoints that an agent is known to use are looked up, once that agent reaches out, and a
//! connection to one of their addresses may be one to that name. Addresses are shared, so it is a guess.
//!
//! One thread asks this machine's resolvers, after `/etc/hosts`, slowly and one name after the other. Its sockets are
//! not connected, so that no source takes them for anybody's connections.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::time::{Duration, Instant};

use rustix::thread::CapabilitySet;

use super::dns::{self, Family, Said};
use super::host_name;
use super::resolver::{self, ResolverFiles};
use crate::bounded::Bounded;
use crate::change::SocketId;
use crate::event::Moment;
use crate::privileges;
use crate::process::agents::Agent;

/// Endpoints of one agent that are asked for.
const ENDPOINTS_MAX: usize = 12;
/// Names that wait to be asked for; more are left out.
const QUEUE_MAX: usize = 256;
/// Addresses whose names are kept.
const ADDRESSES_MAX: usize = 4_096;
/// Connections that wait for answers.
const WAITING_MAX: usize = 1_024;
/// Between two names.
const PACE: Duration = Duration::from_millis(20);
/// How long one server is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bounds of how long an answer holds; after that the agent's next connection asks again.
const SHORTEST: Duration = Duration::from_mins(5);
const LONGEST: Duration = Duration::from_hours(1);
/// How long an answer may lie there.
const LOOK: Duration = Duration::from_millis(25);
/// More names of one address are not kept: then it is nobody's anyway.
const NAMES_MAX: usize = 4;

/// The hosts that agents are known to use, by the agent's name.
pub fn by_agent(agents: &[Agent]) -> HashMap<Arc<str>, Vec<Arc<str>>> {
    let hosts = |agent: &Agent| -> Vec<Arc<str>> {
        agent.endpoints.iter().filter_map(|host| host_name::from_text(host.as_bytes())).collect()
    };
    let all = agents.iter().map(|agent| (Arc::from(agent.name.as_str()), hosts(agent)));
    all.filter(|(_, hosts)| !hosts.is_empty()).collect()
}

#[derive(Debug)]
struct Reply {
    name: Arc<str>,
    addresses: Vec<(IpAddr, Duration)>,
}

#[derive(Debug, Clone)]
struct Known {
    name: Arc<str>,
    until_ns: u64,
}

/// What is known of addresses, and who waits for more.
#[derive(Debug)]
pub struct KnownNames {
    endpoints: HashMap<Arc<str>, Vec<Arc<str>>>,
    asker: Option<(SyncSender<Arc<str>>, Receiver<Reply>)>,
    /// When an agent's endpoints are asked for again; boot clock.
    asked_until_ns: HashMap<Arc<str>, u64>,
    known: Bounded<IpAddr, Vec<Known>>,
    waiting: Vec<(IpAddr, SocketId)>,
    /// Names that are on their way.
    open: usize,
    now_ns: u64,
}

impl KnownNames {
    /// Nothing is asked.
    pub fn none() -> Self {
        Self {
            endpoints: HashMap::new(),
            asker: None,
            asked_until_ns: HashMap::new(),
            known: Bounded::new(ADDRESSES_MAX),
            waiting: Vec::new(),
            open: 0,
            now_ns: 0,
        }
    }

    /// `endpoints` by the agent's name. The thread starts with the first agent that reaches out.
    pub fn asking(endpoints: HashMap<Arc<str>, Vec<Arc<str>>>) -> Self {
        Self { endpoints, ..Self::none() }
    }

    /// An agent reached out.
    pub fn wants(&mut self, agent: &str, at: Moment) {
        self.now_ns = self.now_ns.max(at.boot_ns);
        let Some((agent, names)) = self.endpoints.get_key_value(agent) else { return };
        if self.asked_until_ns.get(agent).is_some_and(|until| self.now_ns < *until) {
            return;
        }
        self.asked_until_ns.insert(Arc::clone(agent), self.now_ns.saturating_add(nanos(SHORTEST)));
        if self.asker.is_none() {
            self.asker = start(ResolverFiles::default()).ok();
        }
        let Some((asker, _)) = &self.asker else { return };
        for name in names.iter().take(ENDPOINTS_MAX) {
            self.open += usize::from(asker.try_send(Arc::clone(name)).is_ok());
        }
    }

    /// The only name that an address is known by.
    pub fn name_of(&self, address: IpAddr) -> Option<Arc<str>> {
        let known = self.known.get(&address)?;
        let mut valid = known.iter().filter(|known| known.until_ns > self.now_ns);
        match (valid.next(), valid.next()) {
            (Some(one), None) => Some(Arc::clone(&one.name)),
            _ => None,
        }
    }

    /// A connection has no name, and an answer may give it one.
    pub fn wait(&mut self, address: IpAddr, socket: SocketId) {
        if self.open > 0 && self.waiting.len() < WAITING_MAX {
            self.waiting.push((address, socket));
        }
    }

    /// Time has come this far: which connections have a name now. None is told before all answers are there: one that
    /// comes later may fit as well.
    pub fn passed(&mut self, now: Moment) -> Vec<(SocketId, Arc<str>)> {
        self.now_ns = self.now_ns.max(now.boot_ns);
        if self.open == 0 {
            return Vec::new();
        }
        let mut replies = Vec::new();
        if let Some((_, answers)) = &self.asker {
            loop {
                match answers.try_recv() {
                    Ok(reply) => replies.push(reply),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.open = 0;
                        break;
                    }
                }
            }
        }
        self.open = self.open.saturating_sub(replies.len());
        for reply in replies {
            self.learn(&reply);
        }
        if self.open > 0 {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().filter_map(|(address, socket)| Some((socket, self.name_of(address)?))).collect()
    }

    /// When to look again; boot clock.
    pub fn next_due(&self) -> Option<u64> {
        (self.open > 0).then(|| self.now_ns.saturating_add(nanos(LOOK)))
    }

    fn learn(&mut self, reply: &Reply) {
        for &(address, lasts) in &reply.addresses {
            let until_ns = self.now_ns.saturating_add(nanos(lasts.clamp(SHORTEST, LONGEST)));
            let known = Known { name: Arc::clone(&reply.name), until_ns };
            match self.known.get_mut(&address) {
                Some(names) => {
                    let now_ns = self.now_ns;
                    names.retain(|other| other.name != reply.name && other.until_ns > now_ns);
                    if names.len() < NAMES_MAX {
                        names.push(known);
                    }
                }
                None => drop(self.known.insert(address, vec![known])),
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn start(files: ResolverFiles) -> io::Result<(SyncSender<Arc<str>>, Receiver<Reply>)> {
    let (names, asked) = sync_channel(QUEUE_MAX);
    let (replies, answers) = channel();
    let ask = move || {
        privileges::keep_only(CapabilitySet::empty());
        run(&files, &asked, &replies);
    };
    std::thread::Builder::new().name("rano-known".to_owned()).stack_size(256 * 1024).spawn(ask)?;
    Ok((names, answers))
}

/// Ends with whoever asks.
fn run(files: &ResolverFiles, asked: &Receiver<Arc<str>>, replies: &Sender<Reply>) {
    while let Ok(name) = asked.recv() {
        let addresses = look_up(files, &name);
        if replies.send(Reply { name, addresses }).is_err() {
            return;
        }
        std::thread::sleep(PACE);
    }
}

fn look_up(files: &ResolverFiles, name: &str) -> Vec<(IpAddr, Duration)> {
    let here = resolver::addresses_in(&files.hosts, name);
    if !here.is_empty() {
        return here.into_iter().map(|address| (address, SHORTEST)).collect();
    }
    for server in resolver::servers_in(&files.resolv_conf) {
        if let Some(addresses) = ask(server, name) {
            return addresses;
        }
    }
    Vec::new()
}

/// `None` where that server does not answer.
fn ask(server: SocketAddr, name: &str) -> Option<Vec<(IpAddr, Duration)>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    let random = RandomState::new();
    let mut open = HashSet::new();
    for (number, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let [low, high, ..] = random.hash_one(number).to_ne_bytes();
        let id = u16::from_ne_bytes([low, high]);
        socket.send_to(&dns::question(id, name, family)?, server).ok()?;
        open.insert((id, family));
    }
    let mut found = None;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    while !open.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            break;
        }
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Said::Answered(answered, addresses) = dns::read(&buffer[..length]) else { continue };
        let is_ours = (from.ip(), from.port()) == (server.ip(), server.port()) && *answered.name == *name;
        if is_ours && open.remove(&(answered.id, answered.family)) {
            found.get_or_insert_with(Vec::new).extend(addresses);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(replies: &[(&str, [u8; 4])]) -> KnownNames {
        let mut names = KnownNames::none();
        for (name, address) in replies {
            let addresses = vec![(IpAddr::from(*address), Duration::from_secs(1))];
            names.learn(&Reply { name: Arc::from(*name), addresses });
        }
        names
    }

    #[test]
    fn an_address_of_two_names_has_none() {
        let names = known(&[
            ("api.example", [192, 0, 2, 1]),
            ("api.example", [192, 0, 2, 1]),
            ("api.example", [192, 0, 2, 2]),
            ("auth.example", [192, 0, 2, 2]),
        ]);
        assert_eq!(names.name_of([192, 0, 2, 1].into()).as_deref(), Some("api.example"));
        assert_eq!(names.name_of([192, 0, 2, 2].into()), None);
        assert_eq!(names.name_of([192, 0, 2, 3].into()), None);
    }

    #[test]
    fn an_answer_holds_for_a_while() {
        let mut names = known(&[("api.example", [192, 0, 2, 1])]);
        names.now_ns = nanos(SHORTEST) - 1;
        assert!(names.name_of([192, 0, 2, 1].into()).is_some());
        names.now_ns += 1;
        assert!(names.name_of([192, 0, 2, 1].into()).is_none());
    }

    #[test]
    fn an_agent_that_is_not_listed_asks_for_nothing() {
        let mut names = KnownNames::asking(HashMap::new());
        names.wants("claude", Moment::default());
        assert!(names.asker.is_none() && names.next_due().is_none());
    }
}
