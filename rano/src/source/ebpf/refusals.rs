//! Why the kernel does not take a program, in few words.

use anyhow::Result;
use aya::programs::ProgramError;

/// Tries names until one works; the reason is that of the last.
pub(super) fn first(
    functions: &[&str],
    mut attach: impl FnMut(&str) -> Result<(), ProgramError>,
) -> Result<()> {
    let mut outcome = Ok(());
    for function in functions {
        outcome = attach(function).map_err(brief);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Whether the first thing that was asked of the kernel was refused for lack of privileges.
pub(super) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The reason without the verifier's log, of which only the last words matter to a reader.
pub(super) fn brief(error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let said = log.lines().rev().find(|line| !is_statistics(line)).unwrap_or_default().trim();
            match (said.is_empty(), errno(&io_error)) {
                (true, errno) => anyhow::anyhow!("refused: {errno}"),
                (false, errno) => anyhow::anyhow!("refused: {said} ({errno})"),
            }
        }
        ProgramError::SyscallError(error) => anyhow::anyhow!("{}", errno(&error.io_error)),
        // aya looks up how to open one.
        ProgramError::KProbeError(error)
            if error.to_string().contains("event_source/devices/kprobe/type") =>
        {
            anyhow::anyhow!("not in this kernel")
        }
        other => other.into(),
    }
}

fn errno(error: &std::io::Error) -> String {
    match error.raw_os_error().and_then(crate::errno::name) {
        Some(name) => name.to_owned(),
        None if error.kind() == std::io::ErrorKind::NotFound => "not in this kernel".to_owned(),
        None => error.to_string(),
    }
}

fn is_statistics(line: &str) -> bool {
    ["", "verification time", "stack depth", "processed"].iter().any(|begin| match *begin {
        "" => line.trim().is_empty(),
        begin => line.starts_with(begin),
    })
}
