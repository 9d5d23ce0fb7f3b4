//! Programs that a test makes and runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Set in a process that is to copy its first argument to its second.
const COPY: &str = "RANO_TEST_COPY";

/// Makes `to` a copy of the program `from` that anybody can run, at once.
///
/// While any process has a program open for writing, execve fails with ETXTBSY. Had this process ever written it, a
/// child that another test forks in that moment would hold the descriptor until its own exec, however soon it is closed
/// here. So a process without threads writes it, under another name, and has ended before the program has its own.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(from).arg(to).env(COPY, "1").stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().context("start a process that copies")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "copy {} to {}: {}", from.display(), to.display(), said.trim_end());
    Ok(())
}

/// The end of a process that is to copy.
pub fn copy_if_asked() -> Option<ExitCode> {
    std::env::var_os(COPY)?;
    let copied = match &*std::env::args_os().skip(1).collect::<Vec<_>>() {
        [from, to] => copy_here(Path::new(from), Path::new(to)),
        _ => Err(anyhow::anyhow!("two paths are needed")),
    };
    Some(match copied {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn copy_here(from: &Path, to: &Path) -> Result<()> {
    let unfinished = to.with_extension("unfinished");
    fs::copy(from, &unfinished)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(&unfinished, to)?)
}
