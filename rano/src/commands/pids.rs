//! `--pid`: whether it can be watched.

use std::path::Path;

use anyhow::Result;

use crate::exit::{Code, Failure};
use crate::process::ProcessId;
use crate::source::proc::PROC;
use crate::source::proc::processes::ProcessScanner;

pub(super) fn check_pids(pids: &[u32]) -> Result<()> {
    let processes = ProcessScanner::new(Path::new(PROC))?;
    let own_line = processes.self_and_ancestors();
    pids.iter().try_for_each(|&pid| check_pid(pid, &processes, &own_line))
}

fn check_pid(pid: u32, processes: &ProcessScanner, own_line: &[ProcessId]) -> Result<()> {
    let list = "list processes with `ps -eo pid,comm,args`";
    let refused = |why: &str| Failure::new(Code::Usage, format!("--pid {pid}: {why}")).hint(list);
    if pid == std::process::id() {
        return Err(refused("that is rano itself, which it never watches").into());
    }
    if own_line.iter().any(|ancestor| ancestor.pid == pid) {
        return Err(refused("rano was started from it, and never watches what it was started from").into());
    }
    if processes.identify(pid).is_none() {
        return Err(refused("no such process").into());
    }
    Ok(())
}
