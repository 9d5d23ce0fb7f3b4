//! Recordings of raw events as `--replay` takes them, written by hand: the clock is the test's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

/// 2026-01-17T19:30:00Z.
const BEGIN_MS: i64 = 1_768_678_200_000;
/// Boot clock at the same moment.
const BEGIN_NS: u64 = 1_000_000_000_000_000;

/// A recording that grows line by line. Times are milliseconds after its begin.
#[derive(Default)]
pub struct Recording {
    text: String,
    /// How far the wall clock has been moved.
    jump_ms: i64,
    /// Of the sockets to come; recordings of old do not say.
    source: Option<&'static str>,
}

impl Recording {
    /// With a process named claude, pid 42.
    pub fn new() -> Self {
        Self::default().process(42, "claude")
    }

    /// Begins with the line that names the source, which is that of each socket, too.
    pub fn made_by(mut self, source: &'static str) -> Self {
        self.source = Some(source);
        let header = json!({ "recorded": { "source": source } });
        self.text.insert_str(0, &format!("{header}\n"));
        self
    }

    pub fn process(self, pid: u32, comm: &str) -> Self {
        self.process_of(pid, comm, 1000)
    }

    pub fn process_of(self, pid: u32, comm: &str, uid: u32) -> Self {
        let image = json!({ "comm": comm, "exe": format!("/usr/bin/{comm}"), "argv": [comm], "uid": uid });
        let id = json!({ "pid": pid, "start_time": pid });
        let at = self.at(0);
        self.line(&json!({ "process": { "seen": { "id": id, "parent": 1, "image": image, "at": at } } }))
    }

    /// The wall clock is set; the boot clock goes on.
    pub fn wall_clock_jumps(mut self, by_ms: i64) -> Self {
        self.jump_ms += by_ms;
        self
    }

    /// An established connection of claude.
    pub fn connect(self, connection: u16, ms: u64, remote: &str) -> Self {
        self.connect_of(42, connection, ms, remote, "established")
    }

    pub fn connect_of(self, pid: u32, connection: u16, ms: u64, remote: &str, state: &str) -> Self {
        self.opened(pid, connection, ms, ("tcp", remote), state, "polled")
    }

    /// A connection of claude whose beginning was told as it happened.
    pub fn exact(self, connection: u16, ms: u64, remote: &str) -> Self {
        self.opened(42, connection, ms, ("tcp", remote), "established", "exact")
    }

    /// The same of a datagram socket.
    pub fn datagrams(self, connection: u16, ms: u64, remote: &str) -> Self {
        self.datagrams_of(42, connection, ms, remote)
    }

    pub fn datagrams_of(self, pid: u32, connection: u16, ms: u64, remote: &str) -> Self {
        self.opened(pid, connection, ms, ("udp", remote), "established", "exact")
    }

    fn opened(
        self,
        pid: u32,
        connection: u16,
        ms: u64,
        (protocol, remote): (&str, &str),
        state: &str,
        quality: &str,
    ) -> Self {
        let at = self.at(ms);
        let mut opened = json!({
            "id": id(connection), "role": "connect", "protocol": protocol,
            "local": { "ip": format!("10.0.0.1:{}", 40_000 + u32::from(connection)) }, "remote": { "ip": remote },
            "state": state, "owner": { "pid": pid, "start_time": pid }, "quality": quality,
            "preexisting": false, "at": at, "netns": 1,
        });
        if let Some(source) = self.source {
            opened["source"] = source.into();
        }
        self.line(&json!({ "socket": { "opened": opened } }))
    }

    pub fn established(self, connection: u16, ms: u64) -> Self {
        let at = self.at(ms);
        self.line(
            &json!({ "socket": { "state": { "id": id(connection), "state": "established", "at": at } } }),
        )
    }

    /// Its local end becomes known.
    pub fn local(self, connection: u16, ms: u64, local: &str) -> Self {
        let (at, local) = (self.at(ms), json!({ "ip": local }));
        self.line(&json!({ "socket": { "local": { "id": id(connection), "local": local, "at": at } } }))
    }

    pub fn name(self, connection: u16, ms: u64, name: &str, by: &str) -> Self {
        let at = self.at(ms);
        self.line(
            &json!({ "socket": { "named": { "id": id(connection), "name": name, "by": by, "at": at } } }),
        )
    }

    /// A DNS answer that was received by a socket of the recording, or by nobody who is known.
    pub fn answer(self, to: Option<u16>, ms: u64, asked: &str, address: &str, ttl_seconds: u64) -> Self {
        self.answers(to, ms, asked, &[address.to_owned()], ttl_seconds)
    }

    /// The same with several addresses.
    pub fn answers(
        self,
        to: Option<u16>,
        ms: u64,
        asked: &str,
        addresses: &[String],
        ttl_seconds: u64,
    ) -> Self {
        let at = self.at(ms);
        let addresses: Vec<_> =
            addresses.iter().map(|ip| json!([ip, { "secs": ttl_seconds, "nanos": 0 }])).collect();
        let nobody =
            json!({ "flow": { "protocol": "udp", "local": "10.0.0.1:9", "remote": "10.0.0.53:53" } });
        let to = to.map_or(nobody, |connection| json!({ "socket": id(connection) }));
        self.line(&json!({ "evidence": { "answer": {
            "at": at, "to": to, "asked": asked, "addresses": addresses,
        } } }))
    }

    /// What a connection said first.
    pub fn greeting(self, connection: u16, ms: u64, name: &str, by: &str) -> Self {
        let at = self.at(ms);
        let from = json!({ "socket": id(connection) });
        self.line(&json!({ "evidence": { "greeting": { "at": at, "from": from, "name": name, "by": by } } }))
    }

    /// What a reverse look-up found.
    pub fn pointer(self, ms: u64, address: &str, name: &str, confirmed: bool) -> Self {
        let at = self.at(ms);
        self.line(&json!({ "evidence": { "pointer": {
            "at": at, "address": address, "name": name, "confirmed": confirmed,
        } } }))
    }

    /// So far.
    pub fn bytes(self, connection: u16, ms: u64, sent: u64, received: u64) -> Self {
        let at = self.at(ms);
        let bytes = json!({ "sent": sent, "received": received });
        self.line(&json!({ "socket": { "bytes": { "id": id(connection), "bytes": bytes, "at": at } } }))
    }

    pub fn close(self, connection: u16, ms: u64) -> Self {
        let at = self.at(ms);
        self.line(&json!({ "socket": { "closed": {
            "id": id(connection), "at": at, "bytes": { "sent": 5, "received": 6 }, "error": null,
            "established": true, "duration": null,
        } } }))
    }

    /// It was found out that it is over.
    pub fn gone(self, connection: u16, ms: u64) -> Self {
        let at = self.at(ms);
        self.line(&json!({ "socket": { "gone": { "id": id(connection), "at": at } } }))
    }

    /// It never was established.
    pub fn fail(self, connection: u16, ms: u64) -> Self {
        let at = self.at(ms);
        self.line(&json!({ "socket": { "closed": {
            "id": id(connection), "at": at, "bytes": null, "error": 111, "established": false, "duration": null,
        } } }))
    }

    /// Nothing happens until then.
    pub fn clock(self, ms: u64) -> Self {
        let at = self.at(ms);
        self.line(&json!({ "clock": at }))
    }

    /// Writes it into `directory`.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join("recording.jsonl");
        fs::write(&path, &self.text)?;
        Ok(path)
    }

    fn line(mut self, line: &Value) -> Self {
        self.text.push_str(&line.to_string());
        self.text.push('\n');
        self
    }

    fn at(&self, ms: u64) -> Value {
        let wall = BEGIN_MS + i64::try_from(ms).unwrap_or(0) + self.jump_ms;
        json!({ "boot_ns": BEGIN_NS + ms * 1_000_000, "unix_ms": wall })
    }
}

fn id(connection: u16) -> Value {
    json!({ "cookie": { "netns": 1, "cookie": connection } })
}
