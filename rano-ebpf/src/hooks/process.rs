//! Processes: raw tracepoints of the scheduler and of exec, from Linux 4.17 on. They skip a firing that comes while
//! another program of the kind runs on the same CPU; a process that was missed is told of when it opens a socket.

use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use rano_common::{Loss, Offset, ProcessKind, Verdict};

use crate::emit::Share;
use crate::maps::lost;
use crate::task::{Identity, describe, forget_verdict, read, tell, tell_fork, tell_image, tell_record};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, in the context of the thread that
/// forks.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let (parent, child): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let child = child as usize;
    let (pid, tgid): (Option<u32>, Option<u32>) =
        (read(child, Offset::TaskPid), read(child, Offset::TaskTgid));
    if pid != tgid {
        return 0;
    }
    let Some(identity) = Identity::of(child) else {
        lost(Loss::TaskUnread);
        return 0;
    };
    if identity.is_outside() {
        return 0;
    }
    // Whoever calls: with CLONE_PARENT it is not the parent.
    let forker = Identity::of(parent as usize);
    if forker.is_none() {
        lost(Loss::TaskUnread);
    }
    // What enters the namespace from outside is nobody's yet.
    let forker = forker.filter(|forker| !forker.is_outside());
    let verdict = forker.and_then(|forker| forker.verdict()).unwrap_or(Verdict::Undecided);
    identity.judge_as_fork(verdict, forker.map_or(0, |forker| forker.pid));
    tell_fork(child, identity, forker, verdict);
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let (task, binary): (u64, u64) = (ctx.arg(0), ctx.arg(2));
    let Some(identity) = Identity::of(task as usize) else {
        lost(Loss::TaskUnread);
        return 0;
    };
    if identity.is_outside() {
        return 0;
    }
    identity.mark();
    // Of a script this is the interpreter, as in /proc/<pid>/exe.
    let path: usize = read(binary as usize, Offset::BprmInterp).unwrap_or(0);
    let _ = tell_image(task as usize, identity, ProcessKind::Exec, path);
    0
}

/// `sched_process_exit(struct task_struct *p)`; from 6.16 on a second argument says what is looked up here.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let signal: usize = read(task as usize, Offset::TaskSignal).unwrap_or(0);
    let live: u32 = read(signal, Offset::SignalLive).unwrap_or(0);
    if live != 0 {
        return 0;
    }
    let Some(identity) = Identity::of(task as usize) else {
        lost(Loss::TaskUnread);
        return 0;
    };
    if identity.is_outside() {
        return 0;
    }
    forget_verdict(identity.pid);
    tell(task as usize, identity, ProcessKind::Exit);
    0
}

/// `task_rename(struct task_struct *task, const char *comm)`, before the name is changed. An exec renames too.
#[raw_tracepoint(tracepoint = "task_rename")]
pub fn process_rename(ctx: RawTracePointContext) -> i32 {
    let (task, name): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let task = task as usize;
    let leader: usize = read(task, Offset::TaskLeader).unwrap_or(0);
    if leader != task {
        return 0;
    }
    let Some(identity) = Identity::of(task) else {
        lost(Loss::TaskUnread);
        return 0;
    };
    if identity.is_outside() {
        return 0;
    }
    let Some(mut record) = describe(task, identity, ProcessKind::Rename) else { return 0 };
    record.comm = [0; 16];
    // SAFETY: the helper checks the address and ends the name with a NUL.
    if unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut record.comm) }.is_err() {
        return 0;
    }
    if read(task, Offset::TaskComm) == Some(record.comm) {
        return 0;
    }
    // Undecided again: it may be an agent by its new name. Whoever is tracked or left out stays so under any name.
    if let Some(Verdict::Ignored | Verdict::Asked) = identity.verdict() {
        identity.judge(Verdict::Undecided);
    }
    tell_record(record, Share::RENAME);
    0
}
