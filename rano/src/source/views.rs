//! The namespaces in which rano itself is: what lies outside of them is not seen, or has other numbers. Asked in one
//! place, once.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;

use super::proc::PROC;

/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pid,
    Cgroup,
    User,
    Net,
    Time,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Pid, Self::Cgroup, Self::User, Self::Net, Self::Time];

    /// As in `/proc/<pid>/ns`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Net => "net",
            Self::Time => "time",
        }
    }

    /// Inode of the first one (`enum init_ns_ino` in include/uapi/linux/nsfs.h). That of the first network namespace is
    /// fixed from Linux 6.18 on.
    pub const fn first(self) -> u64 {
        match self {
            Self::Pid => 0xEFFF_FFFC,
            Self::Cgroup => 0xEFFF_FFFB,
            Self::User => 0xEFFF_FFFD,
            Self::Net => 0xEFFF_FFF9,
            Self::Time => 0xEFFF_FFFA,
        }
    }
}

/// A namespace of rano's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub kind: Kind,
    /// `None` where the kernel has no such namespaces, or does not say.
    pub inode: Option<u64>,
    /// `None` where that is not known.
    pub is_first: Option<bool>,
}

/// All that is known of rano's own view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Views {
    /// In the order of [`Kind::ALL`].
    pub all: [View; Kind::ALL.len()],
    /// `CLOCK_BOOTTIME` here is so much ahead of the first time namespace's, in which the kernel programs live.
    pub boot_offset_ns: i64,
}

/// Asks once; a process that moves later on is not to be.
pub fn own() -> &'static Views {
    static VIEWS: OnceLock<Views> = OnceLock::new();
    VIEWS.get_or_init(|| Views::ask(Path::new(PROC)))
}

/// A time of the kernel's own boot clock, as this process has it.
pub fn here(boot_ns: u64) -> u64 {
    boot_ns.saturating_add_signed(own().boot_offset_ns)
}

/// The reverse of [`here`].
pub fn in_kernel(boot_ns: u64) -> u64 {
    boot_ns.saturating_add_signed(own().boot_offset_ns.saturating_neg())
}

impl Views {
    fn ask(proc: &Path) -> Self {
        let inode = |process: &str, kind: Kind| {
            fs::metadata(proc.join(process).join("ns").join(kind.name())).ok().map(|found| found.ino())
        };
        let view = |kind: Kind| {
            let inode = match kind {
                // The numbers are those of the namespace that /proc shows, to which everything is compared.
                Kind::Pid => pid_namespace(proc),
                Kind::Cgroup | Kind::User | Kind::Net | Kind::Time => inode("self", kind),
            };
            View { kind, inode, is_first: inode.and_then(|inode| is_first(kind, inode)) }
        };
        let mut all = Kind::ALL.map(view);
        // Before Linux 6.18 the first network namespace has any number: that of the first process.
        let sees_all = all[Kind::Pid as usize].is_first == Some(true);
        let net = &mut all[Kind::Net as usize];
        if net.is_first.is_none() && sees_all {
            net.is_first = inode("1", Kind::Net).map(|first| net.inode == Some(first));
        }
        let time = all[Kind::Time as usize];
        let boot_offset_ns = if time.is_first == Some(false) {
            fs::read_to_string(proc.join("self/timens_offsets")).map_or(0, |text| boot_offset(&text))
        } else {
            0
        };
        Self { all, boot_offset_ns }
    }

    pub fn get(&self, kind: Kind) -> View {
        self.all[kind as usize]
    }

    /// Whether rano is in another namespace than the first of the kind, as far as is known.
    pub fn is_nested(&self, kind: Kind) -> bool {
        self.get(kind).is_first == Some(false)
    }

    /// Inode of the pid namespace whose numbers processes go by, if it is not the first, which numbers everybody.
    pub fn nested_pids(&self) -> Option<u32> {
        let view = self.get(Kind::Pid);
        if view.is_first == Some(true) { None } else { view.inode.and_then(|inode| inode.try_into().ok()) }
    }

    /// What no source sees from here, for people.
    pub fn outside(&self) -> Option<&'static str> {
        self.is_nested(Kind::Pid).then_some("processes outside of this pid namespace are not watched")
    }
}

fn is_first(kind: Kind, inode: u64) -> Option<bool> {
    match kind {
        Kind::Net => (inode == kind.first()).then_some(true),
        Kind::Pid | Kind::Cgroup | Kind::User | Kind::Time => Some(inode == kind.first()),
    }
}

/// The namespace whose processes /proc shows: that of its first process. Where that may not be asked it is rano's own,
/// unless /proc has several numbers for rano, and so belongs to a namespace outside.
fn pid_namespace(proc: &Path) -> Option<u64> {
    let link =
        |process: &str| fs::metadata(proc.join(process).join("ns/pid")).ok().map(|namespace| namespace.ino());
    let own = || {
        let status = fs::read_to_string(proc.join("self/status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        if numbers.split_whitespace().count() == 1 { link("self") } else { None }
    };
    link("1").or_else(own)
}

/// The line `boottime <seconds> <nanoseconds>` of `timens_offsets` (`time_namespaces(7)`).
fn boot_offset(text: &str) -> i64 {
    let offset = text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        // By name, and by number before Linux 5.7.
        if !matches!(fields.next(), Some("boottime" | "7")) {
            return None;
        }
        let (seconds, nanoseconds): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        seconds.checked_mul(SECOND_NS)?.checked_add(nanoseconds)
    });
    offset.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_the_boot_clock_is_read() {
        let check = |text, offset| assert_eq!(boot_offset(text), offset, "{text}");
        check("monotonic           0         0\nboottime            0         0\n", 0);
        check("monotonic  172800         0\nboottime   604800         5\n", 604_800 * SECOND_NS + 5);
        check("boottime  -1  500000000\n", -500_000_000);
        check("7  3  0\n", 3 * SECOND_NS);
        check("", 0);
        check("boottime 9223372036854775807 0\n", 0);
    }

    #[test]
    fn what_proc_says_of_this_process_is_taken_in() {
        let views = Views::ask(Path::new(PROC));
        for (view, kind) in views.all.iter().zip(Kind::ALL) {
            assert_eq!(view.kind, kind);
        }
        assert!(views.get(Kind::Pid).inode.is_some());
        assert_eq!(views.nested_pids().is_some(), views.get(Kind::Pid).is_first == Some(false));
    }

    #[test]
    fn a_first_network_namespace_of_an_older_kernel_may_have_any_number() {
        assert_eq!(is_first(Kind::Net, 4_026_531_992), None);
        assert_eq!(is_first(Kind::Net, Kind::Net.first()), Some(true));
        assert_eq!(is_first(Kind::Pid, 4_026_532_500), Some(false));
    }
}
