//! Resident memory while observing live connections, with the database on, as a user has it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::load::{self, Load};
use super::measure::{Observer, memory_kib};
use super::table::Table;

const CONNECTIONS: [usize; 2] = [10, 1_000];
/// With names as they are without being asked for, and without any.
const SOURCES: [(&str, &[&str]); 4] = [
    ("proc", &["--source", "proc"]),
    ("proc, no names", &["--source", "proc", "--no-dns"]),
    ("ebpf", &["--source", "ebpf"]),
    ("ebpf, no names", &["--source", "ebpf", "--domain-mode", "ptr", "--no-dns"]),
];

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["source", "live connections", "VmRSS", "VmHWM"]);
    let scratch = tempfile::tempdir()?;
    let server = load::keeping_server()?;
    for (source, arguments) in SOURCES {
        if source.starts_with("ebpf") && !rustix::process::geteuid().is_root() {
            table.skip(format!("{source}: needs root"));
            continue;
        }
        for connections in CONNECTIONS {
            let mut load = Load::default();
            load.agent(scratch.path(), server, connections)?;
            let arguments = [arguments, &["--interval-ms", "200"]].concat();
            let observer = Observer::start(rano, scratch.path(), &arguments)?;
            // Several flushes and several rounds through all processes.
            std::thread::sleep(Duration::from_secs(7));
            let cells = ["VmRSS", "VmHWM"].map(|key| memory_kib(observer.pid(), key));
            let mut row = vec![source.to_owned(), connections.to_string()];
            for kib in cells {
                row.push(format!("{}.{} MiB", kib.as_ref().map_or(0, |kib| kib / 1024), tenths(kib?)));
            }
            table.row(row);
        }
    }
    Ok(table)
}

fn tenths(kib: u64) -> u64 {
    kib % 1024 * 10 / 1024
}
