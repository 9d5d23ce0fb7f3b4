//! What this machine and these privileges allow: each rung of the ladder is really tried, and what refused is said with
//! what would help.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use rustix::thread::{CapabilitySet, capabilities};

use super::Source as _;
use super::ebpf::cgroup;
use super::ebpf::hooks::Hooks;
use super::ebpf::kernel::KERNEL_TYPES;
use super::ebpf::load::{Programs, Wanted};
use super::ebpf::lockdown;
use super::proc::{ProcSettings, ProcSource};
use super::views::{self, Kind};
use crate::event::SourceKind;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Fine,
    /// Not as good as it could be, or good to know.
    Note,
    /// Something does not work at all.
    Failed,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Failed => "failed",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
    pub detail: String,
    /// A command, or a step, that would help.
    pub fix: Option<String>,
}

impl Check {
    pub fn new(name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { name, outcome, detail: detail.into(), fix: None }
    }

    #[must_use]
    pub fn fix(mut self, fix: Option<String>) -> Self {
        self.fix = fix;
        self
    }
}

/// A way to observe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    pub kind: SourceKind,
    /// Why it is not to be had; `None`: it is.
    pub refused: Option<String>,
    pub fix: Option<String>,
    /// What lies outside of what it sees from here.
    pub outside: Option<String>,
}

/// A place in the kernel that programs are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    /// How: cgroup, raw tracepoint, fentry, kprobe.
    pub way: &'static str,
    /// Why not; `None`: it is attached.
    pub refused: Option<String>,
    /// What is not known for that.
    pub without: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The best first. The first that is not refused is taken.
    pub rungs: Vec<Rung>,
    pub hooks: Vec<Hook>,
    pub checks: Vec<Check>,
}

impl Examination {
    /// What `rano` would use now.
    pub fn taken(&self) -> Option<&Rung> {
        self.rungs.iter().find(|rung| rung.refused.is_none())
    }
}

/// Tries everything; takes as long as to start and to stop observing.
pub fn examine() -> Examination {
    let mut checks = vec![privileges(), kernel_types(), cgroups(), namespaces()];
    checks.extend(restrictions());
    let (mut rungs, hooks) = programs();
    let (proc, notifications) = polling();
    rungs.push(proc);
    checks.push(notifications);
    Examination { rungs, hooks, checks }
}

/// What attaching takes; on a file, what its users can do with it is to run rano.
const ATTACHING: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "cap_bpf"),
    (CapabilitySet::PERFMON, "cap_perfmon"),
    (CapabilitySet::NET_ADMIN, "cap_net_admin"),
];

fn lacking() -> Vec<&'static str> {
    let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    ATTACHING.iter().filter(|(capability, _)| !has.contains(*capability)).map(|(_, name)| *name).collect()
}

fn privileges() -> Check {
    let who = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    let lacking = lacking();
    if lacking.is_empty() {
        return Check::new("privileges", Outcome::Fine, format!("{who}, with all that kernel programs take"));
    }
    Check::new("privileges", Outcome::Note, format!("{who}, without {}", lacking.join(", "))).fix(grant())
}

/// The command that would give the program what it lacks.
pub fn missing_grant() -> Option<String> {
    if lacking().is_empty() { None } else { grant() }
}

/// The command that gives the program what it takes, for every user of the machine who may run it.
fn grant() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let mount = rustix::fs::statvfs(&program).ok()?;
    if mount.f_flag.contains(StatVfsMountFlags::NOSUID) {
        // Capabilities of files on it do not count.
        return Some("sudo rano".to_owned());
    }
    let mut wanted: Vec<_> = ATTACHING.iter().map(|(_, name)| *name).collect();
    // To see who other users' processes are.
    wanted.push("cap_sys_ptrace");
    if is_before(5, 11) {
        // The memory of maps counts against a limit that only this raises.
        wanted.push("cap_sys_resource");
    }
    Some(format!("sudo setcap {}+ep {}", wanted.join(","), quoted(&program)))
}

fn is_before(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0)) < (major, minor)
}

/// As a word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    if is_plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn kernel_types() -> Check {
    let path = KERNEL_TYPES;
    match fs::metadata(path) {
        Ok(_) => Check::new("kernel types", Outcome::Fine, path),
        Err(error) => Check::new("kernel types", Outcome::Note, format!("{path}: {error}"))
            .fix(Some(kernel_types_fix())),
    }
}

fn kernel_types_fix() -> String {
    if Path::new("/sys/kernel").exists() {
        "a kernel with CONFIG_DEBUG_INFO_BTF=y".to_owned()
    } else {
        "sudo mount -t sysfs sysfs /sys".to_owned()
    }
}

/// In which namespaces rano is; those that are not the first by name.
fn namespaces() -> Check {
    let views = views::own();
    let known = |is_first| {
        let of = views.all.iter().filter(|view| view.inode.is_some() && view.is_first == is_first);
        of.map(|view| view.kind.name()).collect::<Vec<_>>().join(", ")
    };
    let (nested, unsure) = (known(Some(false)), known(None));
    let mut said = Vec::new();
    if !nested.is_empty() {
        said.push(format!("rano is in others than the first: {nested}"));
    }
    said.extend(views.outside().map(str::to_owned));
    if views.is_nested(Kind::User) {
        said.push("kernel programs take rights of the first user namespace".to_owned());
    }
    if views.boot_offset_ns != 0 {
        said.push("times are those of this time namespace".to_owned());
    }
    if !unsure.is_empty() {
        said.push(format!("unknown whether the first: {unsure}"));
    }
    if said.is_empty() {
        return Check::new("namespaces", Outcome::Fine, "rano is in the first of each kind");
    }
    let outcome =
        if views.outside().is_some() || views.is_nested(Kind::User) { Outcome::Note } else { Outcome::Fine };
    Check::new("namespaces", outcome, said.join("; "))
}

fn cgroups() -> Check {
    match cgroup::open() {
        Ok(group) if !group.is_root => {
            let detail = "the root of the hierarchy is not to be reached from this cgroup namespace";
            return Check::new("cgroup v2", Outcome::Note, detail).fix(Some(cgroups_beyond_fix()));
        }
        Ok(_) | Err(_) => {}
    }
    match cgroup::mounted() {
        Ok(place) => Check::new("cgroup v2", Outcome::Fine, place.display().to_string()),
        Err(_) if cgroup::own_mount().is_ok() => {
            Check::new("cgroup v2", Outcome::Fine, "not mounted; reached through a mount of rano's own")
        }
        Err(_) => Check::new("cgroup v2", Outcome::Note, "not mounted").fix(Some(cgroups_fix())),
    }
}

fn cgroups_beyond_fix() -> String {
    "run it outside of the container, or start that with --cgroupns=host".to_owned()
}

fn cgroups_fix() -> String {
    "sudo mkdir -p /run/cgroup2 && sudo mount -t cgroup2 none /run/cgroup2".to_owned()
}

/// Settings of the kernel that keep programs out; those that do not stand in the way are passed over.
fn restrictions() -> Vec<Check> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let mut found = Vec::new();
    if let Some(lockdown) = read("/sys/kernel/security/lockdown")
        && !lockdown.contains("[none]")
    {
        found.push(Check::new("lockdown", Outcome::Note, lockdown));
    }
    if is_filtered() {
        let detail = "system calls are filtered (seccomp): a container or a sandbox";
        found.push(Check::new("sandbox", Outcome::Note, detail));
    }
    found
}

/// Whether a seccomp filter is on this process.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Seccomp:")).is_some_and(|mode| mode.trim() == "2")
}

const IN_KERNEL: [SourceKind; 3] =
    [SourceKind::EbpfFentry, SourceKind::EbpfKprobe, SourceKind::EbpfTracepoint];

/// The rungs in the kernel, and their hooks.
fn programs() -> (Vec<Rung>, Vec<Hook>) {
    match Programs::attach(Wanted { listening: true, names: true, ..Wanted::default() }) {
        Ok(programs) => (IN_KERNEL.map(|kind| rung(kind, &programs.hooks)).into(), hooks_of(&programs.hooks)),
        Err(error) => {
            let fix = crate::exit::hint(&error).map(str::to_owned);
            let refused = format!("{:#}", lockdown::explained(error));
            let rung = |kind| Rung {
                kind,
                refused: Some(refused.clone()),
                fix: fix.clone().or_else(programs_fix),
                outside: None,
            };
            (IN_KERNEL.map(rung).into(), Vec::new())
        }
    }
}

fn rung(kind: SourceKind, hooks: &Hooks) -> Rung {
    let refused = match hooks.why_not(kind) {
        Some(refused) => Some(refused.to_owned()),
        // Below one that works, another was not tried.
        None if kind == hooks.rung || kind == SourceKind::EbpfTracepoint => None,
        None => Some("not tried: a better one works".to_owned()),
    };
    let fix = refused.as_deref().and_then(|reason| rung_fix(kind, reason));
    Rung { kind, refused, fix, outside: hooks.outside() }
}

/// What would help where programs are let in, but not on functions.
fn rung_fix(kind: SourceKind, reason: &str) -> Option<String> {
    if reason.starts_with("not tried") {
        return None;
    }
    match kind {
        SourceKind::EbpfKprobe if reason == "not in this kernel" => {
            Some("a kernel with CONFIG_KPROBE_EVENTS=y".to_owned())
        }
        SourceKind::EbpfKprobe if ["EPERM", "EACCES"].iter().any(|errno| reason.contains(errno)) => {
            let path = "/proc/sys/kernel/perf_event_paranoid";
            let level: i32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            // Debian's 3 keeps out everybody but root.
            (level > 2).then(|| "sudo sysctl kernel.perf_event_paranoid=2".to_owned())
        }
        _ => None,
    }
}

fn hooks_of(hooks: &Hooks) -> Vec<Hook> {
    let attached = hooks.attached.iter().map(|(name, way)| Hook {
        name: (*name).to_owned(),
        way: way.name(),
        refused: None,
        without: None,
    });
    // What was learned in another way is not missing.
    let missing = hooks.refused.iter().filter(|refused| !hooks.has(refused.hook));
    let refused = missing.map(|refused| Hook {
        name: refused.hook.to_owned(),
        way: refused.way.name(),
        refused: Some(match &*refused.reason {
            "" => "not on this rung".to_owned(),
            reason => reason.to_owned(),
        }),
        without: refused.without.map(str::to_owned),
    });
    attached.chain(refused).collect()
}

/// What would let programs in at all.
fn programs_fix() -> Option<String> {
    if !lacking().is_empty() {
        return grant();
    }
    if !Path::new(KERNEL_TYPES).exists() {
        return Some(kernel_types_fix());
    }
    if cgroup::mounted().is_err() && cgroup::own_mount().is_err() {
        return Some(cgroups_fix());
    }
    if lockdown::is_confidential() {
        return Some(lockdown::FIX.to_owned());
    }
    Some("run it outside of the container or sandbox".to_owned())
}

fn polling() -> (Rung, Check) {
    let settings = ProcSettings {
        interval: Duration::from_secs(1),
        udp: true,
        other: true,
        listening: false,
        unix: false,
        unattributed: false,
        every_end: false,
        once: false,
        receive_buffer: 0,
        only_unix: false,
    };
    let kind = SourceKind::Proc;
    match ProcSource::start(settings) {
        Ok(source) => {
            let check = match source.health().reason {
                None => Check::new(
                    "notifications",
                    Outcome::Fine,
                    "the kernel tells of sockets that end and of processes that begin",
                ),
                Some(reason) => Check::new("notifications", Outcome::Note, reason),
            };
            let outside = views::own().outside().map(str::to_owned);
            (Rung { kind, refused: None, fix: None, outside }, check)
        }
        Err(error) => {
            let refused = format!("{error:#}");
            let check = Check::new("notifications", Outcome::Failed, refused.clone());
            let fix = Some("mount -t proc proc /proc".to_owned());
            (Rung { kind, refused: Some(refused), fix, outside: None }, check)
        }
    }
}

/// Whether a file could be made or written there.
pub fn can_write(path: &Path) -> bool {
    let place = if path.exists() { path.to_owned() } else { directory_of(path) };
    // Of the calling thread's identity on file systems, and not of the process's real user.
    let flags = rustix::fs::AtFlags::EACCESS;
    rustix::fs::accessat(rustix::fs::CWD, &place, rustix::fs::Access::WRITE_OK, flags).is_ok()
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| ".".into(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_of_a_shell() {
        assert_eq!(quoted(Path::new("/usr/local/bin/rano")), "/usr/local/bin/rano");
        assert_eq!(quoted(Path::new("/it's here/rano")), r"'/it'\''s here/rano'");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told() {
        let directory = tempfile::tempdir().expect("made");
        assert!(can_write(&directory.path().join("new")));
        assert!(!can_write(&directory.path().join("no/such/directory")));
    }
}
