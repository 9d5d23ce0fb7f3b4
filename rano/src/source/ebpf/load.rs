//! The kernel programs: loaded, attached hook by hook, and the maps through which they are talked to.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, FEntry, FExit, KProbe,
    Program, ProgramType, RawTracePoint, SockOps,
};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Btf as AyaBtf, Ebpf, EbpfLoader};
use rano_common::{
    FlowBytes, FlowKey, Judgement, JudgementWords, LeftOut, ListenerKey, ListenerWords, Loss, OFFSETS_GLOBAL,
    OWNERS_MAX, Owner, OwnerWords, SETTING_COUNT, SETTINGS_GLOBAL, Setting, flags, group, tracked_mark,
};

use rustc_hash::FxHashSet;

use super::cgroup::{self, Group};
use super::hooks::{self, Attach, Fact, Hooks, PacketWay, Refused, Way, When};
use super::kernel::Kernel;
use super::misses;
use super::refusals::{brief, first, is_refusal};
use crate::event::SourceKind;
use crate::source::views;

/// Made by `cargo xtask ebpf`; `rano.bpf.txt` beside it says from what.
#[cfg(not(feature = "kernel-log"))]
static OBJECT: &[u8] = aya::include_bytes_aligned!("rano.bpf.o");
/// The same programs, with lines about what they decide. Made by `cargo xtask ebpf --log`, and by nobody else.
#[cfg(feature = "kernel-log")]
static OBJECT: &[u8] = aya::include_bytes_aligned!("rano.log.bpf.o");

/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;

/// What came of asking for the end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    Begun,
    /// The programs follow it of themselves.
    Already,
    /// There is no room, or nothing to follow it by.
    Refused,
}

/// What to attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Only this rung, for tests.
    pub rung: Option<SourceKind>,
    /// Listeners, and what they accept.
    pub listening: bool,
    /// Transports beside TCP and UDP, and sockets that came from somebody else.
    pub uses: bool,
    /// Room for records in the ring buffer; 0 for the usual.
    pub ring_bytes: u32,
    /// Sockets that are followed at a time; 0 for the usual.
    pub owners_max: u32,
    /// Packets that may hold names.
    pub names: bool,
    /// The limit of locked memory, which is the whole process's, is left as it is.
    pub keep_limits: bool,
}

/// Attached programs and their maps; detached when dropped.
pub struct Programs {
    pub ring: RingBuf<MapData>,
    pub hooks: Hooks,
    judgements: HashMap<MapData, u32, JudgementWords>,
    tracked: HashMap<MapData, u32, JudgementWords>,
    tracked_marks: Array<MapData, u64>,
    /// Marks of all that were watched.
    marked: FxHashSet<u32>,
    owners: HashMap<MapData, u64, OwnerWords>,
    followed_older: Array<MapData, u64>,
    flows: HashMap<MapData, [u64; 4], FlowBytes>,
    listeners: HashMap<MapData, [u64; 3], ListenerWords>,
    left_out: PerCpuArray<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    /// Keeps the programs attached.
    ebpf: Option<Ebpf>,
    /// What they say of what they decide.
    #[cfg(feature = "kernel-log")]
    lines: aya_log::EbpfLogger<&'static dyn log::Log>,
    /// So do these, of which the kernel counts what it skipped.
    probes: Vec<OwnedFd>,
    /// Of programs that ended.
    skipped: u64,
}

impl Programs {
    /// Loads, and attaches as much as is to be had; an error says which step failed.
    pub fn attach(wanted: Wanted) -> Result<Self> {
        if !wanted.keep_limits {
            // Up to Linux 5.10 the memory of maps counts against this limit.
            let unlimited = rustix::process::Rlimit { current: None, maximum: None };
            let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
        }
        let kernel = Kernel::read()?;
        let mut hooks = Hooks::none();
        let typed = Typed::probe();
        let mut loaded = Loaded::load(&kernel, wanted, hooks::CGROUPS.when, typed)?;
        loaded.attach_base(&mut hooks)?;
        if !hooks.cgroups && typed != Typed::default() {
            // A verifier that knows the helpers may still not follow what is done with their results.
            hooks = Hooks::none();
            loaded = Loaded::load(&kernel, wanted, hooks::CGROUPS.when, Typed::default())?;
            loaded.attach_base(&mut hooks)?;
        }
        if !hooks.cgroups {
            // Another way to know a socket: programs that are loaded already cannot change to it.
            loaded = Loaded::load(&kernel, wanted, When::Alone, Typed::default())?;
            loaded.attach_alone(&mut hooks)?;
        }
        loaded.climb(wanted, &mut hooks)?;
        loaded.attach_rest(wanted, &mut hooks);
        loaded.into_programs(hooks)
    }

    /// What the programs hold of whoever has that pid.
    pub fn judgement(&self, pid: u32) -> Option<Judgement> {
        let words = self.tracked.get(&pid, 0).or_else(|_| self.judgements.get(&pid, 0));
        words.ok().and_then(Judgement::from_words)
    }

    /// Answers what is to become of a process. A verdict that is forgotten only means that it is told of again.
    pub fn judge(&mut self, pid: u32, judgement: Judgement) {
        let words = judgement.to_words();
        let is_tracked = judgement.verdict == rano_common::Verdict::Tracked;
        if is_tracked {
            self.mark(pid);
        } else if !self.marked.contains(&tracked_mark(pid)) {
            let _ = self.tracked_marks.set(tracked_mark(pid), 0, 0);
        }
        if is_tracked && self.tracked.insert(pid, words, 0).is_ok() {
            let _ = self.judgements.remove(&pid);
            return;
        }
        let _ = self.judgements.insert(pid, words, 0);
        let _ = self.tracked.remove(&pid);
    }

    /// A process is watched. Its mark stays, whoever else has it.
    pub fn mark(&mut self, pid: u32) {
        if self.marked.insert(tracked_mark(pid)) {
            let _ = self.tracked_marks.set(tracked_mark(pid), 1, 0);
        }
    }

    /// Asks for the end of a socket that is older than the programs, unless they follow it already.
    pub fn follow(&mut self, cookie: u64, owner: Owner) -> Following {
        if !self.hooks.cgroups {
            return Following::Refused;
        }
        // Before: the programs look for an owner only where they may find one.
        if self.followed_older.set(group(cookie), 1, 0).is_err() {
            return Following::Refused;
        }
        match self.owners.insert(cookie, owner.to_words(), BPF_NOEXIST) {
            Ok(()) => Following::Begun,
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {
                Following::Already
            }
            Err(_) => Following::Refused,
        }
    }

    /// Whether a socket is followed.
    pub fn follows(&self, cookie: u64) -> bool {
        self.owners.get(&cookie, 0).is_ok()
    }

    /// Forgets a socket; whether it was followed still.
    pub fn unfollow(&mut self, cookie: u64) -> bool {
        self.owners.remove(&cookie).is_ok()
    }

    /// Asks for what a listener accepts that is older than the programs.
    pub fn listen(&mut self, place: ListenerKey, cookie: u64, owner: Owner) {
        let who = u64::from(owner.pid) | u64::from(owner.exec_id) << 32;
        let place = place.to_words();
        let words = match self.listeners.get(&place, 0) {
            Ok(known) if known[1..] != [owner.start_ns, who] => [0; 3],
            Ok(_) | Err(_) => [cookie, owner.start_ns, who],
        };
        let _ = self.listeners.insert(place, words, 0);
    }

    /// What was sent and received in a flow, which is then forgotten. `None`: it was forgotten before.
    pub fn take_flow(&mut self, flow: FlowKey) -> Option<FlowBytes> {
        let key = flow.to_words();
        let bytes = self.flows.get(&key, 0).ok()?;
        let _ = self.flows.remove(&key);
        Some(bytes)
    }

    /// The same so far, of one that goes on.
    pub fn flow(&self, flow: FlowKey) -> Option<FlowBytes> {
        self.flows.get(&flow.to_words(), 0).ok()
    }

    /// Passes on what the programs said since.
    #[cfg(feature = "kernel-log")]
    pub fn tell_lines(&mut self) {
        self.lines.flush();
    }

    /// Whether the maps may be looked into.
    pub fn are_within_reach(&self) -> bool {
        self.lost.get(&0, 0).is_ok()
    }

    /// Ends the programs, so that what is in the maps is all there will be.
    pub fn detach(&mut self) {
        self.skipped = self.skipped();
        self.ebpf = None;
        self.probes.clear();
    }

    /// How often the kernel skipped a program, where it says.
    pub fn skipped(&self) -> u64 {
        let Some(ebpf) = &self.ebpf else { return self.skipped };
        let misses = |program: &Program| misses::of(program.fd().ok()?.as_fd());
        let of_programs: u64 = ebpf.programs().filter_map(|(_, program)| misses(program)).sum();
        let of_probes: u64 = self.probes.iter().filter_map(|link| misses::of_probe(link.as_fd())).sum();
        of_programs + of_probes
    }

    /// Open sockets of which every record so far was lost. As many as there can be are looked at: the table may change
    /// meanwhile.
    pub fn unheard(&self) -> impl Iterator<Item = (u64, Owner)> + '_ {
        let owners = self.owners.iter().take(OWNERS_MAX as usize).filter_map(Result::ok);
        owners.map(|(key, words)| (key, owner_here(words))).filter(|(_, owner)| Self::is_unheard(owner))
    }

    /// Whether every record of a socket was lost, and where it goes is known.
    pub fn is_unheard(owner: &Owner) -> bool {
        let told = flags::HEARD | flags::PREEXISTING | flags::LISTENER | flags::ACCEPTED;
        owner.flags & (told | flags::OTHER) == 0 && owner.flags & (flags::ATTEMPTED | flags::TALKED) != 0
    }

    /// Whose a socket is that is followed.
    pub fn owner(&self, cookie: u64) -> Option<Owner> {
        self.owners.get(&cookie, 0).ok().map(owner_here)
    }

    /// What excluded processes opened so far.
    pub fn left_out(&self, what: LeftOut) -> u64 {
        self.left_out.get(&(what as u32), 0).map_or(0, |counts| counts.iter().sum())
    }

    /// How often something was lost in that way, over all CPUs.
    pub fn lost(&self, what: Loss) -> u64 {
        self.lost.get(&(what as u32), 0).map_or(0, |counts| counts.iter().sum())
    }
}

/// The object with its maps in the kernel, and what it takes to attach its programs.
struct Loaded<'a> {
    kernel: &'a Kernel,
    ebpf: Ebpf,
    /// Type information of the kernel, once a trampoline was tried: aya wants its own.
    types: Option<AyaBtf>,
    group: Result<Group>,
}

impl<'a> Loaded<'a> {
    fn load(kernel: &'a Kernel, wanted: Wanted, when: When, typed: Typed) -> Result<Self> {
        let mut settings = [0; SETTING_COUNT];
        settings[Setting::Listening as usize] = u32::from(wanted.listening);
        settings[Setting::Alone as usize] = u32::from(when == When::Alone);
        settings[Setting::TypedTask as usize] = u32::from(typed.task);
        settings[Setting::TypedSocket as usize] = u32::from(typed.socket);
        let owners = if wanted.owners_max == 0 { OWNERS_MAX } else { wanted.owners_max };
        settings[Setting::LimitedMax as usize] = owners / 2;
        settings[Setting::PidNamespace as usize] = views::own().nested_pids().unwrap_or(0);
        let group = cgroup::open();
        let is_part = when != When::Alone && group.as_ref().is_ok_and(|group| !group.is_root);
        settings[Setting::Subtree as usize] = u32::from(is_part);
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("OWNERS", owners);
        loader.override_global(OFFSETS_GLOBAL, &kernel.offsets[..], true);
        loader.override_global(SETTINGS_GLOBAL, &settings[..], true);
        if wanted.ring_bytes != 0 {
            loader.map_max_entries("EVENTS", wanted.ring_bytes);
        }
        match loader.load(OBJECT) {
            Ok(ebpf) => Ok(Self { kernel, ebpf, types: None, group }),
            Err(error) if is_refusal(&error) => {
                bail!("not permitted (it takes root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)")
            }
            Err(error) => Err(error).context("load the kernel programs"),
        }
    }

    /// Processes first: whoever connects afterwards is known.
    fn attach_base(&mut self, hooks: &mut Hooks) -> Result<()> {
        if let Err(refused) = self.learn(&hooks::PROCESSES, hooks, |_| true) {
            bail!("attach {}: {}", refused.hook, refused.reason);
        }
        hooks.cgroups = self.learn(&hooks::CGROUPS, hooks, |_| true).is_ok();
        hooks.subtree = hooks.cgroups && self.group.as_ref().is_ok_and(|group| !group.is_root);
        Ok(())
    }

    fn attach_alone(&mut self, hooks: &mut Hooks) -> Result<()> {
        hooks.attached.clear();
        for fact in [&hooks::PROCESSES, &hooks::STATES] {
            if let Err(refused) = self.learn(fact, hooks, |_| true) {
                let reasons = hooks.reason().unwrap_or_default();
                bail!("attach {}: {}; {reasons}", refused.hook, refused.reason);
            }
        }
        Ok(())
    }

    /// The rung is that of the way in which `tcp_connect` is hooked.
    fn climb(&mut self, wanted: Wanted, hooks: &mut Hooks) -> Result<()> {
        let allowed = |way: Way| match wanted.rung {
            None => true,
            Some(rung) => way.rung() == Some(rung),
        };
        let _ = self.learn(&hooks::CONNECT, hooks, allowed);
        let way = hooks.attached.iter().find(|(name, _)| *name == hooks::CONNECT.name).map(|(_, way)| *way);
        hooks.rung = way.and_then(Way::rung).unwrap_or(SourceKind::EbpfTracepoint);
        match wanted.rung {
            Some(rung) if rung != hooks.rung => bail!("{}", hooks.reason().unwrap_or_default()),
            Some(_) | None => Ok(()),
        }
    }

    fn attach_rest(&mut self, wanted: Wanted, hooks: &mut Hooks) {
        for fact in hooks::FACTS {
            let is_wanted = match fact.when {
                When::Always => true,
                When::Listening => wanted.listening,
                When::WithCgroups => hooks.cgroups,
                When::Alone => !hooks.cgroups,
                When::Names => wanted.names,
                When::Uses => wanted.uses,
            };
            // A way that did not work for the rung's mark does not work for others.
            let rung = hooks.rung;
            let allowed = |way: Way| match way.rung() {
                None => true,
                Some(SourceKind::EbpfKprobe) if wanted.rung.is_none() => rung != SourceKind::EbpfTracepoint,
                Some(of_way) => of_way == rung,
            };
            if is_wanted
                && fact.name == hooks::USES
                && hooks.way(hooks::DATAGRAM_BYTES) == Some(Way::RawTracepoint)
            {
                // The same programs.
                hooks.attached.push((fact.name, Way::RawTracepoint));
            } else if is_wanted {
                let _ = self.learn(fact, hooks, allowed);
            }
        }
    }

    /// Attaches what it takes to learn a fact, in the first of the ways that works.
    fn learn(
        &mut self,
        fact: &Fact,
        hooks: &mut Hooks,
        allowed: impl Fn(Way) -> bool,
    ) -> Result<(), Refused> {
        let before = hooks.refused.len();
        for (way, programs) in fact.ways.iter().filter(|(way, _)| allowed(*way)) {
            match self.attach_all(programs) {
                Ok(()) => {
                    hooks.attached.push((fact.name, *way));
                    for refused in &mut hooks.refused[before..] {
                        refused.without = None;
                    }
                    return Ok(());
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    let without = None;
                    hooks.refused.push(Refused { hook: fact.name, way: *way, reason, without });
                }
            }
        }
        let without = Some(fact.without).filter(|without| !without.is_empty());
        if let Some(last) = hooks.refused[before..].last_mut() {
            last.without = without;
            return Err(last.clone());
        }
        let way = fact.ways.first().map_or(Way::RawTracepoint, |(way, _)| *way);
        let refused = Refused { hook: fact.name, way, reason: String::new(), without };
        if fact.name != hooks::CONNECT.name {
            hooks.refused.push(refused.clone());
        }
        Err(refused)
    }

    /// All, or none.
    fn attach_all(&mut self, programs: &[Attach]) -> Result<()> {
        for (at, program) in programs.iter().enumerate() {
            if let Err(error) = self.attach(program) {
                for program in programs[..=at].iter().flat_map(Attach::programs) {
                    self.detach(program);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn attach(&mut self, what: &Attach) -> Result<()> {
        // AllowMultiple makes link_create answer EINVAL; a link is always one of several.
        let mode = CgroupAttachMode::Single;
        if let Attach::Entry(..) | Attach::Exit(..) | Attach::ExitOf(..) = what
            && self.types.is_none()
        {
            self.types = Some(AyaBtf::from_sys_fs().context("read the kernel's types")?);
        }
        let arguments = |function: &str| self.kernel.arguments.get(function).copied();
        let name = match what {
            Attach::ExitOf(programs, functions) => {
                let count = functions.iter().find_map(|function| arguments(function));
                let fits = programs.iter().find(|(_, takes)| Some(*takes) == count);
                fits.context("the function is of another shape")?.0
            }
            one => one.programs()[0],
        };
        let program = self.ebpf.program_mut(name).context("it is not in the object")?;
        let group = || match &self.group {
            Ok(group) => Ok(&group.directory),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        match what {
            Attach::CgroupAddress(_) => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                let group = group()?;
                program.load().map_err(brief)?;
                program.attach(group, mode)?;
            }
            Attach::CgroupSocket(_) => {
                let program: &mut CgroupSock = program.try_into()?;
                let group = group()?;
                program.load().map_err(brief)?;
                program.attach(group, mode)?;
            }
            Attach::SockOps(_) => {
                let program: &mut SockOps = program.try_into()?;
                let group = group()?;
                program.load().map_err(brief)?;
                program.attach(group, mode)?;
            }
            Attach::CgroupPacket(_, way) => {
                let way = match way {
                    PacketWay::Sent => CgroupSkbAttachType::Egress,
                    PacketWay::Received => CgroupSkbAttachType::Ingress,
                };
                let program: &mut CgroupSkb = program.try_into()?;
                program.load().map_err(brief)?;
                program.attach(group()?, way, mode)?;
            }
            Attach::RawTracepoint(_, tracepoint) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load().map_err(brief)?;
                program.attach(tracepoint).map_err(brief)?;
            }
            Attach::Entry(_, functions) => {
                let program: &mut FEntry = program.try_into()?;
                let types = self.types.as_ref().context("it was read above")?;
                first(functions, |function| program.load(function, types))?;
                program.attach().map_err(brief)?;
            }
            Attach::Exit(_, functions, _) | Attach::ExitOf(_, functions) => {
                if let Attach::Exit(_, _, takes) = what {
                    let fits = functions.iter().any(|function| arguments(function) == Some(*takes));
                    ensure!(fits, "the function is of another shape");
                }
                let program: &mut FExit = program.try_into()?;
                let types = self.types.as_ref().context("it was read above")?;
                first(functions, |function| program.load(function, types))?;
                program.attach().map_err(brief)?;
            }
            Attach::Probe(_, functions) => {
                ensure!(cfg!(target_arch = "x86_64"), "built for x86_64 only");
                let program: &mut KProbe = program.try_into()?;
                program.load().map_err(brief)?;
                first(functions, |function| program.attach(function, 0).map(|_| ()))?;
            }
        }
        Ok(())
    }

    /// Takes back a program that may be attached.
    fn detach(&mut self, name: &str) {
        let _ = match self.ebpf.program_mut(name) {
            Some(Program::SockOps(program)) => program.unload(),
            Some(Program::CgroupSock(program)) => program.unload(),
            Some(Program::CgroupSockAddr(program)) => program.unload(),
            Some(Program::RawTracePoint(program)) => program.unload(),
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(_) | None => Ok(()),
        };
    }

    fn into_programs(self, hooks: Hooks) -> Result<Programs> {
        let mut ebpf = self.ebpf;
        #[cfg(feature = "kernel-log")]
        let lines = aya_log::EbpfLogger::init(&mut ebpf).context("open the ring buffer of lines")?;
        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        if hooks.has(hooks::ACCEPT) {
            let mut hooked: Array<_, u32> = Array::try_from(take("ACCEPT_HOOKED")?)?;
            hooked.set(0, 1, 0).context("say that accept is hooked")?;
        }
        if hooks.has(hooks::DATAGRAM_BYTES) {
            let mut hooked: Array<_, u32> = Array::try_from(take("DATAGRAMS_HOOKED")?)?;
            hooked.set(0, 1, 0).context("say that datagrams are seen")?;
        }
        Ok(Programs {
            ring: RingBuf::try_from(take("EVENTS")?).context("open the ring buffer")?,
            judgements: HashMap::try_from(take("JUDGEMENTS")?)?,
            tracked: HashMap::try_from(take("TRACKED")?)?,
            tracked_marks: Array::try_from(take("TRACKED_MARKS")?)?,
            marked: FxHashSet::default(),
            owners: HashMap::try_from(take("OWNERS")?)?,
            followed_older: Array::try_from(take("FOLLOWED_OLDER")?)?,
            flows: HashMap::try_from(take("FLOWS")?)?,
            listeners: HashMap::try_from(take("LISTENERS")?)?,
            left_out: PerCpuArray::try_from(take("LEFT_OUT")?)?,
            lost: PerCpuArray::try_from(take("LOST")?)?,
            hooks,
            ebpf: Some(ebpf),
            #[cfg(feature = "kernel-log")]
            lines,
            probes: misses::probes(),
            skipped: 0,
        })
    }
}

/// With its times as this process's boot clock has them, but for the start, which is a part of who it is.
fn owner_here(words: OwnerWords) -> Owner {
    let owner = Owner::from_words(words);
    match owner.established_ns {
        0 => owner,
        at_ns => Owner { established_ns: views::here(at_ns), ..owner },
    }
}

/// What programs may have with its type, so that they read it without a helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Typed {
    /// The current task. Where programs on cgroups may, those on functions may, too.
    task: bool,
    /// The socket of `sock_ops`.
    socket: bool,
}

impl Typed {
    fn probe() -> Self {
        let gives = |kind, helper| is_helper_supported(kind, helper).unwrap_or(false);
        Self {
            task: gives(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_current_task_btf),
            socket: gives(ProgramType::SockOps, BpfHelper::BPF_FUNC_skc_to_tcp_sock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_every_program() {
        let object = aya_object();
        for fact in
            hooks::FACTS.iter().chain([&hooks::PROCESSES, &hooks::CGROUPS, &hooks::CONNECT, &hooks::STATES])
        {
            for program in fact.ways.iter().flat_map(|(_, programs)| *programs).flat_map(Attach::programs) {
                let name = program.as_bytes();
                assert!(object.windows(name.len()).any(|window| window == name), "{program}");
            }
        }
    }

    fn aya_object() -> &'static [u8] {
        OBJECT
    }
}
