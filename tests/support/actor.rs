//! A scripted program: the test executable under another name does what it is told on its standard input and
//! answers on its standard output, one JSON line each. Other processes see its name, its arguments and its sockets.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::namespace::Place;
use super::{PATIENCE, stage, wait_for_end};

mod flood;
mod sockets;

pub use flood::Flood;

/// Set in a process that is to be an actor; the value says which kind.
pub const MARKER: &str = "RANO_TEST_ACTOR";
/// Takes orders.
const SCRIPTED: &str = "scripted";
/// Does nothing until its standard input ends.
pub const HOLD_STILL: &str = "hold-still";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
}

/// How a TCP connection is ended. UDP sockets are simply closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The client says that it is done, waits for the server's end, closes.
    InOrder,
    /// Reset, by `SO_LINGER` 0.
    Reset,
}

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// Answers each request with as many bytes as it asks for (see `sockets`); ends when the client does.
    Answer,
    /// Accepts and keeps until `Order::DropAccepted`.
    Keep,
    /// Waits for the end of each client, one after the other, without a thread for each.
    Drain,
}

/// The two ends of a connection as the actor's own socket names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// How a child comes into the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Birth {
    Child,
    /// In a session of its own.
    Leader,
    /// Its parent is gone before it runs its program.
    Orphan,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Order {
    Serve { transport: Transport, at: SocketAddr, service: Service },
    DropAccepted { count: usize },
    Connect { transport: Transport, to: SocketAddr },
    Attempt { to: SocketAddr },
    ConnectAgain { connection: usize, to: SocketAddr },
    ServeNobody,
    SendTo { to: SocketAddr },
    ServeUnix { at: PathBuf },
    ConnectUnix { to: PathBuf },
    Exchange { connection: usize, send: usize, receive: usize },
    Close { connection: usize, ending: Ending },
    Hold { to: SocketAddr, count: usize },
    CloseHeld,
    Short { to: SocketAddr, count: usize, lifetime: Duration },
    Flood { flood: Flood, to: SocketAddr, count: usize },
    Spawn { program: OsString, called: Option<OsString>, arguments: Vec<OsString>, birth: Birth },
    Tell { child: usize, order: Box<Order> },
    Exec { program: OsString, arguments: Vec<OsString> },
    Rename { comm: Vec<u8> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Answer {
    Started { pid: u32 },
    Serving { at: SocketAddr },
    Opened { connection: usize, tuple: Tuple },
    Tuples(Vec<Tuple>),
    Totals(Totals),
    Spawned { child: usize, pid: u32 },
    Done,
    Failed(String),
}

/// Payload bytes of a connection as the actor counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    pub sent: u64,
    pub received: u64,
}

// ---- the test's side ----

/// A running actor that the test started. Ends when dropped, and its children with it.
pub struct Actor {
    process: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    pid: u32,
}

/// An actor in the tree below an [`Actor`]: the indices of the children on the way to it.
#[derive(Debug, Clone)]
pub struct Descendant {
    path: Vec<usize>,
    pub pid: u32,
}

impl Actor {
    pub fn start(place: &Place, name: &str) -> Result<Self> {
        Self::start_with(place, name, &[])
    }

    pub fn start_with(place: &Place, name: &str, arguments: &[&OsStr]) -> Result<Self> {
        Self::start_prepared(place, name, arguments, |_| ())
    }

    /// `prepare` is for what only a test of one kind needs, such as a namespace.
    pub fn start_prepared(
        place: &Place,
        name: &str,
        arguments: &[&OsStr],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new(stage::actor(name)?);
        command.args(arguments).env_clear().env(MARKER, SCRIPTED).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        place.apply(&mut command);
        prepare(&mut command);
        let mut process = command.spawn().with_context(|| format!("start actor {name}"))?;
        let orders = process.stdin.take();
        let output = process.stdout.take().context("standard output was piped")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut actor = Self { pid: process.id(), process, orders, answers };
        match actor.answer()? {
            Answer::Started { pid } => ensure!(pid == actor.pid, "another process answers"),
            other => bail!("unexpected {other:?}"),
        }
        Ok(actor)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The actor itself, in the form that the orders take.
    pub fn myself(&self) -> Descendant {
        Descendant { path: Vec::new(), pid: self.pid }
    }

    pub fn serve(&mut self, transport: Transport, at: &str, service: Service) -> Result<SocketAddr> {
        let at = at.parse().context("the address to serve at")?;
        match self.order(&[], Order::Serve { transport, at, service })? {
            Answer::Serving { at } => Ok(at),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Waits until a keeping server has accepted `count` connections, then closes all it kept.
    pub fn drop_accepted(&mut self, count: usize) -> Result<()> {
        self.done(&[], Order::DropAccepted { count })
    }

    pub fn connect(&mut self, transport: Transport, to: SocketAddr) -> Result<(usize, Tuple)> {
        self.connect_in(&self.myself(), transport, to)
    }

    pub fn connect_in(
        &mut self,
        who: &Descendant,
        transport: Transport,
        to: SocketAddr,
    ) -> Result<(usize, Tuple)> {
        match self.order(&who.path, Order::Connect { transport, to })? {
            Answer::Opened { connection, tuple } => Ok((connection, tuple)),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Begins to connect over TCP and does not wait for what comes of it.
    pub fn attempt(&mut self, to: SocketAddr) -> Result<(usize, Tuple)> {
        self.opened(Order::Attempt { to })
    }

    /// Disconnects a TCP socket and connects it elsewhere.
    pub fn connect_again(&mut self, connection: usize, to: SocketAddr) -> Result<Tuple> {
        Ok(self.opened(Order::ConnectAgain { connection, to })?.1)
    }

    /// Where attempts to connect over TCP are never answered: a listener whose queue is full.
    pub fn serve_nobody(&mut self) -> Result<SocketAddr> {
        match self.order(&[], Order::ServeNobody)? {
            Answer::Serving { at } => Ok(at),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Sends a datagram from a socket that is not connected.
    pub fn send_to(&mut self, to: SocketAddr) -> Result<(usize, Tuple)> {
        self.opened(Order::SendTo { to })
    }

    pub fn serve_unix(&mut self, at: &Path) -> Result<()> {
        self.done(&[], Order::ServeUnix { at: at.to_owned() })
    }

    pub fn connect_unix(&mut self, to: &Path) -> Result<()> {
        self.done(&[], Order::ConnectUnix { to: to.to_owned() })
    }

    /// Kills the process and waits for it.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends `send` bytes (at least [`sockets::HEADER`]) to an answering server, gets `receive` back. Returns the
    /// connection's totals.
    pub fn exchange(&mut self, connection: usize, send: usize, receive: usize) -> Result<Totals> {
        self.exchange_in(&self.myself(), connection, send, receive)
    }

    pub fn exchange_in(
        &mut self,
        who: &Descendant,
        connection: usize,
        send: usize,
        receive: usize,
    ) -> Result<Totals> {
        match self.order(&who.path, Order::Exchange { connection, send, receive })? {
            Answer::Totals(totals) => Ok(totals),
            other => bail!("unexpected {other:?}"),
        }
    }

    pub fn close(&mut self, connection: usize, ending: Ending) -> Result<()> {
        self.close_in(&self.myself(), connection, ending)
    }

    pub fn close_in(&mut self, who: &Descendant, connection: usize, ending: Ending) -> Result<()> {
        self.done(&who.path, Order::Close { connection, ending })
    }

    /// Opens `count` TCP connections and keeps them.
    pub fn hold(&mut self, to: SocketAddr, count: usize) -> Result<Vec<Tuple>> {
        self.tuples(Order::Hold { to, count })
    }

    /// Closes what [`Actor::hold`] opened, in one go.
    pub fn close_held(&mut self) -> Result<()> {
        self.done(&[], Order::CloseHeld)
    }

    /// `count` TCP connections one after the other, each open for `lifetime`.
    pub fn short_connections(
        &mut self,
        to: SocketAddr,
        count: usize,
        lifetime: Duration,
    ) -> Result<Vec<Tuple>> {
        self.tuples(Order::Short { to, count, lifetime })
    }

    /// As [`Self::short_connections`], one, of a descendant.
    pub fn short_connection_in(
        &mut self,
        who: &Descendant,
        to: SocketAddr,
        lifetime: Duration,
    ) -> Result<Tuple> {
        match self.order(&who.path, Order::Short { to, count: 1, lifetime })? {
            Answer::Tuples(tuples) => tuples.first().copied().context("no connection"),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Does one thing `count` times, as fast as it goes.
    pub fn flood(&mut self, flood: Flood, to: SocketAddr, count: usize) -> Result<()> {
        self.done(&[], Order::Flood { flood, to, count })
    }

    /// Starts a child actor of `parent` under the name `program`.
    pub fn spawn(&mut self, parent: &Descendant, program: &str) -> Result<Descendant> {
        self.spawn_with(parent, program, &[])
    }

    pub fn spawn_with(
        &mut self,
        parent: &Descendant,
        program: &str,
        arguments: &[&str],
    ) -> Result<Descendant> {
        self.spawn_called(parent, program, None, arguments)
    }

    /// As [`Self::spawn`], in another way.
    pub fn bear(&mut self, parent: &Descendant, program: &str, birth: Birth) -> Result<Descendant> {
        let program = stage::actor(program)?.into_os_string();
        self.spawned(parent, Order::Spawn { program, called: None, arguments: Vec::new(), birth })
    }

    /// As [`Self::spawn_with`]; `called` is what stands in `argv[0]` (`exec -a`).
    pub fn spawn_called(
        &mut self,
        parent: &Descendant,
        program: &str,
        called: Option<&str>,
        arguments: &[&str],
    ) -> Result<Descendant> {
        let program = stage::actor(program)?.into_os_string();
        let called = called.map(OsString::from);
        let arguments = arguments.iter().map(OsString::from).collect();
        self.spawned(parent, Order::Spawn { program, called, arguments, birth: Birth::Child })
    }

    fn spawned(&mut self, parent: &Descendant, order: Order) -> Result<Descendant> {
        match self.order(&parent.path, order)? {
            Answer::Spawned { child, pid } => {
                let mut path = parent.path.clone();
                path.push(child);
                Ok(Descendant { path, pid })
            }
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Replaces the program of `who` (exec): its connections are gone, its pid stays.
    pub fn exec(&mut self, who: &Descendant, program: &str) -> Result<()> {
        let program = stage::actor(program)?.into_os_string();
        match self.order(&who.path, Order::Exec { program, arguments: Vec::new() })? {
            Answer::Started { pid } if pid == who.pid => Ok(()),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Sets the name that `/proc/<pid>/comm` shows; at most 15 bytes.
    pub fn rename(&mut self, comm: &[u8]) -> Result<()> {
        self.rename_in(&self.myself(), comm)
    }

    pub fn rename_in(&mut self, who: &Descendant, comm: &[u8]) -> Result<()> {
        self.done(&who.path, Order::Rename { comm: comm.to_vec() })
    }

    /// Ends the process and waits for it.
    pub fn end(mut self) -> Result<()> {
        drop(self.orders.take());
        ensure!(wait_for_end(&self.process, PATIENCE)?, "actor {} does not end", self.pid);
        Ok(())
    }

    fn tuples(&mut self, order: Order) -> Result<Vec<Tuple>> {
        match self.order(&[], order)? {
            Answer::Tuples(tuples) => Ok(tuples),
            other => bail!("unexpected {other:?}"),
        }
    }

    fn opened(&mut self, order: Order) -> Result<(usize, Tuple)> {
        match self.order(&[], order)? {
            Answer::Opened { connection, tuple } => Ok((connection, tuple)),
            other => bail!("unexpected {other:?}"),
        }
    }

    fn done(&mut self, path: &[usize], order: Order) -> Result<()> {
        match self.order(path, order)? {
            Answer::Done => Ok(()),
            other => bail!("unexpected {other:?}"),
        }
    }

    fn order(&mut self, path: &[usize], order: Order) -> Result<Answer> {
        let order =
            path.iter().rev().fold(order, |order, &child| Order::Tell { child, order: Box::new(order) });
        let orders = self.orders.as_mut().context("the actor was ended")?;
        write_line(orders, &order).with_context(|| format!("tell the actor to {order:?}"))?;
        match self.answer()? {
            Answer::Failed(message) => bail!("{order:?}: {message}"),
            answer => Ok(answer),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        let line = self.answers.recv_timeout(PATIENCE).context("wait for the actor's answer")?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.orders.take());
        if !wait_for_end(&self.process, PATIENCE).unwrap_or(false) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn write_line(to: &mut impl io::Write, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()?;
    Ok(())
}

// ---- the actor's side ----

/// `None` in the test runner itself; in an actor, its life until its standard input ends.
pub fn play_if_asked() -> Option<ExitCode> {
    let kind = std::env::var_os(MARKER)?;
    let played = if kind == HOLD_STILL {
        io::copy(&mut io::stdin(), &mut io::sink()).map(|_| ()).map_err(Into::into)
    } else {
        play()
    };
    Some(match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actor: {error:?}");
            ExitCode::FAILURE
        }
    })
}

struct Stagehand {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

fn play() -> Result<()> {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: open_files.maximum, ..open_files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let mut stdout = io::stdout().lock();
    let mut sockets = sockets::Sockets::default();
    let mut children: Vec<Stagehand> = Vec::new();
    write_line(&mut stdout, &Answer::Started { pid: std::process::id() })?;
    for line in io::stdin().lock().lines() {
        let answer = obey(serde_json::from_str(&line?)?, &mut sockets, &mut children)
            .unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        write_line(&mut stdout, &answer)?;
    }
    for mut child in children {
        drop(child.process.stdin.take());
        child.process.wait()?;
    }
    Ok(())
}

fn obey(order: Order, sockets: &mut sockets::Sockets, children: &mut Vec<Stagehand>) -> Result<Answer> {
    Ok(match order {
        Order::Serve { transport, at, service } => {
            Answer::Serving { at: sockets.serve(transport, at, service)? }
        }
        Order::DropAccepted { count } => {
            sockets.drop_accepted(count)?;
            Answer::Done
        }
        Order::Connect { transport, to } => {
            let (connection, tuple) = sockets.connect(transport, to)?;
            Answer::Opened { connection, tuple }
        }
        Order::Attempt { to } => {
            let (connection, tuple) = sockets.attempt(to)?;
            Answer::Opened { connection, tuple }
        }
        Order::ConnectAgain { connection, to } => {
            Answer::Opened { connection, tuple: sockets.connect_again(connection, to)? }
        }
        Order::ServeNobody => Answer::Serving { at: sockets.serve_nobody()? },
        Order::SendTo { to } => {
            let (connection, tuple) = sockets.send_to(to)?;
            Answer::Opened { connection, tuple }
        }
        Order::ServeUnix { at } => {
            sockets::serve_unix(&at)?;
            Answer::Done
        }
        Order::ConnectUnix { to } => {
            sockets.connect_unix(&to)?;
            Answer::Done
        }
        Order::Exchange { connection, send, receive } => {
            Answer::Totals(sockets.exchange(connection, send, receive)?)
        }
        Order::Close { connection, ending } => {
            sockets.close(connection, ending)?;
            Answer::Done
        }
        Order::Hold { to, count } => Answer::Tuples(sockets.hold(to, count)?),
        Order::CloseHeld => {
            sockets.close_held();
            Answer::Done
        }
        Order::Short { to, count, lifetime } => {
            Answer::Tuples(sockets::short_connections(to, count, lifetime)?)
        }
        Order::Flood { flood, to, count } => {
            flood.run(to, count)?;
            Answer::Done
        }
        Order::Spawn { program, called, arguments, birth } => {
            let called = called.unwrap_or_else(|| program.clone());
            let mut command = Command::new(program);
            command.arg0(called).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
            // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
            unsafe { command.pre_exec(move || be_born(birth)) };
            let mut process = command.spawn().context("start a child")?;
            let output = process.stdout.take().context("standard output was piped")?;
            let mut child = Stagehand { process, answers: BufReader::new(output) };
            let mut line = String::new();
            child.answers.read_line(&mut line)?;
            // Of an orphan another one was started.
            let Answer::Started { pid } = serde_json::from_str(&line)? else { bail!("it said {line}") };
            children.push(child);
            Answer::Spawned { child: children.len() - 1, pid }
        }
        Order::Tell { child, order } => {
            let child = children.get_mut(child).context("no such child")?;
            write_line(child.process.stdin.as_mut().context("its input was piped")?, &order)?;
            let mut line = String::new();
            child.answers.read_line(&mut line)?;
            serde_json::from_str(&line).context("the child's answer")?
        }
        Order::Exec { program, arguments } => {
            // Only comes back when it failed. The new program says `Started` for itself.
            return Err(Command::new(program).args(arguments).exec()).context("exec");
        }
        Order::Rename { comm } => {
            let name = std::ffi::CString::new(comm)?;
            rustix::thread::set_name(&name)?;
            Answer::Done
        }
    })
}

/// In the child, before it runs its program.
fn be_born(birth: Birth) -> io::Result<()> {
    match birth {
        Birth::Child => {}
        Birth::Leader => drop(rustix::process::setsid()?),
        // SAFETY: as for the caller; the process that ends here has nothing to clean up.
        Birth::Orphan => match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {}
            // SAFETY: as above.
            _ => unsafe { libc::_exit(0) },
        },
    }
    Ok(())
}

/// An argument that is no UTF-8.
pub fn invalid_utf8() -> &'static OsStr {
    OsStr::from_bytes(b"\xff\xfe\x80")
}
