//! How often the kernel skipped a program: `recursion_misses` of `struct bpf_prog_info` (from Linux 5.12 on), because another of
//! its kind ran on that CPU. What neither tells (kretprobes out of slots before 6.7) shows only in what is missing.

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// include/uapi/linux/bpf.h
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// Offset of `recursion_misses` in `struct bpf_prog_info`.
const MISSES: usize = 208;

/// `info` of `union bpf_attr`.
#[repr(C)]
struct Question {
    fd: u32,
    length: u32,
    answer: u64,
}

/// `None`: the kernel does not say.
pub(super) fn of(program: BorrowedFd<'_>) -> Option<u64> {
    let mut answer = [0_u64; MISSES / 8 + 1];
    let mut question = Question {
        fd: u32::try_from(program.as_raw_fd()).ok()?,
        length: u32::try_from(size_of_val(&answer)).ok()?,
        answer: answer.as_mut_ptr() as u64,
    };
    // SAFETY: the question names `answer` and its length, which outlive the call; the kernel writes no more than that. What
    // is zero in it asks for nothing else.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut question, size_of::<Question>()) };
    // An older kernel fills in less, and says how much.
    (outcome == 0 && question.length as usize >= MISSES + 8).then(|| answer[MISSES / 8])
}
