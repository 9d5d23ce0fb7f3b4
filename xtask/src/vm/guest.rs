//! One run of a guest: a kernel, what it does there, and what it said.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) const EMULATOR: &str = "qemu-system-x86_64";

/// What to boot.
pub(crate) struct Guest<'a> {
    pub vmlinux: &'a Path,
    pub initramfs: &'a Path,
    /// Added to the kernel's command line.
    pub append: &'a str,
    pub patience: Duration,
    pub clock: Clock,
}

/// What time is made of in a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The time it takes to emulate it; two CPUs.
    Host,
    /// A nanosecond for each instruction, and none for waiting; one CPU, so that nobody else's are counted.
    Instructions,
}

/// How it ended.
pub(crate) struct Ended {
    /// Both outputs of the command.
    pub output: String,
    /// `None`: the guest went away without a word.
    pub status: Option<i32>,
    pub timed_out: bool,
    /// The last lines of the kernel's own output.
    pub console: String,
    pub took: Duration,
}

const MEMORY_MIB: u32 = 1024;
/// Lines of the console that are worth showing.
const CONSOLE_LINES: usize = 25;

impl Guest<'_> {
    /// Leaves its output in `directory`, too.
    pub(crate) fn run(&self, directory: &Path) -> Result<Ended> {
        let ports: Vec<PathBuf> = ["console", "output", "status"].map(|name| directory.join(name)).into();
        for port in &ports {
            File::create(port).with_context(|| format!("make {}", port.display()))?;
        }
        let begin = Instant::now();
        let mut child = self.command(&ports).spawn().with_context(|| format!("start {EMULATOR}"))?;
        let ended = wait(&child, self.patience);
        if !matches!(ended, Ok(true)) {
            let _ = child.kill();
        }
        child.wait().context("wait for the guest")?;
        let timed_out = !ended?;
        let text = |at: usize| -> Result<String> {
            let bytes = fs::read(&ports[at]).with_context(|| format!("read {}", ports[at].display()))?;
            Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
        };
        let console = text(0)?;
        let lines: Vec<_> = console.lines().collect();
        Ok(Ended {
            output: text(1)?,
            status: text(2)?.trim().strip_prefix("status ").and_then(|status| status.parse().ok()),
            timed_out,
            console: lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n"),
            took: begin.elapsed(),
        })
    }

    /// Emulated, because it has to run inside of virtual machines and without /dev/kvm; both CPUs by one thread,
    /// because several disturb a kernel that patches its own code. On a machine that is busy the emulated timer is
    /// late, which no kernel is to take for a broken one.
    fn command(&self, ports: &[PathBuf]) -> Command {
        let mut command = Command::new(EMULATOR);
        command.args(["-M", "q35", "-accel", "tcg,thread=single"]);
        command.args(match self.clock {
            Clock::Host => ["-cpu", "max,la57=off", "-smp", "2"].as_slice(),
            // With fast string copies each byte would be an instruction.
            Clock::Instructions => {
                &["-cpu", "max,la57=off,erms=off,fsrm=off", "-smp", "1", "-icount", "shift=0,sleep=off"]
            }
        });
        command.args([
            "-m",
            &MEMORY_MIB.to_string(),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        for port in ports {
            command.arg("-serial").arg(format!("file:{}", port.display()));
        }
        command.arg("-kernel").arg(self.vmlinux).arg("-initrd").arg(self.initramfs);
        command.arg("-append").arg(format!(
            "console=ttyS0 8250.nr_uarts=4 panic=-1 quiet nokaslr no_timer_check {}",
            self.append
        ));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Whether it ended in time.
fn wait(child: &Child, patience: Duration) -> Result<bool> {
    let descriptor = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("watch the guest")?;
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("a long time")?;
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => bail!("wait for the guest: {error}"),
        }
    }
}
