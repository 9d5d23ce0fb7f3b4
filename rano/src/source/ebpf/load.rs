//! The kernel programs: loaded, attached hook by hook, and the maps through which they are talked to.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, ProgramError,
    RawTracePoint, SockOps,
};
use aya::{Ebpf, EbpfLoader};
use rano_common::{
    Judgement, JudgementWords, Loss, OFFSET_COUNT, OFFSETS_GLOBAL, Offset, Owner, OwnerWords, flags,
};

use super::btf::Btf;

/// Made by `cargo xtask ebpf`; `rano.bpf.txt` beside it says from what.
static OBJECT: &[u8] = aya::include_bytes_aligned!("rano.bpf.o");
pub const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Attached programs and their maps; detached when dropped.
pub struct Programs {
    pub ring: RingBuf<MapData>,
    judgements: HashMap<MapData, u32, JudgementWords>,
    owners: HashMap<MapData, u64, OwnerWords>,
    lost: PerCpuArray<MapData, u64>,
    /// Hooks that are good to have and could not be attached, each with the reason.
    pub missing: Vec<String>,
    /// Why packets with names are not told of, if they are not.
    pub without_names: Option<String>,
    /// Keeps the programs attached.
    ebpf: Option<Ebpf>,
}

#[derive(Clone, Copy)]
enum Kind {
    CgroupAddress,
    CgroupSocket,
    SockOps,
    RawTracepoint(&'static str),
    CgroupPacket(CgroupSkbAttachType),
}

struct Hook {
    program: &'static str,
    kind: Kind,
    /// What is not seen without it; `None`: it cannot do without.
    without: Option<&'static str>,
}

const HOOKS: [Hook; 10] = [
    // Processes first: whoever connects afterwards is known.
    Hook { program: "process_fork", kind: Kind::RawTracepoint("sched_process_fork"), without: None },
    Hook { program: "process_exec", kind: Kind::RawTracepoint("sched_process_exec"), without: None },
    Hook { program: "process_exit", kind: Kind::RawTracepoint("sched_process_exit"), without: None },
    Hook {
        program: "process_rename",
        kind: Kind::RawTracepoint("task_rename"),
        without: Some("agents by a name that a process gives itself"),
    },
    Hook { program: "tcp_events", kind: Kind::SockOps, without: None },
    Hook { program: "socket_release", kind: Kind::CgroupSocket, without: None },
    Hook { program: "socket_sendmsg4", kind: Kind::CgroupAddress, without: Some("datagrams over IPv4") },
    Hook { program: "socket_sendmsg6", kind: Kind::CgroupAddress, without: Some("datagrams over IPv6") },
    Hook { program: "socket_connect4", kind: Kind::CgroupAddress, without: None },
    Hook { program: "socket_connect6", kind: Kind::CgroupAddress, without: None },
];

/// Packets with names.
const NAME_HOOKS: [Hook; 2] = [
    Hook { program: "names_sent", kind: Kind::CgroupPacket(CgroupSkbAttachType::Egress), without: None },
    Hook { program: "names_received", kind: Kind::CgroupPacket(CgroupSkbAttachType::Ingress), without: None },
];

impl Programs {
    /// Loads and attaches everything; an error says which step failed. `ring_bytes`: room for records, 0 for the usual.
    /// `names`: packets that may hold names are to be told of too.
    pub fn attach(ring_bytes: u32, names: bool) -> Result<Self> {
        let offsets = offsets()?;
        let cgroup = cgroup2()?;
        let group = File::open(&cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        let mut loader = EbpfLoader::new();
        loader.override_global(OFFSETS_GLOBAL, &offsets[..], true);
        if ring_bytes != 0 {
            loader.map_max_entries("EVENTS", ring_bytes);
        }
        let mut ebpf = match loader.load(OBJECT) {
            Ok(ebpf) => ebpf,
            Err(error) if is_refusal(&error) => {
                bail!("not permitted (it takes root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)")
            }
            Err(error) => return Err(error).context("load the kernel programs"),
        };
        let mut missing = Vec::new();
        for hook in &HOOKS {
            let attached = attach(&mut ebpf, hook, &group)
                .with_context(|| format!("attach the kernel program {}", hook.program));
            match (attached, hook.without) {
                (Ok(()), _) => {}
                (Err(error), Some(without)) => missing.push(format!("without {without} ({error:#})")),
                (Err(error), None) => return Err(error),
            }
        }
        let without_names = if names { attach_names(&mut ebpf, &group).err() } else { None };
        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        Ok(Self {
            ring: RingBuf::try_from(take("EVENTS")?).context("open the ring buffer")?,
            judgements: HashMap::try_from(take("JUDGEMENTS")?)?,
            owners: HashMap::try_from(take("OWNERS")?)?,
            lost: PerCpuArray::try_from(take("LOST")?)?,
            missing,
            without_names: without_names.map(|error| format!("{error:#}")),
            ebpf: Some(ebpf),
        })
    }

    /// Answers what is to become of a process. A table that is full only means that it is told of again.
    pub fn judge(&mut self, pid: u32, judgement: Judgement) {
        let _ = self.judgements.insert(pid, judgement.to_words(), 0);
    }

    /// Asks for the end of a socket that is older than the programs.
    pub fn follow(&mut self, cookie: u64, owner: Owner) -> bool {
        self.owners.insert(cookie, owner.to_words(), 0).is_ok()
    }

    /// Whether the maps may be looked into.
    pub fn are_within_reach(&self) -> bool {
        self.lost.get(&0, 0).is_ok()
    }

    /// Ends the programs, so that what is in the maps is all there will be.
    pub fn detach(&mut self) {
        self.ebpf = None;
    }

    /// Open sockets of which every record so far was lost.
    pub fn unheard(&self) -> u64 {
        let told = flags::HEARD | flags::PREEXISTING;
        let is_unheard = |owner: &Owner| owner.flags & told == 0 && owner.flags & flags::ATTEMPTED != 0;
        let owners = self.owners.iter().filter_map(Result::ok);
        owners.filter(|(_, words)| is_unheard(&Owner::from_words(*words))).count() as u64
    }

    /// How often something was lost in that way, over all CPUs.
    pub fn lost(&self, what: Loss) -> u64 {
        self.lost.get(&(what as u32), 0).map_or(0, |counts| counts.iter().sum())
    }
}

/// Whether the first thing that was asked of the kernel was refused for lack of privileges.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The reason without the verifier's log, of which only the last words matter to a reader.
fn brief(error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let said = log.lines().rev().find(|line| !is_statistics(line)).unwrap_or_default().trim();
            anyhow::Error::new(io_error).context(format!("the kernel refuses it: {said}"))
        }
        other => other.into(),
    }
}

fn is_statistics(line: &str) -> bool {
    ["", "verification time", "stack depth", "processed"].iter().any(|begin| match *begin {
        "" => line.trim().is_empty(),
        begin => line.starts_with(begin),
    })
}

/// An answer without its question is none, so it is both or neither.
fn attach_names(ebpf: &mut Ebpf, group: &File) -> Result<()> {
    for hook in &NAME_HOOKS {
        attach(ebpf, hook, group).with_context(|| format!("attach the kernel program {}", hook.program))?;
    }
    Ok(())
}

fn attach(ebpf: &mut Ebpf, hook: &Hook, group: &File) -> Result<()> {
    let program = ebpf.program_mut(hook.program).context("it is not in the object")?;
    // AllowMultiple makes link_create answer EINVAL; a link is always one of several.
    let mode = CgroupAttachMode::Single;
    match hook.kind {
        Kind::CgroupAddress => {
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load().map_err(brief)?;
            program.attach(group, mode)?;
        }
        Kind::CgroupSocket => {
            let program: &mut CgroupSock = program.try_into()?;
            program.load().map_err(brief)?;
            program.attach(group, mode)?;
        }
        Kind::SockOps => {
            let program: &mut SockOps = program.try_into()?;
            program.load().map_err(brief)?;
            program.attach(group, mode)?;
        }
        Kind::CgroupPacket(direction) => {
            let program: &mut CgroupSkb = program.try_into()?;
            program.load().map_err(brief)?;
            program.attach(group, direction, mode)?;
        }
        Kind::RawTracepoint(name) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load().map_err(brief)?;
            program.attach(name)?;
        }
    }
    Ok(())
}

fn offsets() -> Result<[u32; OFFSET_COUNT]> {
    let bytes = std::fs::read(KERNEL_TYPES)
        .with_context(|| format!("read {KERNEL_TYPES} (the kernel needs CONFIG_DEBUG_INFO_BTF)"))?;
    let btf = Btf::parse(&bytes).with_context(|| format!("understand {KERNEL_TYPES}"))?;
    let mut offsets = [0; OFFSET_COUNT];
    for field in Offset::ALL {
        let (structure, path) = field.path();
        offsets[field as usize] = btf.offset(structure, path)?;
    }
    Ok(offsets)
}

/// The root of the cgroup v2 hierarchy, wherever it is mounted.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    });
    match found {
        Some(place) => Ok(place),
        None => bail!("cgroup v2 is not mounted (mount -t cgroup2 none /sys/fs/cgroup)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        if !std::path::Path::new(KERNEL_TYPES).exists() {
            println!("skipped: no {KERNEL_TYPES}");
            return;
        }
        let offsets = offsets().expect("found");
        assert_eq!(offsets[Offset::SockRemote4 as usize], 0, "the first field of struct sock_common");
        assert_eq!(offsets[Offset::SockFamily as usize], 16);
    }
}
