//! A kernel that is locked down for confidentiality lets no program read its memory (`kernel_lockdown(7)`), and calls
//! that a lack of privileges or an unknown function.

const STATE: &str = "/sys/kernel/security/lockdown";

/// What would help.
pub const FIX: &str = "boot without lockdown=confidentiality";

pub fn is_confidential() -> bool {
    // Where it cannot be read it is not known, and not said.
    std::fs::read_to_string(STATE).is_ok_and(|state| state.contains("[confidentiality]"))
}

/// `error` of attaching programs, with this reason where it is the reason.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    if is_confidential() {
        error.context("the kernel is locked down (lockdown=confidentiality)")
    } else {
        error
    }
}
