//! A page that rano serves, asked over its own socket: plain HTTP/1.1, so that a test can ask what no client would.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::PATIENCE;
use super::rano::{Launch, Rano};

/// A running `rano serve`.
pub struct Site {
    pub rano: Rano,
    pub place: Address,
    pub token: String,
}

/// Where it is.
#[derive(Debug, Clone)]
pub enum Address {
    Port(SocketAddr),
    Socket(PathBuf),
}

/// A connection to it.
pub enum Client {
    Port(TcpStream),
    Socket(UnixStream),
}

impl Read for Client {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Port(stream) => stream.read(bytes),
            Self::Socket(stream) => stream.read(bytes),
        }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Port(stream) => stream.write(bytes),
            Self::Socket(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Site {
    /// Starts it and waits for the line that it prints.
    pub fn start(launch: Launch) -> Result<Self> {
        let rano = launch.start()?;
        let line = rano
            .stdout
            .wait_for("an address", |line| line.contains("#token="))
            .with_context(|| format!("rano's errors: {}", rano.stderr.text()))?;
        let (place, token) = line.split_once("#token=").context("it has one")?;
        let place = if let Some(path) = place.strip_prefix("unix:") {
            Address::Socket(path.into())
        } else {
            let address = place.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
            Address::Port(address.with_context(|| format!("no address: {line}"))?.parse()?)
        };
        Ok(Self { place, token: token.to_owned(), rano })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        match &self.place {
            Address::Port(address) => Ok(*address),
            Address::Socket(path) => bail!("it is at {}", path.display()),
        }
    }

    /// Sends `head` as it is and reads one answer.
    pub fn send(&self, head: &str) -> Result<Answer> {
        let mut stream = self.connect()?;
        stream.write_all(head.as_bytes())?;
        read_answer(stream)
    }

    pub fn connect(&self) -> Result<Client> {
        Ok(match &self.place {
            Address::Port(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Client::Port(stream)
            }
            Address::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Client::Socket(stream)
            }
        })
    }

    /// A request with further header lines, each ended.
    pub fn head(&self, path: &str, headers: &str) -> String {
        let host = self.address().map_or_else(|_| "rano".to_owned(), |address| address.to_string());
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
    }

    pub fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send(&self.head(path, &self.bearer()))
    }

    /// What `path` answers with, which has to be JSON and no refusal.
    pub fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path)?;
        ensure!(answer.code == 200, "{path}: {answer:?}");
        serde_json::from_str(&answer.body).with_context(|| answer.body.clone())
    }

    /// A stream of events, from `after` on if that is given.
    pub fn stream(&self, query: &str, after: Option<i64>) -> Result<Events> {
        let from = after.map(|after| format!("Last-Event-ID: {after}\r\n")).unwrap_or_default();
        let mut stream = self.connect()?;
        stream.write_all(self.head(&format!("/api/stream{query}"), &(self.bearer() + &from)).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "the stream ended in its head");
        }
        Ok(Events { reader })
    }
}

/// Messages as they come.
pub struct Events {
    reader: BufReader<Client>,
}

/// One of them.
#[derive(Debug)]
pub struct Message {
    pub kind: String,
    pub id: i64,
    pub data: Value,
}

impl Events {
    pub fn next(&mut self) -> Result<Message> {
        let (mut kind, mut id, mut data) = (String::new(), 0, String::new());
        loop {
            let mut line = Vec::new();
            ensure!(self.reader.read_until(b'\n', &mut line)? > 0, "the stream ended");
            let line = String::from_utf8_lossy(&line);
            match line.trim_end().split_once(':') {
                Some(("event", word)) => word.trim().clone_into(&mut kind),
                Some(("id", number)) => id = number.trim().parse()?,
                Some(("data", text)) => data.push_str(text.trim()),
                // A comment, or the length of a chunk.
                _ if data.is_empty() || !line.trim_end().is_empty() => {}
                _ => return Ok(Message { kind, id, data: serde_json::from_str(&data).context(data)? }),
            }
        }
    }

    /// The first message that has an event of which `is_it` holds.
    pub fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let message = self.next()?;
            if message.kind != "events" {
                bail!("{message:?}");
            }
            let events = message.data["events"].as_array().cloned().unwrap_or_default();
            if let Some(found) = events.into_iter().find(&is_it) {
                return Ok(found);
            }
        }
    }
}

fn read_answer(stream: Client) -> Result<Answer> {
    let mut bytes = Vec::new();
    BufReader::new(stream).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let code =
        first.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| first.to_owned())?;
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Answer { code, headers, body: body.to_owned() })
}
