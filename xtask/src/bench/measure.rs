//! CPU time, memory and medians.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// What a finished process took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// Most memory that was resident, in KiB.
    pub(crate) peak_kib: u64,
}

/// Runs `command` to its end `times` times on one CPU; the medians of wall time, CPU time and memory.
pub(crate) fn median_cost(times: usize, mut command: impl FnMut() -> Command) -> Result<Cost> {
    let mut walls = Vec::with_capacity(times);
    let mut cpus = Vec::with_capacity(times);
    let mut peaks = Vec::with_capacity(times);
    for _ in 0..times {
        let cost = cost_of(&mut command())?;
        walls.push(cost.wall);
        cpus.push(cost.cpu);
        peaks.push(cost.peak_kib);
    }
    Ok(Cost { wall: median(walls), cpu: median(cpus), peak_kib: median(peaks) })
}

fn cost_of(command: &mut Command) -> Result<Cost> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    pin(command);
    let begin = Instant::now();
    let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
    let (status, cpu, peak_kib) = wait_with_usage(&child)?;
    let wall = begin.elapsed();
    ensure!(status == 0, "{} ended with wait status {status}", command.get_program().display());
    Ok(Cost { wall, cpu, peak_kib })
}

/// The wait status, the CPU time and the peak memory in KiB of the child and the children it waited for (`wait4(2)`).
fn wait_with_usage(child: &Child) -> Result<(i32, Duration, u64)> {
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: rusage is plain data for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals; the child is ours and was not waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    if waited != pid {
        return Err(io::Error::last_os_error()).context("wait4");
    }
    let cpu = duration_of(usage.ru_utime)? + duration_of(usage.ru_stime)?;
    Ok((status, cpu, usage.ru_maxrss.try_into()?))
}

fn duration_of(time: libc::timeval) -> Result<Duration> {
    Ok(Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(time.tv_usec.try_into()?))
}

/// Keeps `command` on the last CPU, away from where interrupts usually go.
pub(crate) fn pin(command: &mut Command) {
    let last = online_cpus() - 1;
    // SAFETY: between fork and exec only a system call is made; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            pin_myself(last);
            Ok(())
        });
    }
}

/// At least one. Unlike `available_parallelism` it does not depend on where this thread may run.
pub(crate) fn online_cpus() -> usize {
    // SAFETY: sysconf only reads.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).max(1)
}

/// Keeps the calling thread, and what it starts, on one CPU.
pub(crate) fn pin_myself(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    // Not allowed in some containers; then it runs where it may.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// CPU time that all live threads of a process have used, exact to the nanosecond
/// (`Documentation/scheduler/sched-stats.rst`, first field of `schedstat`).
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let on_cpu: u64 = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
        nanoseconds += on_cpu;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A line of `/proc/<pid>/status` in KiB.
pub(crate) fn memory_kib(pid: u32, key: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {key}"))?;
    Ok(value.parse()?)
}

pub(crate) fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// A rano that runs until it is dropped, on the CPU of the peers. Its working directory is `directory`.
pub(crate) struct Observer {
    child: Child,
}

impl Observer {
    pub(crate) fn start(rano: &Path, directory: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(rano);
        command.args(["--no-config", "--summary-only", "--stats-interval-ms", "0"]).args(arguments);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        pin(&mut command);
        let mut child = command.spawn().context("start rano")?;
        // Time to start and to reach its steady state; a settled process is looked at every tenth poll.
        std::thread::sleep(Duration::from_secs(3));
        if let Some(status) = child.try_wait()? {
            bail!("rano ended early: {status}");
        }
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line: CPU, cores, kernel.
pub(crate) fn machine() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    let kernel = rustix::system::uname();
    Ok(format!("{model}, {cores} cores, Linux {}", kernel.release().to_string_lossy()))
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

pub(crate) fn ratio(of: Duration, to: Duration) -> String {
    format!("{:.2}", of.as_secs_f64() / to.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_child_is_counted() {
        let busy = || {
            let mut command = Command::new("sh");
            command.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
            command
        };
        let cost = median_cost(1, busy).expect("sh runs");
        assert!(
            cost.cpu > Duration::from_millis(1) && cost.cpu <= cost.wall + Duration::from_millis(5),
            "{cost:?}"
        );
    }

    #[test]
    fn cpu_time_of_a_live_process_grows() {
        let pid = std::process::id();
        let before = cpu_time(pid).expect("schedstat");
        let deadline = Instant::now() + Duration::from_secs(10);
        while cpu_time(pid).expect("schedstat") == before {
            assert!(Instant::now() < deadline, "no CPU time in ten seconds");
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9, 1, 5]), 5);
    }

    #[test]
    fn memory_is_read_by_its_whole_name() {
        let pid = std::process::id();
        assert!(memory_kib(pid, "VmHWM").expect("present") >= memory_kib(pid, "VmRSS").expect("present") / 2);
        assert!(memory_kib(pid, "Vm").is_err());
    }
}
