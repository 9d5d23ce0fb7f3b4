//! Where to look for new processes. `/proc/loadavg` ends with the pid that was handed out last in the reader's pid
//! namespace (fs/proc/loadavg.c): while it stands still, nothing was forked, and /proc need not be listed.

use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use super::files::ProcFiles;
use super::stat::number;

/// One look in so many lists /proc whatever the gate says: a pid can be chosen (`clone3` with `set_tid`), the numbers
/// can come round to the same one, and a process can become visible later (`hidepid`, a change of user).
const LIST_EVERY: u32 = 10;

/// Where new processes can be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    Nowhere,
    /// Pids that were handed out lately; some belong to threads, some are gone.
    Among(RangeInclusive<u32>),
    /// Anywhere: list /proc.
    Everywhere,
}

#[derive(Debug)]
pub(super) struct NewPids {
    /// `None` where the gate does not hold.
    loadavg: Option<OwnedFd>,
    /// At the previous look.
    last: u32,
    /// At the look before that. A pid is handed out some time before its process can be seen, so each is looked for
    /// twice.
    before_last: u32,
    looks: u32,
}

impl NewPids {
    pub(super) fn new(files: &ProcFiles) -> Self {
        let loadavg = if sees_own_namespace(files) { files.open(c"loadavg").ok() } else { None };
        Self { loadavg, last: 0, before_last: 0, looks: 0 }
    }

    /// To be called once a scan. `known` is the number of processes known: what a listing would cost.
    pub(super) fn search(&mut self, known: usize) -> Search {
        let last = self.loadavg.as_ref().and_then(last_pid);
        match last {
            Some(last) => self.step(last, known),
            None => Search::Everywhere,
        }
    }

    fn step(&mut self, now: u32, known: usize) -> Search {
        let from = self.before_last;
        self.before_last = self.last;
        self.last = now;
        self.looks = self.looks.wrapping_add(1);
        // An open of a pid that does not exist costs 0.8 µs, a listed one 0.5 µs, a thread's stat 5 µs.
        let worth_trying = u32::try_from(32 + known / 8).unwrap_or(u32::MAX);
        if self.looks <= 2 || self.looks.is_multiple_of(LIST_EVERY) {
            Search::Everywhere
        } else if now == from && self.before_last == from {
            Search::Nowhere
        } else if now > from && now - from <= worth_trying {
            Search::Among(from + 1..=now)
        } else {
            Search::Everywhere
        }
    }
}

pub(super) fn last_pid(loadavg: &OwnedFd) -> Option<u32> {
    let mut buffer = [0; 128];
    let length = rustix::io::pread(loadavg, &mut buffer, 0).ok()?;
    let line = buffer.get(..length)?.trim_ascii();
    number(line.rsplit(|&b| b == b' ').next()?)
}

/// `/proc` may show an outer pid namespace, whose last pid is not ours: then `NSpid` of `self` has several numbers.
pub(super) fn sees_own_namespace(files: &ProcFiles) -> bool {
    let mut status = Vec::new();
    if files.read(c"self/status", 4096, &mut status).is_err() {
        return false;
    }
    let pids = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    pids.is_some_and(|pids| pids.trim_ascii().split(u8::is_ascii_whitespace).count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: &[u32], known: usize) -> Search {
        let mut gate = NewPids { loadavg: None, last: 0, before_last: 0, looks: 0 };
        looks.iter().map(|&now| gate.step(now, known)).last().expect("at least one look")
    }

    #[test]
    fn nothing_is_looked_for_while_no_pid_is_handed_out() {
        assert_eq!(after(&[50], 10), Search::Everywhere);
        assert_eq!(after(&[50, 50], 10), Search::Everywhere);
        assert_eq!(after(&[50, 50, 50], 10), Search::Nowhere);
        assert_eq!(after(&[50; 10], 10), Search::Everywhere, "now and then all the same");
    }

    #[test]
    fn pids_are_looked_for_twice() {
        assert_eq!(after(&[50, 50, 52], 10), Search::Among(51..=52));
        assert_eq!(after(&[50, 50, 52, 52], 10), Search::Among(51..=52));
        assert_eq!(after(&[50, 50, 52, 53], 10), Search::Among(51..=53));
        assert_eq!(after(&[50, 50, 52, 52, 52], 10), Search::Nowhere);
    }

    #[test]
    fn many_new_pids_and_wrapped_ones_are_listed() {
        assert_eq!(after(&[50, 50, 5000], 10), Search::Everywhere);
        assert_eq!(after(&[50, 50, 300], 10_000), Search::Among(51..=300));
        assert_eq!(after(&[32_000, 32_000, 310], 10), Search::Everywhere);
        assert_eq!(after(&[50, 50, 10, 50], 10), Search::Everywhere, "once round");
    }

    #[test]
    fn the_last_pid_moves_with_every_fork() {
        let files = ProcFiles::open_root("/proc".as_ref()).expect("/proc is mounted");
        let Some(loadavg) = NewPids::new(&files).loadavg else {
            return println!("/proc shows another pid namespace: not tried");
        };
        let before = last_pid(&loadavg).expect("a pid");
        let mut child = std::process::Command::new("true").spawn().expect("true is installed");
        let after = last_pid(&loadavg).expect("a pid");
        child.wait().expect("it ends");
        assert_ne!(before, after);
    }
}
