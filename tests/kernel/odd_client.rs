//! Clients that come to a connection in unusual ways: the test executable under another name plays one, says what it
//! did in a line of JSON, and stays until its standard input ends.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, ipproto, recvmsg, sendmsg, socket_with,
    sockopt,
};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::odd_calls::{io_uring, receive_several, send_file, send_several, splice};
use crate::support::actor::Tuple;
use crate::support::namespace::{Place, bring_loopback_up};
use crate::support::trial::skip;
use crate::support::{PATIENCE, stage, wait_for_end};

/// Set in a client; the value says in which way.
const MARKER: &str = "RANO_TEST_ODD";

/// How to come to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// `connect`, a request, the answer.
    Plain,
    /// A socket that does not wait.
    NonBlocking,
    /// Gives up after one more attempt (`TCP_SYNCNT`).
    Impatient,
    /// Data with the first packet, by `sendto`.
    FastOpen,
    /// The first write connects.
    FastOpenConnect,
    MultiPath,
    IoUring,
    SendFile,
    /// From a pipe into the socket, and from the socket into a pipe.
    Splice,
    /// Three answers of a datagram server, by one call.
    ReceiveSeveral,
    /// Datagrams to two places with one call; the address is one of them, the next port the other.
    SendSeveral,
    /// A child inherits the socket and uses it; the parent closes its own at once.
    Inherit,
    /// The socket is passed to a process that is no agent, which uses it; the opener closes its own at once.
    Pass,
    /// By a thread that has a name.
    Thread,
    /// By a thread, after the main thread has ended.
    WithoutMainThread,
    /// By a thread that has descriptors of its own.
    OwnDescriptors,
    /// By a thread that is in another network namespace, to a listener there.
    OwnNetwork,
    /// In a process namespace of its own.
    PidNamespace,
    /// A child that `posix_spawn` (`vfork`) starts under another name.
    Spawn,
    /// A process that renames itself to `claude` first.
    Rename,
    /// A shell that becomes the agent, which connects at once.
    BecomeByShell,
}

/// What a client did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Who connected, as everybody sees it.
    pub pid: u32,
    pub tuple: Option<Tuple>,
    /// Payload.
    pub sent: u64,
    pub received: u64,
    /// How the attempt failed.
    pub errno: Option<i32>,
    /// The machine cannot do it.
    pub refused: Option<String>,
}

impl Done {
    pub fn new(tuple: Option<Tuple>) -> Self {
        Self { pid: std::process::id(), tuple, sent: 0, received: 0, errno: None, refused: None }
    }

    pub fn refused(why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..Self::new(None) }
    }
}

/// A client that has done its part.
pub struct Client {
    process: Child,
    input: Option<ChildStdin>,
    pub done: Done,
}

impl Client {
    /// Plays one under the name `name`; skips where the machine cannot do that.
    pub fn play(place: &Place, name: &str, way: Way, to: SocketAddr) -> Result<Self> {
        let mut command = Command::new(stage::actor(name)?);
        if way == Way::BecomeByShell {
            command = Command::new("sh");
            command.args(["-c", "exec \"$0\" \"$@\""]).arg(stage::actor(name)?);
        }
        command.arg(to.to_string()).env_clear().env(MARKER, serde_json::to_string(&way)?).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        place.apply(&mut command);
        let mut process = command.spawn().with_context(|| format!("start {name}"))?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("standard output was piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let done: Done = serde_json::from_str(&line).with_context(|| format!("{way:?} said '{line}'"))?;
        let client = Self { process, input, done };
        match &client.done.refused {
            Some(why) => Err(skip(why.clone())),
            None => Ok(client),
        }
    }

    pub fn tuple(&self) -> Result<Tuple> {
        self.done.tuple.context("it has no connection")
    }

    /// Lets it end, and waits for that.
    pub fn end(mut self) -> Result<Done> {
        drop(self.input.take());
        ensure!(wait_for_end(&self.process, PATIENCE)?, "client {} does not end", self.done.pid);
        Ok(self.done.clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take());
        if !wait_for_end(&self.process, PATIENCE).unwrap_or(false) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

pub fn play_if_asked() -> Option<ExitCode> {
    let way = std::env::var(MARKER).ok()?;
    Some(match play(&way) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("odd client: {error:?}");
            ExitCode::FAILURE
        }
    })
}

/// Bytes of a request; its header asks for an answer of [`ANSWER`] (see the actor's sockets).
pub const REQUEST: usize = 300;
pub const ANSWER: usize = 700;

pub fn request() -> Vec<u8> {
    let mut request = Vec::new();
    for length in [REQUEST, ANSWER] {
        request.extend(u32::try_from(length).unwrap_or(0).to_le_bytes());
    }
    request.resize(REQUEST, b'q');
    request
}

/// Client and server, in this network namespace (Documentation/networking/ip-sysctl.rst).
fn allow_fast_open() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3")
}

fn play(way: &str) -> Result<()> {
    let way: Way = serde_json::from_str(way)?;
    if matches!(way, Way::FastOpen | Way::FastOpenConnect)
        && let Err(error) = allow_fast_open()
    {
        return say(&Done::refused(format!("no fast open ({error})")));
    }
    let to: SocketAddr = std::env::args().nth(1).context("where to")?.parse()?;
    // Kept until the end.
    let (done, _kept) = match way {
        Way::Plain | Way::BecomeByShell => plain(to)?,
        Way::NonBlocking => non_blocking(to)?,
        Way::Impatient => impatient(to)?,
        Way::FastOpen => fast_open(to)?,
        Way::FastOpenConnect => fast_open_connect(to)?,
        Way::MultiPath => multi_path(to)?,
        Way::IoUring => io_uring(to)?,
        Way::SendFile => send_file(to)?,
        Way::Splice => splice(to)?,
        Way::ReceiveSeveral => receive_several(to)?,
        Way::SendSeveral => send_several(to)?,
        Way::Inherit => return inherit(to),
        Way::Pass => pass(to)?,
        Way::Thread => {
            let thread = std::thread::Builder::new().name("Socket Thread".to_owned());
            thread.spawn(move || plain(to))?.join().map_err(|_| anyhow::anyhow!("it panicked"))??
        }
        Way::WithoutMainThread => return without_main_thread(to),
        Way::OwnDescriptors => return beside_the_main_thread(UnshareFlags::FILES, to),
        Way::OwnNetwork => return beside_the_main_thread(UnshareFlags::NEWNET, to),
        Way::PidNamespace => return in_a_pid_namespace(to),
        Way::Spawn => return child("fetch", to),
        Way::Rename => {
            rustix::thread::set_name(c"claude")?;
            plain(to)?
        }
    };
    say(&done)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The main thread ends as soon as the other one runs.
fn without_main_thread(to: SocketAddr) -> Result<()> {
    std::thread::spawn(move || {
        let state = || std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        while !state().contains(") Z ") {
            std::thread::yield_now();
        }
        let ended = plain(to).and_then(|(done, _kept)| {
            say(&done)?;
            Ok(io::copy(&mut io::stdin(), &mut io::sink())?)
        });
        std::process::exit(i32::from(ended.is_err()));
    });
    // SAFETY: nothing of this thread is needed by the other; what it has on its stack stays there.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("the thread goes on")
}

fn beside_the_main_thread(what: UnshareFlags, to: SocketAddr) -> Result<()> {
    let beside = move || -> Result<()> {
        // SAFETY: no other thread uses a descriptor that this one opens.
        unsafe { rustix::thread::unshare_unsafe(what)? };
        let mut listener = None;
        if what.contains(UnshareFlags::NEWNET) {
            bring_loopback_up()?;
            listener = Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        }
        let at = listener.as_ref().map_or(Ok(to), TcpListener::local_addr)?;
        let stream = TcpStream::connect(at)?;
        say(&Done::new(Some(tuple_of(&stream)?)))?;
        io::copy(&mut io::stdin(), &mut io::sink())?;
        Ok(())
    };
    std::thread::spawn(beside).join().map_err(|_| anyhow::anyhow!("it panicked"))?
}

fn say(done: &Done) -> Result<()> {
    let mut line = serde_json::to_vec(done)?;
    line.push(b'\n');
    io::stdout().write_all(&line)?;
    Ok(())
}

pub type Played = Result<(Done, Option<OwnedFd>)>;

pub fn tuple_of(stream: &TcpStream) -> Result<Tuple> {
    Ok(Tuple { local: stream.local_addr()?, remote: stream.peer_addr()? })
}

/// Asks and is answered.
fn use_it(mut stream: TcpStream) -> Played {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut done = Done::new(Some(tuple_of(&stream)?));
    stream.write_all(&request())?;
    stream.read_exact(&mut [0; ANSWER])?;
    (done.sent, done.received) = (u64::try_from(REQUEST)?, u64::try_from(ANSWER)?);
    Ok((done, Some(stream.into())))
}

fn plain(to: SocketAddr) -> Played {
    use_it(TcpStream::connect(to)?)
}

pub fn new_socket(flags: SocketFlags) -> Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None)?)
}

fn non_blocking(to: SocketAddr) -> Played {
    let socket = new_socket(SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None)?;
    if let Err(errno) = sockopt::socket_error(&socket)? {
        let done = Done { errno: Some(errno.raw_os_error()), ..Done::new(None) };
        return Ok((done, Some(socket)));
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    use_it(socket.into())
}

fn impatient(to: SocketAddr) -> Played {
    let socket = new_socket(SocketFlags::empty())?;
    set(&socket, libc::TCP_SYNCNT, 1)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => bail!("somebody answered at {to}"),
        Err(errno) => Ok((Done { errno: Some(errno.raw_os_error()), ..Done::new(None) }, Some(socket))),
    }
}

fn set(socket: &OwnedFd, option: i32, value: i32) -> Result<()> {
    // SAFETY: the value outlives the call, which is told its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of::<i32>())?,
        )
    };
    ensure!(result == 0, "set TCP option {option}: {}", io::Error::last_os_error());
    Ok(())
}

/// A server in this process, for what an actor's does not do; serves one connection, then another.
fn fast_server() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let at = listener.local_addr()?;
    let listener = OwnedFd::from(listener);
    set(&listener, libc::TCP_FASTOPEN, 16)?;
    let listener = TcpListener::from(listener);
    std::thread::spawn(move || -> io::Result<()> {
        loop {
            let mut stream = listener.accept()?.0;
            std::thread::spawn(move || -> io::Result<()> {
                stream.read_exact(&mut [0; REQUEST])?;
                stream.write_all(&[b'a'; ANSWER])?;
                stream.read_exact(&mut [0]).map(drop)
            });
        }
    });
    Ok(at)
}

/// Twice: the first gets the cookie that the second shows.
fn fast_open(_: SocketAddr) -> Played {
    let to = fast_server()?;
    let attempt = || -> Played {
        let socket = new_socket(SocketFlags::empty())?;
        let data = request();
        let sent = rustix::net::sendto(
            &socket,
            &data,
            SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned()),
            &to,
        )?;
        ensure!(sent == data.len(), "only {sent} bytes were taken");
        answered(socket)
    };
    drop(attempt()?);
    attempt()
}

fn fast_open_connect(_: SocketAddr) -> Played {
    let to = fast_server()?;
    let attempt = || -> Played {
        let socket = new_socket(SocketFlags::empty())?;
        set(&socket, libc::TCP_FASTOPEN_CONNECT, 1)?;
        rustix::net::connect(&socket, &to)?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(&request())?;
        answered(stream.into())
    };
    drop(attempt()?);
    attempt()
}

/// The rest of an exchange whose request is on its way.
fn answered(socket: OwnedFd) -> Played {
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0; ANSWER])?;
    let mut done = Done::new(Some(tuple_of(&stream)?));
    (done.sent, done.received) = (u64::try_from(REQUEST)?, u64::try_from(ANSWER)?);
    Ok((done, Some(stream.into())))
}

fn multi_path(to: SocketAddr) -> Played {
    let socket =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::MPTCP));
    match socket {
        Ok(socket) => {
            rustix::net::connect(&socket, &to)?;
            use_it(socket.into())
        }
        Err(errno) => Ok((Done::refused(format!("no MPTCP ({errno})")), None)),
    }
}

/// The child is this process's copy: nobody execs.
fn inherit(to: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(to)?;
    let opener = std::process::id();
    // SAFETY: this process has a single thread.
    match unsafe { libc::fork() } {
        0 => {
            let (done, _kept) = use_it(stream)?;
            say(&Done { pid: opener, ..done })?;
            io::copy(&mut io::stdin(), &mut io::sink())?;
            Ok(())
        }
        child => {
            drop(stream);
            let pid = rustix::process::Pid::from_raw(child).context("fork")?;
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            Ok(())
        }
    }
}

/// Set in a process that takes a socket from its standard input.
const TAKER: &str = "taker";

fn pass(to: SocketAddr) -> Played {
    if std::env::var_os(TAKER).is_some() {
        return taken();
    }
    let (ours, theirs) = UnixStream::pair()?;
    let mut taker = Command::new(sibling("stranger")?);
    taker
        .arg(to.to_string())
        .env(TAKER, "1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped());
    let mut taker = taker.spawn()?;
    let stream = TcpStream::connect(to)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [std::os::fd::AsFd::as_fd(&stream)];
    ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room");
    sendmsg(&ours, &[io::IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
    drop(stream);
    let mut line = String::new();
    BufReader::new(taker.stdout.take().context("piped")?).read_line(&mut line)?;
    let done: Done = serde_json::from_str(&line)?;
    // The taker ends when this is closed, which is at our end.
    Ok((Done { pid: std::process::id(), ..done }, Some(ours.into())))
}

/// In the process that is no agent.
fn taken() -> Played {
    let input = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&input, &mut [io::IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::empty())?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return use_it(descriptors.next().context("a descriptor")?.into());
        }
    }
    bail!("no descriptor came")
}

/// This executable under another of its names.
pub fn sibling(name: &str) -> Result<std::path::PathBuf> {
    let own = std::env::args_os().next().context("a name")?;
    let path = std::path::Path::new(&own).with_file_name(name);
    if !path.exists() {
        std::fs::hard_link(std::env::current_exe()?, &path)?;
    }
    Ok(path)
}

/// Says what a child did that connects under another name; the pid is the one that its parent sees.
fn child(name: &str, to: SocketAddr) -> Result<()> {
    let mut command = Command::new(sibling(name)?);
    command.arg(to.to_string()).env(MARKER, serde_json::to_string(&Way::Plain)?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    let done: Done = serde_json::from_str(&line)?;
    say(&Done { pid: child.id(), ..done })?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

fn in_a_pid_namespace(to: SocketAddr) -> Result<()> {
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    if let Err(errno) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) } {
        return say(&Done::refused(format!("no process namespace of one's own ({errno})")));
    }
    child("claude", to)
}
