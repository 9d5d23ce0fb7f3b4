//! From start to end of the shortest runs, beside `ss -tn`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::load::Load;
use super::measure::{median_cost, milliseconds};
use super::table::Table;
use crate::system::find_in_path;

const RUNS: usize = 31;
const PROCESSES: usize = 50;

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["command", "wall", "CPU"]);
    let scratch = tempfile::tempdir()?;
    let mut load = Load::default();
    load.sleepers(PROCESSES)?;
    let ss = find_in_path("ss");
    if ss.is_none() {
        table.skip("ss: not installed");
    }
    let runs = [
        ("rano --version", Some(rano), &["--version"][..]),
        ("rano --once --no-sqlite", Some(rano), &["--once", "--no-sqlite", "--no-config"]),
        ("ss -tn", ss.as_deref(), &["-tn"]),
    ];
    for (name, program, arguments) in runs {
        let Some(program) = program else { continue };
        let cost = median_cost(RUNS, || {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(scratch.path());
            command
        })?;
        table.row(vec![name.into(), milliseconds(cost.wall), milliseconds(cost.cpu)]);
    }
    Ok(table)
}
