//! Name services of someone else's making, and clients that ask them: dnsmasq answers in the test's namespace, and a
//! program's `resolv.conf` says so.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use super::namespace::Place;
use super::trial::skip;
use super::{PATIENCE, wait_until};

/// Where programs of the system lie that ordinary users do not have in their PATH.
const FOLDERS: [&str; 6] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// A program of the system; skips where it is missing.
pub fn program(name: &str) -> Result<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| skip(format!("{name} is not installed")))
}

/// A program that runs until it is dropped.
pub struct Service {
    child: Child,
}

impl Service {
    /// Started in `place`, silent.
    pub fn start(place: &Place, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(place, command)
    }

    /// Started with its input, output and errors as they are set.
    pub fn spawn(place: &Place, mut command: Command) -> Result<Self> {
        place.apply(&mut command);
        let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// Waits for a line with `what` on its output or errors, whichever is piped.
    pub fn wait_for(&mut self, what: &str) -> Result<()> {
        let output: Box<dyn Read + Send> = match (self.child.stdout.take(), self.child.stderr.take()) {
            (Some(stdout), _) => Box::new(stdout),
            (None, Some(stderr)) => Box::new(stderr),
            (None, None) => bail!("neither output nor errors are piped"),
        };
        let (sender, lines) = std::sync::mpsc::channel();
        // Reads on to the end, so that it never waits for room in the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(what) {
                return Ok(());
            }
            said.push(line);
        }
        bail!("it never said {what}: {}", said.join("\n"))
    }

    /// Waits until it has a socket on `port`; `table` is a file of `/proc/<pid>/net`.
    pub fn wait_for_port(&self, table: &str, port: u16) -> Result<()> {
        let path = format!("/proc/{}/net/{table}", self.pid());
        let local = format!(":{port:04X} ");
        wait_until("a socket on its port", || Ok(fs::read_to_string(&path)?.contains(&local)))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its end, without help.
    pub fn ended(&mut self) -> Result<()> {
        ensure!(super::wait_for_end(&self.child, PATIENCE)?, "it does not end");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// dnsmasq with `records` (lines of its configuration) on `address`, port 53.
pub fn dnsmasq(place: &Place, directory: &Path, address: &str, records: &str) -> Result<Service> {
    let program = program("dnsmasq")?;
    let file = directory.join(format!("dnsmasq-{address}.conf"));
    let fixed = "no-resolv\nno-hosts\nkeep-in-foreground\nbind-interfaces\nlog-facility=-\nuser=root\ngroup=root\n\
                 pid-file=\ncache-size=0\n";
    fs::write(&file, format!("{fixed}listen-address={address}\n{records}"))?;
    let mut command = Command::new(program);
    command.arg("-C").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut service = Service::spawn(place, command)?;
    service.wait_for("started")?;
    Ok(service)
}

/// `file` in the place of `over`, for the program that `command` starts and nobody else. Takes root.
pub fn mounted(command: &mut Command, file: &Path, over: &str) -> Result<()> {
    let (file, over) = (rustix::path::Arg::into_c_str(file)?.into_owned(), std::ffi::CString::new(over)?);
    let mount = move || {
        // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        rustix::mount::mount_bind(&*file, &*over)?;
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(mount) };
    Ok(())
}
