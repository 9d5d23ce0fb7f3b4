//! Giving up privileges. Capabilities belong to threads, so each thread gives up its own: what it is given stays,
//! everything else is gone for good, for programs that it might start too.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// To see whose processes they are, and what they have open, of other users too.
pub const OTHERS_PROCESSES: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// On some kernels a program that lacks it cannot even look into its own maps.
pub const OWN_MAPS: CapabilitySet = CapabilitySet::BPF;
/// What stands in for [`OWN_MAPS`] where it is held: to find out whether that is needed, do without both.
pub const INSTEAD_OF_OWN_MAPS: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// Leaves the calling thread at most `keep` of what it has. Best effort: where this is refused, there is nothing to
/// give up or a sandbox already sees to it.
pub fn keep_only(keep: CapabilitySet) {
    // Before the right to do so goes too.
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !keep.contains(one) && remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    let _ = clear_ambient_capability_set();
    let _ = set_no_new_privs(true);
    if let Ok(has) = capabilities(None) {
        let left = CapabilitySets {
            effective: has.effective & keep,
            permitted: has.permitted & keep,
            inheritable: CapabilitySet::empty(),
        };
        let _ = set_capabilities(None, left);
    }
}

/// Whether `works` without what is in `probed`, which stays out of use if so.
pub fn works_without(probed: CapabilitySet, works: impl FnOnce() -> bool) -> bool {
    let Ok(has) = capabilities(None) else { return works() };
    let _ = set_capabilities(None, CapabilitySets { effective: has.effective - probed, ..has });
    let worked = works();
    if !worked {
        let _ = set_capabilities(None, has);
    }
    worked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_what_it_is_given_and_the_others_keep_theirs() {
        let before = capabilities(None).expect("capget");
        let left = std::thread::spawn(|| {
            keep_only(OTHERS_PROCESSES);
            capabilities(None).expect("capget")
        });
        let left = left.join().expect("no panic");
        assert_eq!(left.effective, before.effective & OTHERS_PROCESSES);
        assert_eq!(left.permitted, before.permitted & OTHERS_PROCESSES);
        assert_eq!(capabilities(None).expect("capget"), before);
    }

    #[test]
    fn what_does_not_work_without_is_taken_back() {
        let check = |works: bool| {
            let held = std::thread::spawn(move || {
                let before = capabilities(None).expect("capget").effective;
                assert_eq!(works_without(CapabilitySet::SYS_PTRACE, || works), works);
                let after = capabilities(None).expect("capget").effective;
                let expected = if works { before - CapabilitySet::SYS_PTRACE } else { before };
                assert_eq!(after, expected);
            });
            held.join().expect("no panic");
        };
        check(true);
        check(false);
    }
}
