//! Processes that try to get away: the test executable under other names. A runner that is no agent starts `claude`,
//! which becomes `curl`, so that no name gives it away, and plays a trick; whoever connects in the course of it says so
//! in a line of JSON and stays until standard input ends.

mod clones;
mod sharing;

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::odd_client::sibling;
use crate::support::namespace::{Place, bring_loopback_up, own_identity_maps, write_file};
use crate::support::{PATIENCE, stage, wait_for_end};
use clones::{chosen_pid, shared_memory};
use sharing::{given, pass, share};

/// Set in a process that plays a part; the value says which, and of which trick.
const MARKER: &str = "RANO_TEST_TRICK";
/// Descriptor of the socket that leads to the runner.
const LINK: &str = "RANO_TEST_TRICK_LINK";
/// Descriptor of a socket that was opened by somebody else.
const GIVEN: &str = "RANO_TEST_TRICK_GIVEN";

/// How to get away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trick {
    /// A child whose parent is the runner (`CLONE_PARENT`).
    Sibling,
    /// The same, by a thread.
    SiblingByThread,
    /// The same, which then runs another program.
    SiblingExec,
    /// A sibling's sibling.
    SiblingTwice,
    /// A child that shares the memory and is no thread.
    SharedMemory,
    SharedFiles,
    ByThread,
    /// `posix_spawn`.
    Vfork,
    /// A pid of one's own choice (`clone3`).
    ChosenPid,

    /// `exec -a gemini`.
    Called,
    /// Other names for the process, one after the other.
    Names,
    /// A program that is in no file.
    MemoryFile,
    Script,
    /// Not the first thread runs another program.
    ThreadExec,
    /// So many programs, one after the other.
    ExecChain(u32),

    DoubleFork,
    /// The agent ends before its child connects.
    AgentEnds,
    /// So many generations, of which only the last does not end.
    Generations(u32),

    NewNetwork,
    NewPids,
    NewUser,
    Chroot,
    AllNew,

    /// The socket is passed to a child, which uses it.
    PassToChild,
    /// A child inherits it over fork and exec, and uses it.
    InheritOverExec,
    /// Another descriptor of it is used.
    Duplicate,
    /// A child takes it (`pidfd_getfd`).
    Taken,
    /// The runner opened it and passes it on; the agent connects.
    GivenOpen,
    /// The runner connected it and passes it on.
    GivenConnected,

    /// So many children at once, every other one a sibling.
    Flood(u32),
    /// So many siblings that do nothing, then one that connects when it is told to.
    SiblingAfter(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    Runner,
    /// Says who it is, and becomes the next.
    Agent,
    Actor,
    /// Runs itself again so often, then connects.
    Connect(u32),
    /// Uses the socket that it was given.
    Use,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// This is the agent.
    Agent { pid: u32 },
    /// It connects from this port.
    Connected { pid: u32, port: u16 },
    /// There is nothing more to come.
    Done,
    /// The machine cannot do it.
    Refused(String),
}

/// A trick that was played; those who connected stay.
pub struct Played {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
    pub agent: u32,
    pub connected: Vec<(u32, u16)>,
    pub refused: Option<String>,
}

impl Played {
    pub fn start(place: &Place, trick: Trick, to: SocketAddr) -> Result<Self> {
        for name in ["claude", "curl"] {
            // Another user could not make them.
            stage::actor(name)?;
        }
        let mut command = Command::new(stage::actor("runner")?);
        command.arg(to.to_string()).env_clear().env(MARKER, serde_json::to_string(&(Part::Runner, trick))?);
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        place.apply(&mut command);
        let mut process = command.spawn().context("start a runner")?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("standard output was piped")?);
        Ok(Self { process, input, output, agent: 0, connected: Vec::new(), refused: None })
    }

    /// Waits until it is done.
    pub fn play(place: &Place, trick: Trick, to: SocketAddr) -> Result<Self> {
        let mut played = Self::start(place, trick, to)?;
        let last = |said: &Said, connected: usize| match trick {
            Trick::Flood(count) => Ok(connected) == usize::try_from(count),
            _ => *said == Said::Done,
        };
        played.listen(last).with_context(|| format!("{trick:?}"))?;
        Ok(played)
    }

    /// Takes in what is said up to what `is_last`, given how many have connected.
    pub fn listen(&mut self, is_last: impl Fn(&Said, usize) -> bool) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "it ended");
            let said: Said = serde_json::from_str(&line).with_context(|| format!("it said '{line}'"))?;
            match &said {
                Said::Agent { pid } => self.agent = *pid,
                Said::Connected { pid, port } => self.connected.push((*pid, *port)),
                Said::Refused(why) => {
                    self.refused = Some(why.clone());
                    return Ok(());
                }
                Said::Done => {}
            }
            if is_last(&said, self.connected.len()) {
                return Ok(());
            }
        }
    }

    /// Says something to whoever waits for a word.
    pub fn tell(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("it was piped")?;
        Ok(io::Write::write_all(input, b"\n")?)
    }

    /// Lets everybody end, and waits for that.
    pub fn end(&mut self) -> Result<()> {
        drop(self.input.take());
        ensure!(wait_for_end(&self.process, PATIENCE)?, "the runner does not end");
        ensure!(self.process.wait()?.success(), "somebody failed");
        Ok(())
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        drop(self.input.take());
        if !wait_for_end(&self.process, PATIENCE).unwrap_or(false) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

// ---- the players ----

pub fn play_if_asked() -> Option<ExitCode> {
    let marker = std::env::var(MARKER).ok()?;
    Some(match play(&marker) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trickster: {marker}: {error:?}");
            ExitCode::FAILURE
        }
    })
}

fn play(marker: &str) -> Result<()> {
    let (part, trick): (Part, Trick) = serde_json::from_str(marker)?;
    let to: SocketAddr = std::env::args().nth(1).context("where to")?.parse()?;
    match part {
        Part::Runner => run(trick, to),
        Part::Agent => {
            say(&Said::Agent { pid: pid()? });
            let marker = serde_json::to_string(&(Part::Actor, trick))?;
            Err(program("curl", Part::Actor, to)?.env(MARKER, marker).exec().into())
        }
        Part::Actor => act(trick, to),
        Part::Connect(0) => connect(to),
        Part::Connect(more) => Err(program("curl", Part::Connect(more - 1), to)?.exec().into()),
        Part::Use => {
            let fd: RawFd = std::env::var(GIVEN)?.parse()?;
            // SAFETY: whoever started this process left it open for nobody else.
            use_it(&TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))?;
            hold()
        }
    }
}

/// Starts the agent and stays until everybody has ended: orphans become its children.
fn run(trick: Trick, to: SocketAddr) -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
    let mut agent = program("claude", Part::Agent, to)?;
    let marker = serde_json::to_string(&(Part::Agent, trick))?;
    agent.env(MARKER, marker).env(LINK, theirs.as_raw_fd().to_string());
    let child = agent.spawn().context("start the agent")?;
    drop(theirs);
    match trick {
        Trick::GivenOpen => {
            let socket = socket()?;
            pass(&OwnedFd::from(ours), socket.as_fd())?;
        }
        Trick::GivenConnected => {
            let stream = TcpStream::connect(to)?;
            say(&Said::Connected { pid: pid()?, port: stream.local_addr()?.port() });
            pass(&OwnedFd::from(ours), stream.as_fd())?;
        }
        _ => drop(ours),
    }
    drop(child);
    let mut is_fine = true;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(ended) => is_fine &= ended.is_none_or(|(_, status)| status.exit_status() == Some(0)),
            Err(rustix::io::Errno::CHILD) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    ensure!(is_fine, "a child failed");
    Ok(())
}

/// This executable under another name, which plays a part.
fn program(name: &str, part: Part, to: SocketAddr) -> Result<Command> {
    let mut command = Command::new(sibling(name)?);
    // The trick is of no importance to the others.
    command.arg(to.to_string()).env(MARKER, serde_json::to_string(&(part, Trick::Vfork))?);
    Ok(command)
}

fn act(trick: Trick, to: SocketAddr) -> Result<()> {
    match trick {
        Trick::Sibling => fork(libc::CLONE_PARENT, move || connect(to)).map(drop)?,
        Trick::SiblingByThread => by_thread(move || fork(libc::CLONE_PARENT, move || connect(to)).map(drop))?,
        Trick::SiblingExec => {
            let exec = move || Err(program("curl", Part::Connect(0), to)?.exec().into());
            fork(libc::CLONE_PARENT, exec).map(drop)?;
        }
        Trick::SiblingTwice => {
            let twice = move || fork(libc::CLONE_PARENT, move || connect(to)).map(drop);
            fork(libc::CLONE_PARENT, twice).map(drop)?;
        }
        Trick::SharedMemory => shared_memory(to)?,
        Trick::SharedFiles => fork(libc::CLONE_FILES, move || connect(to)).map(drop)?,
        Trick::ByThread => by_thread(move || fork(0, move || connect(to)).map(drop))?,
        Trick::Vfork => drop(program("curl", Part::Connect(0), to)?.spawn()?),
        Trick::ChosenPid => chosen_pid(to)?,
        Trick::Called => drop(program("curl", Part::Connect(0), to)?.arg0("gemini").spawn()?),
        Trick::Names => {
            for name in [c"omitx", c"codex", c"omit"] {
                rustix::thread::set_name(name)?;
            }
            return connect(to);
        }
        Trick::MemoryFile => return memory_file(to),
        Trick::Script => return script(to),
        Trick::ThreadExec => {
            return by_thread(move || Err(program("curl", Part::Connect(0), to)?.exec().into()));
        }
        Trick::ExecChain(length) => return Err(program("curl", Part::Connect(length), to)?.exec().into()),
        Trick::DoubleFork => generations(2, to)?,
        Trick::AgentEnds => return generations(1, to),
        Trick::Generations(count) => generations(count, to)?,
        Trick::NewNetwork => fork(0, move || secluded(UnshareFlags::NEWNET, to)).map(drop)?,
        Trick::NewPids => fork(0, move || secluded(UnshareFlags::NEWPID, to)).map(drop)?,
        Trick::NewUser => fork(0, move || secluded(UnshareFlags::NEWUSER, to)).map(drop)?,
        Trick::Chroot => fork(0, move || secluded(UnshareFlags::NEWNS, to)).map(drop)?,
        Trick::AllNew => {
            let all = UnshareFlags::NEWUSER
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWPID
                | UnshareFlags::NEWNS
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWCGROUP;
            fork(0, move || secluded(all, to)).map(drop)?;
        }
        Trick::PassToChild | Trick::InheritOverExec | Trick::Duplicate | Trick::Taken => {
            share(trick, to)?;
        }
        Trick::GivenOpen => {
            let socket = given()?;
            rustix::net::connect(&socket, &to)?;
            return connected(&TcpStream::from(socket));
        }
        Trick::GivenConnected => {
            let stream = TcpStream::from(given()?);
            // For a while: a single use by a process that nobody has judged yet is not seen.
            for _ in 0..30 {
                use_it(&stream)?;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            say(&Said::Done);
        }
        Trick::Flood(count) => flood(count, to)?,
        Trick::SiblingAfter(count) => sibling_after(count, to)?,
    }
    hold()
}

/// Standard output is everybody's: a line is one write.
fn say(said: &Said) {
    let mut line = serde_json::to_vec(said).expect("it has a JSON form");
    line.push(b'\n');
    // Whoever cannot say it is missed by the test.
    let _ = rustix::io::write(io::stdout().as_fd(), &line);
}

/// As the first process namespace has it, whatever namespace this is in: /proc is of the first one.
fn pid() -> Result<u32> {
    Ok(std::fs::read_link("/proc/self")?.to_string_lossy().parse()?)
}

/// Until the test says that it is over; without taking what somebody else waits for.
fn hold() -> Result<()> {
    let input = io::stdin();
    poll(&mut [PollFd::new(&input, PollFlags::empty())], None)?;
    Ok(())
}

fn connect(to: SocketAddr) -> Result<()> {
    let pid = pid()?;
    let stream = TcpStream::connect(to)?;
    say(&Said::Connected { pid, port: stream.local_addr()?.port() });
    say(&Said::Done);
    hold()
}

fn connected(stream: &TcpStream) -> Result<()> {
    say(&Said::Connected { pid: pid()?, port: stream.local_addr()?.port() });
    say(&Said::Done);
    hold()
}

/// A request that asks for an answer of one byte (see the actor's sockets).
fn use_it(mut stream: &TcpStream) -> Result<()> {
    use io::{Read as _, Write as _};
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[8, 0, 0, 0, 1, 0, 0, 0])?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// A child with further flags, which does its part and ends.
fn fork(flags: libc::c_int, part: impl FnOnce() -> Result<()>) -> Result<u32> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: as fork(2): the child has a copy of the memory, and other threads only wait.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_u64, 0_u64, 0_u64, 0_u64) } {
        0 => end_after(part),
        child => u32::try_from(child).map_err(|_| io::Error::last_os_error().into()),
    }
}

fn end_after(part: impl FnOnce() -> Result<()>) -> ! {
    let code = match part() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("trickster: {error:?}");
            1
        }
    };
    // SAFETY: nothing of the parent's is to be cleaned up here.
    unsafe { libc::_exit(code) }
}

fn by_thread(part: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    std::thread::spawn(part).join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

/// Becomes a program that lies in memory only.
fn memory_file(to: SocketAddr) -> Result<()> {
    let file = rustix::fs::memfd_create(c"worker", rustix::fs::MemfdFlags::empty())?;
    let mut copy = std::fs::File::from(file.try_clone()?);
    io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut copy)?;
    drop(copy);
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let marker = serde_json::to_string(&(Part::Connect(0), Trick::Vfork))?;
    let arguments = [CString::new("kworker")?, CString::new(to.to_string())?];
    let environment = [text(&OsString::from(format!("{MARKER}={marker}")))?];
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    // SAFETY: both arrays end with a null pointer and outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            pointers(&arguments).as_ptr(),
            pointers(&environment).as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(io::Error::last_os_error().into())
}

/// Becomes an interpreter whose script becomes the one that connects.
fn script(to: SocketAddr) -> Result<()> {
    let curl = program("curl", Part::Connect(0), to)?;
    let path = std::env::temp_dir().join(format!("rano-trick-{}.sh", pid()?));
    std::fs::write(
        &path,
        format!("rm \"$0\"\nexec '{}' \"$1\"\n", PathBuf::from(curl.get_program()).display()),
    )?;
    let marker = serde_json::to_string(&(Part::Connect(0), Trick::Vfork))?;
    Err(Command::new("sh").arg(&path).arg(to.to_string()).env(MARKER, marker).exec().into())
}

/// Each generation ends once there is the next; the last connects when it is an orphan, in a session of its own.
fn generations(count: u32, to: SocketAddr) -> Result<()> {
    let parent = std::process::id();
    let child = move || -> Result<()> {
        rustix::process::setsid()?;
        if count > 1 {
            return generations(count - 1, to);
        }
        while rustix::process::getppid()
            .is_some_and(|now| now.as_raw_nonzero().get().unsigned_abs() == parent)
        {
            std::thread::yield_now();
        }
        connect(to)
    };
    fork(0, child).map(drop)
}

fn secluded(spaces: UnshareFlags, to: SocketAddr) -> Result<()> {
    let myself = pid()?;
    let maps = own_identity_maps();
    let is_root = rustix::process::geteuid().is_root();
    let spaces = if is_root { spaces } else { spaces | UnshareFlags::NEWUSER };
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    if let Err(errno) = unsafe { rustix::thread::unshare_unsafe(spaces) } {
        say(&Said::Refused(format!("{spaces:?}: {errno}")));
        return Ok(());
    }
    if spaces.contains(UnshareFlags::NEWUSER) {
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", maps.0.as_bytes())?;
        write_file(c"/proc/self/gid_map", maps.1.as_bytes())?;
    }
    let last = move || -> Result<()> {
        let pid = if spaces.contains(UnshareFlags::NEWPID) { pid()? } else { myself };
        let mut to = to;
        if spaces.contains(UnshareFlags::NEWNET) {
            bring_loopback_up()?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            to = listener.local_addr()?;
            std::mem::forget(listener);
        }
        if spaces.contains(UnshareFlags::NEWNS) {
            std::os::unix::fs::chroot(std::env::current_exe()?.parent().context("a directory")?)?;
            std::env::set_current_dir("/")?;
        }
        let stream = TcpStream::connect(to)?;
        say(&Said::Connected { pid, port: stream.local_addr()?.port() });
        say(&Said::Done);
        hold()
    };
    if !spaces.contains(UnshareFlags::NEWPID) {
        return last();
    }
    fork(0, last)?;
    hold()
}

fn socket() -> Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    Ok(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?)
}

fn flood(count: u32, to: SocketAddr) -> Result<()> {
    for at in 0..count {
        let flags = if at % 2 == 0 { libc::CLONE_PARENT } else { 0 };
        fork(flags, move || {
            let stream = TcpStream::connect(to)?;
            say(&Said::Connected { pid: pid()?, port: stream.local_addr()?.port() });
            Ok(())
        })?;
    }
    say(&Said::Done);
    Ok(())
}

/// Siblings that leave no room in the ring, then the one that matters, which waits for a word.
fn sibling_after(count: u32, to: SocketAddr) -> Result<()> {
    for _ in 0..count {
        fork(libc::CLONE_PARENT, || Ok(()))?;
    }
    fork(libc::CLONE_PARENT, move || {
        rustix::io::read(io::stdin().as_fd(), &mut [0_u8; 1])?;
        connect(to)
    })?;
    say(&Said::Done);
    Ok(())
}
