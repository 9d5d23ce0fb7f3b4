//! `/proc/<pid>/stat`, as far as polling needs it (`proc_pid_stat(5)`).

use std::hash::Hasher as _;

use rustc_hash::FxHasher;

use super::threads::Life;

/// One line of it, still in the buffer it was read into.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Stat<'a> {
    /// May hold anything but NUL, `) (` and newlines included.
    pub(in super::super) comm: &'a [u8],
    state: u8,
    pub(in super::super) parent: u32,
    /// Pid of the leader; 0 where that is outside of this pid namespace, and of what no setsid(2) came before: kernel
    /// threads, and below an init that never called it every process.
    pub(super) session: u32,
    pub(super) is_kernel_thread: bool,
    threads: u32,
    /// Clock ticks after boot.
    pub(in super::super) start_time: u64,
    exit_signal: &'a [u8],
    /// Of where the program lies.
    addresses: u64,
    /// Differs after an exec or a rename. Where the addresses are hidden for lack of permission (they read 0), it
    /// tells renames only.
    pub(super) signature: u64,
    /// Differs after an exec, not after a rename. `None` where the addresses are hidden.
    pub(in super::super) program: Option<u64>,
}

/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Where an exec shows: code, stack, arguments and environment lie elsewhere.
const ADDRESSES: [usize; 7] = [26, 27, 28, 48, 49, 50, 51];

impl<'a> Stat<'a> {
    /// `None` for what is no such line.
    pub(in super::super) fn parse(line: &'a [u8]) -> Option<Self> {
        let open = line.iter().position(|&b| b == b'(')?;
        let close = line.iter().rposition(|&b| b == b')').filter(|&close| close > open)?;
        let comm = &line[open + 1..close];
        let mut program = FxHasher::default();
        let mut hidden = true;
        let mut stat = Self {
            comm,
            state: 0,
            parent: 0,
            session: 0,
            is_kernel_thread: false,
            threads: 0,
            start_time: 0,
            exit_signal: b"",
            addresses: 0,
            signature: 0,
            program: None,
        };
        let fields = line.get(close + 2..)?.trim_ascii_end().split(|&b| b == b' ');
        let mut started = false;
        for (number, field) in (3..).zip(fields) {
            match number {
                3 => stat.state = *field.first()?,
                4 => stat.parent = self::number(field)?,
                // Never missing, but nothing depends on it.
                6 => stat.session = self::number(field).unwrap_or(0),
                9 => stat.is_kernel_thread = self::number(field).unwrap_or(0) & KERNEL_THREAD != 0,
                20 => stat.threads = self::number(field)?,
                22 => {
                    stat.start_time = self::number(field)?;
                    started = true;
                }
                38 => stat.exit_signal = field,
                _ if ADDRESSES.contains(&number) => {
                    hidden &= matches!(field, b"0" | b"1");
                    program.write(field);
                }
                _ => {}
            }
        }
        stat.addresses = program.finish();
        stat.program = (!hidden).then_some(stat.addresses);
        stat.sign();
        started.then_some(stat)
    }

    fn sign(&mut self) {
        let mut signature = FxHasher::default();
        signature.write_u64(self.addresses);
        signature.write(self.comm);
        self.signature = signature.finish();
    }

    /// The same under this name, as another thread has it.
    pub(super) fn with_addresses_of(mut self, thread: &Stat<'_>) -> Self {
        self.addresses = thread.addresses;
        self.program = thread.program;
        self.sign();
        self
    }

    pub(super) fn life(&self) -> Life {
        Life { is_headless: self.is_ended() && self.threads > 1, threads: self.threads }
    }

    /// The thread that the line is about has ended; others of its process need not have.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Every thread of it ended, so that it has no descriptors any more; only its parent did not notice yet.
    pub(super) fn is_dead(&self) -> bool {
        self.is_ended() && self.threads <= 1
    }

    /// `/proc/<tid>` can be opened although it is not listed. Only threads other than the leader have the exit
    /// signal -1 (kernel/fork.c).
    pub(super) fn is_thread(&self) -> bool {
        self.exit_signal == b"-1"
    }
}

/// Digits only; `None` where there are others or too many.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(comm: &str, state: &str, stack: u32) -> String {
        let mut fields: Vec<String> = (3..=52).map(|number: u32| number.to_string()).collect();
        fields[0] = state.to_owned();
        fields[28 - 3] = stack.to_string();
        fields[38 - 3] = "17".to_owned();
        format!("1234 ({comm}) {}\n", fields.join(" "))
    }

    #[test]
    fn names_may_look_like_the_rest_of_the_line() {
        for comm in ["claude", "a) R (b", ") S 1 2 3", "new\nline", "", "(("] {
            let line = line(comm, "S", 7);
            let stat = Stat::parse(line.as_bytes()).expect(comm);
            assert_eq!((stat.comm, stat.parent, stat.start_time), (comm.as_bytes(), 4, 22));
            assert_eq!(stat.session, 6);
            assert!(!stat.is_thread() && !stat.is_kernel_thread);
        }
    }

    #[test]
    fn an_exec_and_a_rename_change_the_signature() {
        let lines = [line("a", "S", 7), line("a", "R", 7), line("a", "S", 8), line("b", "S", 7)];
        let parsed = lines.each_ref().map(|line| Stat::parse(line.as_bytes()).expect("valid"));
        assert_eq!(parsed[0].signature, parsed[1].signature, "the state is no part of it");
        assert_ne!(parsed[0].signature, parsed[2].signature);
        assert_ne!(parsed[0].signature, parsed[3].signature);
        assert_ne!(parsed[0].program, parsed[2].program);
        assert_eq!(parsed[0].program, parsed[3].program, "a rename is no exec");
        // Of others' processes an ordinary user sees 0, and 1 for the code (fs/proc/array.c).
        let fields = [26, 27, 28, 48, 49, 50, 51];
        let hidden = line("a", "S", 7).split(' ').enumerate().fold(String::new(), |line, (at, field)| {
            let field = if fields.contains(&(at + 1)) { if at < 27 { "1" } else { "0" } } else { field };
            if line.is_empty() { field.to_owned() } else { format!("{line} {field}") }
        });
        assert_eq!(Stat::parse(hidden.as_bytes()).expect("valid").program, None);
    }

    #[test]
    fn a_zombie_is_dead_once_its_other_threads_are() {
        let alone = line("a", "Z", 7).replace(" 20 ", " 1 ");
        assert!(Stat::parse(alone.as_bytes()).expect("valid").is_dead());
        let headless = line("a", "Z", 7);
        let headless = Stat::parse(headless.as_bytes()).expect("valid");
        assert!(!headless.is_dead() && headless.life().is_headless);
        let thread = line("worker", "S", 9);
        let completed = headless.with_addresses_of(&Stat::parse(thread.as_bytes()).expect("valid"));
        let before = line("a", "S", 9);
        assert_eq!(completed.signature, Stat::parse(before.as_bytes()).expect("valid").signature);
    }

    #[test]
    fn any_bytes_are_accepted_or_refused() {
        let whole = line("x) (y", "S", 7);
        for end in 0..whole.len() {
            let _ = Stat::parse(&whole.as_bytes()[..end]);
        }
        for bad in ["", "(", ")", ")(", "1 (x", "1 (x)", "1 (x) ", "1 (x) S", "1 (x) S -1 3 4", "\u{ff}"] {
            assert_eq!(Stat::parse(bad.as_bytes()), None, "{bad}");
        }
        let kernel_thread = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0";
        assert_eq!(Stat::parse(kernel_thread.as_bytes()).expect("valid").start_time, 5);
    }
}
