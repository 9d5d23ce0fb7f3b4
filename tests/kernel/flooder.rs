//! A client that does many things at a time: the test executable under another name takes orders on its standard input,
//! a line of JSON each, and answers each with a line. What it opened stays open until it ends or is told to close it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use domain::base::iana::Rtype;
use domain::base::{Message, MessageBuilder, Name};
use serde::{Deserialize, Serialize};

use crate::cgroup::Corner;
use crate::support::namespace::Place;
use crate::support::{PATIENCE, stage, wait_for_end};

/// Set in such a client.
const MARKER: &str = "RANO_TEST_FLOODER";
/// Where a name server listens.
pub const NAME_SERVER: &str = "127.0.0.1:53";

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Order {
    /// TCP connections that stay.
    Connect { to: Vec<SocketAddr> },
    /// Datagram sockets that are connected, send a byte and stay.
    Datagrams { to: Vec<SocketAddr> },
    /// Questions for addresses, each answered before the next one is asked, or not waited for.
    Ask { names: Vec<String>, is_answered: bool },
    /// Closes everything.
    Close,
}

/// The test's side. Ends when dropped.
pub struct Flooder {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Flooder {
    /// In `corner` from its first instruction.
    pub fn start(place: &Place, name: &str, corner: Option<&Corner>) -> Result<Self> {
        let mut command = Command::new(stage::actor(name)?);
        command.env_clear().env(MARKER, "1").current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(corner) = corner {
            corner.apply(&mut command);
        }
        place.apply(&mut command);
        let mut process = command.spawn().with_context(|| format!("start {name}"))?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("standard output was piped")?);
        Ok(Self { process, input, output })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn connect(&mut self, to: &[SocketAddr]) -> Result<()> {
        self.order(&Order::Connect { to: to.to_vec() })
    }

    pub fn send_datagrams(&mut self, to: &[SocketAddr]) -> Result<()> {
        self.order(&Order::Datagrams { to: to.to_vec() })
    }

    pub fn look_up(&mut self, names: &[String]) -> Result<()> {
        self.order(&Order::Ask { names: names.to_vec(), is_answered: true })
    }

    /// Does not wait for answers.
    pub fn ask(&mut self, names: &[String]) -> Result<()> {
        self.order(&Order::Ask { names: names.to_vec(), is_answered: false })
    }

    pub fn close(&mut self) -> Result<()> {
        self.order(&Order::Close)
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        let input = self.input.as_mut().context("it takes orders")?;
        writeln!(input, "{}", serde_json::to_string(order)?)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == "done", "flooder {}: '{}'", self.pid(), line.trim());
        Ok(())
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        drop(self.input.take());
        if !wait_for_end(&self.process, PATIENCE).unwrap_or(false) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// So many addresses of a network that no other test uses, one after the other.
pub fn addresses(first: [u8; 4], count: u32, port: u16) -> Vec<SocketAddr> {
    let first = u32::from_be_bytes(first);
    (first..first + count).map(|ip| SocketAddr::from((Ipv4Addr::from(ip), port))).collect()
}

// ---- the client's side ----

pub fn play_if_asked() -> Option<ExitCode> {
    std::env::var_os(MARKER)?;
    Some(match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn play() -> Result<()> {
    let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Connect { to } => {
                for to in to {
                    streams.push(TcpStream::connect(to).with_context(|| format!("connect to {to}"))?);
                }
            }
            Order::Datagrams { to } => {
                for to in to {
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    socket.connect(to).with_context(|| format!("connect to {to}"))?;
                    // That nobody listens there may have been told already.
                    let _ = socket.send(b"x");
                    datagrams.push(socket);
                }
            }
            Order::Ask { names, is_answered } => ask(&names, is_answered)?,
            Order::Close => {
                streams.clear();
                datagrams.clear();
            }
        }
        println!("done");
    }
    Ok(())
}

fn ask(names: &[String], is_answered: bool) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(NAME_SERVER)?;
    socket.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut answer = [0; 1 << 13];
    for (id, name) in names.iter().enumerate() {
        let id = u16::try_from(id % usize::from(u16::MAX))?;
        let mut question = MessageBuilder::new_vec().question();
        question.header_mut().set_id(id);
        question.push((name.parse::<Name<Vec<u8>>>()?, Rtype::A))?;
        if socket.send(&question.finish()).is_err() {
            continue;
        }
        if is_answered {
            let length = socket.recv(&mut answer).with_context(|| format!("wait for {name}"))?;
            match Message::from_octets(&answer[..length]) {
                Ok(message) if message.header().id() == id => {}
                other => bail!("no answer for {name}: {other:?}"),
            }
        }
    }
    Ok(())
}
