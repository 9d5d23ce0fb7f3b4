//! What the loader tells the programs before they are loaded: the verifier takes these for constants and leaves out
//! what is switched off.

/// Name of the global that holds them, one word each. It carries [`ABI_VERSION`](crate::ABI_VERSION).
pub const SETTINGS_GLOBAL: &str = "RANO_SETTINGS_9";

/// Index of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Setting {
    /// 1: listeners and what they accept are told too.
    Listening,
    /// 1: without hooks of cgroups. A socket is then known by its address, because nothing gives it a cookie.
    Alone,
    /// 1: programs of every kind may have the current task with its type.
    TypedTask,
    /// 1: programs on `sock_ops` may have their socket with its type.
    TypedSocket,
    /// Sockets with [`flags::LIMITED`](crate::flags::LIMITED) that are followed at a time.
    LimitedMax,
    /// Inode of the pid namespace whose numbers processes go by; 0: the first one, which has a number for everybody.
    PidNamespace,
    /// 1: the programs on cgroups see a part of the machine, those on tracepoints all of it.
    Subtree,
}

/// How many there are.
pub const SETTING_COUNT: usize = 7;

const _: () = assert!(Setting::Subtree as usize + 1 == SETTING_COUNT);

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn the_global_carries_the_version() {
        assert_eq!(SETTINGS_GLOBAL, std::format!("RANO_SETTINGS_{}", crate::ABI_VERSION));
    }
}
