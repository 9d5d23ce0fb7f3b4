//! Which calls the supervisor is asked about, for each way in which a program can enter the kernel, and the filter in
//! classic BPF that picks them. A filter sees registers only: `sendto` counts if it has an address, `socketcall` by its
//! first argument, a message header not at all.

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, sock_filter};

/// A call that the supervisor is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Connect,
    SendTo,
    SendMessage,
    SendMessages,
    /// `io_uring_setup`: what a ring does is not seen.
    Ring,
    Exec,
    /// `execveat`
    ExecAt,
}

/// How a call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) call: Call,
    /// Pointers and sizes in memory have 64 bits.
    pub(super) is_wide: bool,
    /// The arguments lie in memory, where the second register points (`socketcall`).
    pub(super) is_indirect: bool,
}

/// One architecture as the kernel tells them apart (`AUDIT_ARCH_*`, include/uapi/linux/audit.h), with its numbers.
struct Abi {
    arch: u32,
    is_wide: bool,
    calls: &'static [(u32, Call)],
    /// Number of `socketcall`.
    socketcall: Option<u32>,
}

/// x32 calls have this bit in their number, and pointers of 32 bits.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const fn x32(number: u32) -> u32 {
    X32 | number
}

#[cfg(target_arch = "x86_64")]
const ABIS: [Abi; 2] = [
    Abi {
        arch: 0xc000_003e,
        is_wide: true,
        calls: &[
            (42, Call::Connect),
            (44, Call::SendTo),
            (46, Call::SendMessage),
            (307, Call::SendMessages),
            (425, Call::Ring),
            (59, Call::Exec),
            (322, Call::ExecAt),
            (x32(42), Call::Connect),
            (x32(44), Call::SendTo),
            (x32(518), Call::SendMessage),
            (x32(538), Call::SendMessages),
            (x32(425), Call::Ring),
            (x32(520), Call::Exec),
            (x32(545), Call::ExecAt),
        ],
        socketcall: None,
    },
    Abi {
        arch: 0x4000_0003,
        is_wide: false,
        calls: &[
            (362, Call::Connect),
            (369, Call::SendTo),
            (370, Call::SendMessage),
            (345, Call::SendMessages),
            (425, Call::Ring),
            (11, Call::Exec),
            (358, Call::ExecAt),
        ],
        socketcall: Some(102),
    },
];

#[cfg(target_arch = "aarch64")]
const ABIS: [Abi; 2] = [
    Abi {
        arch: 0xc000_00b7,
        is_wide: true,
        calls: &[
            (203, Call::Connect),
            (206, Call::SendTo),
            (211, Call::SendMessage),
            (269, Call::SendMessages),
            (425, Call::Ring),
            (221, Call::Exec),
            (281, Call::ExecAt),
        ],
        socketcall: None,
    },
    Abi {
        arch: 0x4000_0028,
        is_wide: false,
        calls: &[
            (283, Call::Connect),
            (290, Call::SendTo),
            (296, Call::SendMessage),
            (374, Call::SendMessages),
            (425, Call::Ring),
            (11, Call::Exec),
            (387, Call::ExecAt),
        ],
        socketcall: None,
    },
];

/// Elsewhere nobody knows the numbers: there is no filter.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ABIS: [Abi; 0] = [];

/// What `socketcall`'s first argument means (include/uapi/linux/net.h).
const SOCKETCALLS: [(u32, Call); 4] =
    [(3, Call::Connect), (11, Call::SendTo), (16, Call::SendMessage), (20, Call::SendMessages)];

/// What a notification is about. `first` is the first argument.
pub(super) fn entry(arch: u32, number: u32, first: u64) -> Option<Entry> {
    let abi = ABIS.iter().find(|abi| abi.arch == arch)?;
    if abi.socketcall == Some(number) {
        let (_, call) = SOCKETCALLS.into_iter().find(|(word, _)| u64::from(*word) == first)?;
        return Some(Entry { call, is_wide: false, is_indirect: true });
    }
    let (_, call) = abi.calls.iter().find(|(known, _)| *known == number)?;
    #[cfg(target_arch = "x86_64")]
    let is_wide = abi.is_wide && number & X32 == 0;
    #[cfg(not(target_arch = "x86_64"))]
    let is_wide = abi.is_wide;
    Some(Entry { call: *call, is_wide, is_indirect: false })
}

/// Offsets into `struct seccomp_data`. Both architectures are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// The program; empty where there is none for this architecture. `datagrams`: with the calls that send datagrams.
pub(super) fn program(datagrams: bool) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for abi in &ABIS {
        let block = block(abi, datagrams);
        let length = u8::try_from(block.len()).expect("a block has fewer than 256 instructions");
        program.push(load(ARCH));
        program.push(jump_unless(abi.arch, length));
        program.extend(block);
    }
    if !program.is_empty() {
        program.push(answer(SECCOMP_RET_ALLOW));
    }
    program
}

/// For one architecture; it always answers.
fn block(abi: &Abi, datagrams: bool) -> Vec<sock_filter> {
    let wanted = |call: Call| match call {
        // `sendto` with an address also connects (TCP Fast Open).
        Call::Connect | Call::SendTo | Call::Ring | Call::Exec | Call::ExecAt => true,
        Call::SendMessage | Call::SendMessages => datagrams,
    };
    let mut block = vec![load(NUMBER)];
    for &(number, call) in abi.calls.iter().filter(|(_, call)| wanted(*call)) {
        if call == Call::SendTo {
            block.push(jump_unless(number, 7));
            for half in [argument(4), argument(4) + 4] {
                block.push(load(half));
                block.push(jump_if(0, 1));
                block.push(answer(SECCOMP_RET_USER_NOTIF));
            }
            block.push(answer(SECCOMP_RET_ALLOW));
            continue;
        }
        block.push(jump_unless(number, 1));
        block.push(answer(SECCOMP_RET_USER_NOTIF));
    }
    if let Some(number) = abi.socketcall {
        let wanted = SOCKETCALLS.into_iter().filter(|(_, call)| wanted(*call));
        let inner: Vec<_> =
            wanted.flat_map(|(word, _)| [jump_unless(word, 1), answer(SECCOMP_RET_USER_NOTIF)]).collect();
        block.push(jump_unless(number, u8::try_from(inner.len() + 1).expect("a few instructions")));
        block.push(load(argument(0)));
        block.extend(inner);
    }
    block.push(answer(SECCOMP_RET_ALLOW));
    block
}

#[expect(clippy::cast_possible_truncation, reason = "the codes of classic BPF have 16 bits")]
const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Skips so many instructions unless the loaded word is `k`.
const fn jump_unless(k: u32, skipped: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skipped, k)
}

/// Skips so many instructions if the loaded word is `k`.
const fn jump_if(k: u32, skipped: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, 0, k)
}

const fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of the program (Documentation/networking/filter.rst), for its few instructions.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut words = vec![number, arch, 0, 0];
        let half = |word: u64| u32::try_from(word & 0xffff_ffff).expect("32 bits");
        words.extend(arguments.iter().flat_map(|&word| [half(word), half(word >> 32)]));
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) & 0x07 {
                libc::BPF_LD => loaded = words[k as usize / 4],
                libc::BPF_JMP => at += usize::from(if loaded == k { jt } else { jf }),
                _ => return k,
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_is_asked_about_is_what_is_understood() {
        const NATIVE: u32 = 0xc000_003e;
        const I386: u32 = 0x4000_0003;
        let (with, without) = (program(true), program(false));
        let asked = |program: &[sock_filter], arch, number, arguments| {
            run(program, arch, number, arguments) == SECCOMP_RET_USER_NOTIF
        };
        for abi in &ABIS {
            for &(number, call) in abi.calls {
                assert_eq!(entry(abi.arch, number, 0).map(|entry| entry.call), Some(call));
                let needs_address = call == Call::SendTo;
                assert_eq!(asked(&with, abi.arch, number, [0; 6]), !needs_address, "{number}");
                for address in [1, 1 << 40] {
                    assert!(asked(&with, abi.arch, number, [0, 0, 0, 0, address, 0]), "{number}");
                }
                let is_message = matches!(call, Call::SendMessage | Call::SendMessages);
                assert_eq!(asked(&without, abi.arch, number, [0, 0, 0, 0, 1, 0]), !is_message, "{number}");
            }
        }
        for number in [0, 1, 41, 43, 45, 47, 231, 60, 102] {
            assert!(!asked(&with, NATIVE, number, [3; 6]), "{number}");
        }
        for (word, call) in SOCKETCALLS {
            assert!(asked(&with, I386, 102, [word.into(), 0, 0, 0, 0, 0]));
            let entry = entry(I386, 102, word.into()).expect("it is known");
            assert!(entry.call == call && entry.is_indirect && !entry.is_wide);
        }
        assert!(!asked(&with, I386, 102, [2, 0, 0, 0, 0, 0]));
        assert!(!asked(&with, 0x1234, 42, [0; 6]));
    }
}
