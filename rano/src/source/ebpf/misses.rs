//! How often the kernel skipped a program. `recursion_misses` of `struct bpf_prog_info`: another of its kind ran on
//! that CPU (trampolines from Linux 5.12 on, raw tracepoints from 6.2, which is when these began to be skipped; probes
//! from 6.7). `missed` of the link of a probe, from 6.7 on: it was hit within another probe, or a kretprobe had no slot
//! left. What older kernels skip of probes they do not tell.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// include/uapi/linux/bpf.h
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// Offset of `recursion_misses` in `struct bpf_prog_info`.
const MISSES: usize = 208;
/// Words of `struct bpf_link_info`: the first half of the first is the type, of the third that of the event.
const LINK_TYPE: usize = 0;
const EVENT_TYPE: usize = 2;
/// `perf_event.kprobe.missed`
const LINK_MISSED: usize = 6;
const LINK_WORDS: usize = 8;
/// `BPF_LINK_TYPE_PERF_EVENT`
const OF_EVENT: u64 = 7;
/// `BPF_PERF_EVENT_KPROBE`, `BPF_PERF_EVENT_KRETPROBE`
const OF_PROBE: [u64; 2] = [3, 4];

/// `info` of `union bpf_attr`.
#[repr(C)]
struct Question {
    fd: u32,
    length: u32,
    answer: u64,
}

/// What the kernel says of a program or a link, and how many bytes that is. What is zero in the question asks for
/// nothing else.
fn ask<const WORDS: usize>(about: BorrowedFd<'_>) -> Option<([u64; WORDS], usize)> {
    let mut answer = [0_u64; WORDS];
    let mut question = Question {
        fd: u32::try_from(about.as_raw_fd()).ok()?,
        length: u32::try_from(size_of_val(&answer)).ok()?,
        answer: answer.as_mut_ptr() as u64,
    };
    // SAFETY: the question names `answer` and its length, which outlive the call; the kernel writes no more than that.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut question, size_of::<Question>()) };
    (outcome == 0).then_some((answer, question.length as usize))
}

/// `None`: the kernel does not say.
pub(super) fn of(program: BorrowedFd<'_>) -> Option<u64> {
    // An older kernel fills in less, and says how much.
    let (answer, length) = ask::<{ MISSES / 8 + 1 }>(program)?;
    (length >= MISSES + 8).then(|| answer[MISSES / 8])
}

/// The same of the link of a probe; also `None` where it is another one's.
pub(super) fn of_probe(link: BorrowedFd<'_>) -> Option<u64> {
    let (answer, length) = ask::<LINK_WORDS>(link)?;
    let half = |word: usize| answer[word] & u64::from(u32::MAX);
    let is_probe = half(LINK_TYPE) == OF_EVENT && OF_PROBE.contains(&half(EVENT_TYPE));
    (is_probe && length >= (LINK_MISSED + 1) * 8).then(|| answer[LINK_MISSED])
}

/// This process's links of probes, again: the library that made them does not give them out. They keep the programs
/// attached as long as they are held.
pub(super) fn probes() -> Vec<OwnedFd> {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let links = open.flatten().filter(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|what| what.as_os_str() == "anon_inode:bpf_link")
    });
    let numbers = links.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|number| {
            // SAFETY: it was open a moment ago, and whatever it is by now, it is only asked about and duplicated.
            let link = unsafe { BorrowedFd::borrow_raw(number) };
            of_probe(link)?;
            rustix::io::fcntl_dupfd_cloexec(link.as_fd(), 0).ok()
        })
        .collect()
}
