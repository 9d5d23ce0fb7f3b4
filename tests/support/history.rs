//! A directory with a database in it, written through the real store.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rano::internals::connection::{Connection as Observed, End as Ending};
use rano::internals::event::{
    Address, Bytes, Class, ConnectionId, DomainSource, Event, EventKind, KnownName, Moment, OwnerQuality,
    Protocol, SocketState, SourceKind,
};
use rano::internals::files::{Identity, Rights};
use rano::internals::process::call::{Call, Tool};
use rano::internals::process::{Process, ProcessId};
use rano::internals::source::Role;
use rano::internals::store::{Session, Store, StoreOptions};
use rano::internals::update::Counters;
use serde_json::Value;
use tempfile::TempDir;

use super::database::Database;
use super::namespace::{Place, User};
use super::rano::{Finished, Launch, default_database};
use super::stage;

/// 2026-01-17T19:30:00Z.
pub const START: i64 = 1_768_678_200_000;

/// One connection from its connect to its close.
#[derive(Debug, Clone)]
pub struct Connection {
    pub provider: &'static str,
    pub comm: String,
    pub cmdline: String,
    pub domain: Option<String>,
    /// How the name is known.
    pub by: DomainSource,
    pub ip: &'static str,
    /// Unix milliseconds.
    pub at: i64,
    pub open_for: Duration,
    /// Refused: one event, a fail.
    pub fails: bool,
    pub class: Class,
    pub port: u16,
    /// Bytes sent and received.
    pub bytes: (u64, u64),
    /// It has no close.
    pub stays_open: bool,
    /// Agent, and the command line of its tool call.
    pub call: Option<(&'static str, Option<&'static str>)>,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            provider: "anthropic",
            comm: "claude".into(),
            cmdline: "claude --verbose".into(),
            domain: Some("api.anthropic.com".into()),
            by: DomainSource::Dns,
            ip: "203.0.113.7",
            at: START,
            open_for: Duration::from_millis(1200),
            fails: false,
            class: Class::default(),
            port: 443,
            bytes: (100, 1000),
            stays_open: false,
            call: None,
        }
    }
}

impl Connection {
    pub fn events(&self, number: u64) -> Vec<Event> {
        let pid = 2000 + u32::try_from(number % 1000).expect("below 1000");
        let process = Process {
            key: number,
            id: ProcessId { pid, start_time: 1 },
            ppid: 1,
            uid: 1000,
            comm: self.comm.clone(),
            cmdline: self.cmdline.clone(),
            exe: "/usr/bin/agent".to_owned(),
            provider: self.provider.into(),
            ancestry: Vec::new(),
            program: self.comm.clone(),
            cwd: None,
            call: self.call.map(|(agent, tool)| {
                let id = |pid| ProcessId { pid, start_time: 1 };
                let tool =
                    tool.map(|line| Tool { cmdline: line.to_owned(), id: id(1800), started_ms: START });
                Arc::new(Call { agent: agent.into(), agent_id: id(1700), session: None, tool })
            }),
            trace: None,
        };
        let address =
            |text: &str, port| Address::Ip(SocketAddr::new(text.parse().expect("an address"), port));
        let at = Moment { boot_ns: 0, unix_ms: self.at };
        let name = self.domain.as_ref();
        let failed = Ending { at, duration: None, error: Some(111), is_late: false, has_failed: true };
        let connection = Observed {
            process: Some(Arc::new(process)),
            provider: self.provider.into(),
            local: Some(address("192.168.1.23", 443)),
            remote: Some(address(self.ip, self.port)),
            name: name.map(|name| KnownName { name: name.as_str().into(), by: self.by }),
            owner_quality: OwnerQuality::Polled,
            netns: 4_026_531_840,
            class: self.class,
            ended: self.fails.then_some(failed),
            ..Observed::new(ConnectionId(number + 1), Role::Connect, Protocol::Tcp, at)
        };
        let connect = Event { kind: connection.first_event(), at, connection: Arc::new(connection) };
        if self.fails || self.stays_open {
            return vec![connect];
        }
        let millis = i64::try_from(self.open_for.as_millis()).expect("a short time");
        let at = Moment { boot_ns: 0, unix_ms: self.at + millis };
        let duration = Some(self.open_for);
        let close = Event { kind: EventKind::Close, at, ..connect.clone() }.with(|it| {
            it.ended = Some(Ending { at, duration, error: None, is_late: false, has_failed: false });
            it.bytes = Some(Bytes { sent: self.bytes.0, received: self.bytes.1 });
            it.state = Some(SocketState::Closed);
        });
        vec![connect, close]
    }
}

/// What a run would have counted of them.
fn counters(connections: &[Connection]) -> Counters {
    let mut counters = Counters::default();
    for connection in connections.iter().filter(|connection| !connection.fails) {
        let is_here = connection.ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let sum = if is_here { &mut counters.loopback } else { &mut counters.away };
        sum.sent += connection.bytes.0;
        sum.received += connection.bytes.1;
    }
    counters
}

/// How a session is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Killed,
}

pub struct History {
    pub place: Place,
    /// By which its sessions were observed.
    pub source: SourceKind,
    directory: TempDir,
}

impl History {
    pub fn new() -> Result<Self> {
        let place = Place::new(User::Ordinary)?;
        Ok(Self { directory: stage::directory(&place)?, place, source: SourceKind::Proc })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self) -> PathBuf {
        default_database(self.directory())
    }

    /// Those of the user whose database it is.
    fn rights(&self) -> Rights {
        let (uid, gid) = self.place.ids();
        if super::namespace::is_root() && uid != 0 {
            Rights::User(Identity { uid, gid, groups: vec![gid] })
        } else {
            Rights::here()
        }
    }

    /// Begins a session; its run id is `1-<started_at>`.
    pub fn begin(&self, name: &str, started_at: i64) -> Result<Store> {
        let options = StoreOptions {
            path: self.path(),
            rights: self.rights(),
            batch_size: 10_000,
            flush_interval: Duration::from_millis(5),
            queue_max: 1_000_000,
            retain: None,
            seal_key: None,
        };
        let session = Session {
            run_id: format!("1-{started_at}"),
            name: Some(name.to_owned()),
            started_at,
            host: "box".to_owned(),
            user: "ann".to_owned(),
            args: Vec::new(),
            patterns: vec!["claude".to_owned()],
            excludes: Vec::new(),
            config_files: Vec::new(),
            source: self.source,
            source_reason: None,
        };
        Store::start(&options, &session).context("start the store")
    }

    pub fn write(&self, name: &str, started_at: i64, connections: &[Connection], end: End) -> Result<()> {
        let store = self.begin(name, started_at)?;
        let mut last = started_at;
        for (number, connection) in connections.iter().enumerate() {
            for event in connection.events(number as u64) {
                last = last.max(event.at.unix_ms);
                store.push(&event.into());
            }
        }
        if end == End::Clean {
            let finished = store.finish(counters(connections), last);
            ensure!(finished.error.is_none() && finished.dropped == 0, "{finished:?}");
        }
        Ok(())
    }

    pub fn launch(&self, arguments: &[&str]) -> Result<Launch> {
        Ok(Launch::new(&self.place, self.directory())?.args(arguments))
    }

    /// In the test's own network.
    pub fn launch_beside(&self, arguments: &[&str]) -> Result<Launch> {
        Ok(Launch::new(&self.place.beside_the_test(), self.directory())?.args(arguments))
    }

    /// Runs rano to its end, which has to be 0.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let finished = self.launch(arguments)?.run()?;
        finished.expect_code(0)?;
        Ok(finished)
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let finished = self.run(arguments)?;
        serde_json::from_str(&finished.stdout).with_context(|| finished.stdout.clone())
    }

    /// The contract's views, read beside rano.
    pub fn database(&self) -> Result<Database> {
        Database::open(&self.path())
    }

    /// Names and contents of everything in the directory.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.directory())? {
            let entry = entry?;
            let content = if entry.file_type()?.is_file() { fs::read(entry.path())? } else { Vec::new() };
            files.insert(entry.file_name().to_string_lossy().into_owned(), content);
        }
        Ok(files)
    }
}

/// `count` connections, one every `step_ms` from `at`.
pub fn every(count: usize, at: i64, step_ms: i64, connection: &Connection) -> Vec<Connection> {
    let moments = (0..count).map(|index| at + i64::try_from(index).expect("few") * step_ms);
    moments.map(|at| Connection { at, ..connection.clone() }).collect()
}
