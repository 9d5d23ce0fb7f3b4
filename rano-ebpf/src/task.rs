//! Who: identity of a task's process, its verdict, and what is told of it.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::{
    bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
    generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_user,
    },
};
use rano_common::{
    ForkRecord, Header, ImageRecord, Judgement, JudgementWords, Loss, Offset, PATH, ProcessKind,
    ProcessRecord, Setting, Verdict, tracked_mark,
};

use crate::emit::{Share, now, reserve, submit};
use crate::log;
use crate::maps::{JUDGEMENTS, TRACKED, TRACKED_MARKS, lost, offset, setting};

/// A process and the image it runs.
#[derive(Clone, Copy)]
pub struct Identity {
    /// As the pid namespace of the observation numbers it; 0 outside of that, where nobody is watched.
    pub pid: u32,
    pub exec_id: u32,
    pub start_ns: u64,
    /// It is not known yet whether it is watched.
    pub is_undecided: bool,
}

/// The current task, as an address.
#[inline(always)]
pub fn current() -> usize {
    // SAFETY: takes nothing and returns an address that is only read through `bpf_probe_read_kernel`.
    unsafe { bpf_get_current_task() as usize }
}

/// Reads a field of the kernel structure at `base`.
#[inline(always)]
pub fn read<T>(base: usize, field: Offset) -> Option<T> {
    // SAFETY: the helper checks the address; every `T` here is a plain number or an array of them.
    unsafe { bpf_probe_read_kernel((base + offset(field)) as *const T) }.ok()
}

/// The current thread, by what no other has as long as it lives. Its number would need a helper that programs on
/// cgroups have only from Linux 6.2 on.
#[inline(always)]
pub fn thread() -> u64 {
    current() as u64
}

/// Reads kernel memory.
#[inline(always)]
pub fn read_at<T>(address: usize) -> Option<T> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// A field of a structure of which the verifier knows the type: read by the program itself, which costs a tenth.
///
/// # Safety
/// The field has that type.
#[inline(always)]
pub unsafe fn field<T>(structure: *const u8, field: Offset) -> T {
    // SAFETY: the caller's promise; the verifier checks the place. Volatile, because what the kernel changes meanwhile
    // is not to be read twice.
    unsafe { core::ptr::read_volatile(structure.add(offset(field)).cast()) }
}

/// `PF_KTHREAD` (include/linux/sched.h)
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Whether the current task is one of the kernel's own, and no process.
#[inline(always)]
pub fn in_kernel_thread() -> bool {
    let flags: u32 = if setting(Setting::TypedTask) == 0 {
        read(current(), Offset::TaskFlags).unwrap_or(0)
    } else {
        // SAFETY: takes nothing; the verifier knows what is returned, and that the field is where it is.
        unsafe { field(bpf_get_current_task_btf().cast::<u8>(), Offset::TaskFlags) }
    };
    flags & KERNEL_THREAD != 0
}

impl Identity {
    #[inline(always)]
    pub fn of(task: usize) -> Option<Self> {
        // Mostly it is its own leader, which is seen without asking for that: the two numbers lie side by side.
        let (pid, group): (u32, u32) = if offset(Offset::TaskTgid) == offset(Offset::TaskPid) + 4 {
            let both: u64 = read(task, Offset::TaskPid)?;
            (both as u32, (both >> 32) as u32)
        } else {
            (read(task, Offset::TaskPid)?, read(task, Offset::TaskTgid)?)
        };
        let leader = if pid == group { task } else { read(task, Offset::TaskLeader)? };
        Some(Self {
            pid: numbered(leader, group)?,
            exec_id: read(leader, Offset::TaskExecId)?,
            start_ns: read(leader, Offset::TaskStart)?,
            is_undecided: false,
        })
    }

    /// Of the current task.
    #[inline(always)]
    fn current() -> Option<Self> {
        if setting(Setting::TypedTask) == 0 || setting(Setting::PidNamespace) != 0 {
            return Self::of(current());
        }
        // SAFETY: takes nothing; the verifier knows what is returned, and that the fields are where they are.
        unsafe {
            let task = bpf_get_current_task_btf().cast::<u8>();
            let leader: *const u8 = field(task, Offset::TaskLeader);
            Some(Self {
                pid: field(task, Offset::TaskTgid),
                exec_id: field(leader, Offset::TaskExecId),
                start_ns: field(leader, Offset::TaskStart),
                is_undecided: false,
            })
        }
    }

    /// It has no number in the pid namespace of the observation.
    #[inline(always)]
    pub fn is_outside(&self) -> bool {
        setting(Setting::PidNamespace) != 0 && self.pid == 0
    }

    /// `None` while it is undecided and was not told of.
    #[inline(always)]
    pub fn verdict(&self) -> Option<Verdict> {
        if self.is_outside() {
            return Some(Verdict::Ignored);
        }
        let of = |words: &JudgementWords| Judgement::of(*words, self.start_ns, self.exec_id);
        // SAFETY: a value that is replaced meanwhile is torn at worst, and then of nobody.
        unsafe { JUDGEMENTS.get(self.pid).and_then(of).or_else(|| TRACKED.get(self.pid).and_then(of)) }
    }

    /// Keeps who forked it.
    #[inline(always)]
    pub fn judge(&self, verdict: Verdict) {
        let kept = |words: &JudgementWords| {
            let before = Judgement::from_words(*words)?;
            (before.start_ns == self.start_ns).then_some(before.forker)
        };
        // SAFETY: as above.
        let forker = unsafe {
            TRACKED.get(self.pid).and_then(kept).or_else(|| JUDGEMENTS.get(self.pid).and_then(kept))
        };
        self.judge_as_fork(verdict, forker.unwrap_or(0));
    }

    /// It may be watched.
    #[inline(always)]
    pub fn mark(&self) {
        if let Some(mark) = TRACKED_MARKS.get_ptr_mut(tracked_mark(self.pid)) {
            // SAFETY: the kernel returned a pointer to the value, which is 0 or 1.
            unsafe { *mark = 1 };
        }
    }

    #[inline(always)]
    pub fn judge_as_fork(&self, verdict: Verdict, forker: u32) {
        let judgement = Judgement { start_ns: self.start_ns, exec_id: self.exec_id, verdict, forker };
        let words = judgement.to_words();
        if matches!(verdict, Verdict::Tracked | Verdict::Asked) {
            self.mark();
        }
        if matches!(verdict, Verdict::Tracked) && TRACKED.insert(self.pid, words, BPF_ANY as u64).is_ok() {
            return;
        }
        if JUDGEMENTS.insert(self.pid, words, BPF_ANY as u64).is_err() {
            lost(Loss::JudgementsFull);
        }
    }
}

/// `struct upid`: a number, and the namespace that gave it.
const NUMBER_SIZE: usize = 16;
/// Pid namespaces lie in one another so deep (`MAX_PID_NS_LEVEL` in include/linux/pid_namespace.h).
const DEEPEST_NAMESPACE: u32 = 32;

/// What a process goes by whose leader that is, and which the first pid namespace knows as `first`.
#[inline(always)]
fn numbered(leader: usize, first: u32) -> Option<u32> {
    let namespace = setting(Setting::PidNamespace);
    if namespace == 0 {
        return Some(first);
    }
    match number_in(leader, namespace) {
        UNREAD => None,
        number => Some(number),
    }
}

const UNREAD: u32 = u32::MAX;

/// The number of a leader in a pid namespace; 0 where it has none, [`UNREAD`] where that is not known. A program of its
/// own: it is long, and called from many.
#[inline(never)]
fn number_in(leader: usize, namespace: u32) -> u32 {
    let Some(numbers) = read::<usize>(leader, Offset::TaskNumbers) else { return UNREAD };
    if numbers == 0 {
        return 0;
    }
    let Some(level) = read::<u32>(numbers, Offset::PidLevel) else { return UNREAD };
    // From its own namespace outwards: mostly that is the one.
    for up in 0..DEEPEST_NAMESPACE {
        if up > level {
            return 0;
        }
        let at = numbers + offset(Offset::PidNumbers) + (level - up) as usize * NUMBER_SIZE;
        let Some(of) = read::<usize>(at, Offset::NumberNamespace) else { return UNREAD };
        let Some(inode) = read::<u32>(of, Offset::PidNamespaceInode) else { return UNREAD };
        if inode == namespace {
            return read_at(at).unwrap_or(UNREAD);
        }
    }
    0
}

/// Whether the current process may be a watched one: of most it is seen at once that they are not. Not for programs on
/// cgroups, which have this helper only from Linux 6.2 on.
#[inline(always)]
pub fn may_be_watched() -> bool {
    if setting(Setting::PidNamespace) != 0 {
        // The marks go by other numbers than the kernel's: whoever asks looks closer.
        return true;
    }
    // SAFETY: takes nothing, returns a number.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    TRACKED_MARKS.get(tracked_mark(pid)).is_some_and(|mark| *mark != 0)
}

/// Whoever has that pid is gone.
#[inline(always)]
pub fn forget_verdict(pid: u32) {
    let _ = JUDGEMENTS.remove(pid);
    let _ = TRACKED.remove(pid);
}

/// Who the caller is, unless it is ignored or left out. Nobody is told of. Where the ends of some sockets are not seen,
/// only who is known to be watched: others' would be followed for good.
#[inline(always)]
pub fn user() -> Option<Identity> {
    let identity = Identity::current()?;
    match identity.verdict() {
        Some(Verdict::Ignored | Verdict::Excluded) => None,
        Some(Verdict::Tracked) => Some(identity),
        Some(Verdict::Asked | Verdict::Undecided) | None if setting(Setting::Subtree) != 0 => None,
        Some(Verdict::Asked | Verdict::Undecided) | None => Some(Identity { is_undecided: true, ..identity }),
    }
}

/// Who the caller is, unless it is ignored or left out. A process that was never judged is told of first.
#[inline(always)]
pub fn caller() -> Option<Identity> {
    caller_or(|| {})
}

/// The same; does something where it is left out.
#[inline(always)]
pub fn caller_or(left_out: impl FnOnce()) -> Option<Identity> {
    let Some(identity) = Identity::current() else {
        lost(Loss::TaskUnread);
        return None;
    };
    let verdict = identity.verdict();
    log::verdict(&identity, verdict.map_or(log::UNJUDGED, |verdict| verdict as u32));
    match verdict {
        Some(Verdict::Ignored) => None,
        Some(Verdict::Excluded) => {
            left_out();
            None
        }
        Some(Verdict::Tracked) => Some(identity),
        Some(Verdict::Asked) => Some(Identity { is_undecided: true, ..identity }),
        Some(Verdict::Undecided) | None => {
            ask(current(), &identity);
            Some(Identity { is_undecided: true, ..identity })
        }
    }
}

/// A program of its own: it is long, and called from many.
#[inline(never)]
fn ask(task: usize, identity: &Identity) {
    // Before the record, so that the answer to it comes later.
    identity.judge(Verdict::Asked);
    if !tell_image(task, *identity, ProcessKind::Sight, 0) {
        // To be told of with its next socket.
        identity.judge(Verdict::Undecided);
    }
}

/// What can be said of a process in few bytes.
#[inline(always)]
pub fn describe(task: usize, identity: Identity, kind: ProcessKind) -> Option<ProcessRecord> {
    let leader: usize = read(task, Offset::TaskLeader)?;
    let parent: usize = read(leader, Offset::TaskParent)?;
    let cred: usize = read(task, Offset::TaskCred)?;
    let group: u32 = read(parent, Offset::TaskTgid)?;
    let parent = if setting(Setting::PidNamespace) == 0 {
        group
    } else {
        numbered(read(parent, Offset::TaskLeader)?, group)?
    };
    Some(ProcessRecord {
        header: Header { kind: kind as u32, size: size_of::<ProcessRecord>() as u32, at_ns: now() },
        start_ns: identity.start_ns,
        pid: identity.pid,
        parent,
        exec_id: identity.exec_id,
        uid: read(cred, Offset::CredEuid)?,
        arguments: 0,
        arguments_total: 0,
        comm: read(leader, Offset::TaskComm)?,
    })
}

/// Tells of a process without its arguments.
#[inline(always)]
pub fn tell(task: usize, identity: Identity, kind: ProcessKind) {
    let Some(record) = describe(task, identity, kind) else { return lost(Loss::TaskUnread) };
    tell_record(record, Share::FORK);
}

/// Tells of a new process and who forked it, whose verdict it has inherited.
#[inline(always)]
pub fn tell_fork(task: usize, identity: Identity, forker: Option<Identity>, verdict: Verdict) {
    let Some(process) = describe(task, identity, ProcessKind::Fork) else { return lost(Loss::TaskUnread) };
    let header = Header { size: size_of::<ForkRecord>() as u32, ..process.header };
    let Some(mut room) = reserve::<ForkRecord>(Share::FORK) else { return lost(Loss::ProcessRecord) };
    room.write(ForkRecord {
        process: ProcessRecord { header, ..process },
        forker_start_ns: forker.map_or(0, |forker| forker.start_ns),
        forker: forker.map_or(0, |forker| forker.pid),
        verdict: verdict as u32,
    });
    submit(room);
}

#[inline(always)]
pub fn tell_record(record: ProcessRecord, share: Share) {
    match reserve::<ProcessRecord>(share) {
        Some(mut room) => {
            room.write(record);
            submit(room);
        }
        None => lost(Loss::ProcessRecord),
    }
}

/// Tells of the current process with its arguments, and with the path at address `path` unless that is 0. Whether
/// there was room.
#[inline(always)]
pub fn tell_image(task: usize, identity: Identity, kind: ProcessKind, path: usize) -> bool {
    let Some(record) = describe(task, identity, kind) else {
        lost(Loss::TaskUnread);
        return false;
    };
    let (start, end) = arguments(task).unwrap_or((0, 0));
    let total = (end.saturating_sub(start)).min(u32::MAX as usize) as u32;
    let record = ProcessRecord { arguments_total: total, ..record };
    let share = if kind as u32 == ProcessKind::Sight as u32 { Share::SIGHT } else { Share::EXEC };
    if total <= 256 {
        tell_sized::<256>(record, start, path, share)
    } else if total <= 1024 {
        tell_sized::<1024>(record, start, path, share)
    } else {
        tell_sized::<4096>(record, start, path, share)
    }
}

fn arguments(task: usize) -> Option<(usize, usize)> {
    let mm: usize = read(task, Offset::TaskMm)?;
    if mm == 0 {
        return None;
    }
    Some((read(mm, Offset::MmArgStart)?, read(mm, Offset::MmArgEnd)?))
}

#[inline(always)]
fn tell_sized<const N: usize>(record: ProcessRecord, start: usize, path: usize, share: Share) -> bool {
    let Some(mut room) = reserve::<ImageRecord<N>>(share) else {
        lost(Loss::ProcessRecord);
        return false;
    };
    let image = room.as_mut_ptr();
    let total = record.arguments_total;
    // The mask is for verifiers before 6.4, which lose what the comparison says; the volatile read is for the compiler,
    // which would leave it out.
    // SAFETY: it is a number on the stack.
    let masked = unsafe { core::ptr::read_volatile(&raw const total) } & (N as u32 - 1);
    // SAFETY: `image` points to room for the record; each place is written before it is submitted, except for what is
    // behind the arguments, which user space does not look at. The helper writes at most `N` bytes.
    unsafe {
        (*image).process = record;
        (*image).process.header.size = size_of::<ImageRecord<N>>() as u32;
        (*image).path[0] = 0;
        let room = (&raw mut (*image).arguments).cast();
        let (read, length) = if total >= N as u32 {
            (bpf_probe_read_user(room, N as u32, start as *const _), N as u32)
        } else {
            (bpf_probe_read_user(room, masked, start as *const _), masked)
        };
        (*image).process.arguments = if read == 0 { length } else { 0 };
        if path != 0 {
            let room: &mut [u8; PATH] = &mut (*image).path;
            // A path that fills all its room may be cut: then none is better.
            if bpf_probe_read_kernel_str_bytes(path as *const u8, room)
                .map_or(true, |path| path.len() + 1 >= PATH)
            {
                room[0] = 0;
            }
        }
    }
    submit(room);
    true
}
