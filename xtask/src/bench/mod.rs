//! Measurements of rano beside a peer in the same run. Each happens in a world of its own: network, process and
//! mount namespaces that hold only what the measurement put there and end with it.

pub(crate) mod load;
mod measure;
mod memory;
mod notify;
mod poll;
mod startup;
mod table;
pub(crate) mod world;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo;
use table::Table;

/// Name, and what fills its table inside the world; `None`: it needs no world.
type Bench = (&'static str, Option<fn(&Path) -> Result<Table>>);

const BENCHES: [Bench; 6] = [
    ("poll", Some(poll::measure)),
    ("notify", Some(notify::measure)),
    ("store", None),
    ("memory", Some(memory::measure)),
    ("startup", Some(startup::measure)),
    ("alerts", None),
];

pub(crate) fn run(names: &[OsString]) -> Result<ExitCode> {
    if let Some(unknown) = names.iter().find(|name| !BENCHES.iter().any(|(known, _)| name == known)) {
        eprintln!("error: no bench '{}': poll notify store memory startup alerts", unknown.display());
        return Ok(ExitCode::from(2));
    }
    let rano = cargo::build_rano()?;
    println!("{}", measure::machine()?);
    let mut failed = 0;
    let mut run = 0;
    for (name, inside) in BENCHES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        run += 1;
        println!("\n`cargo xtask bench {name}`\n");
        let ended = match inside {
            Some(_) => world::enter(name, &rano),
            None => cargo::bench(name),
        };
        match ended {
            Ok(ExitCode::SUCCESS) => {}
            Ok(_) => failed += 1,
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                failed += 1;
            }
        }
    }
    println!("\n{run} benches, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Called inside the world.
fn measure_one(name: &str, rano: &Path) -> Result<()> {
    let measured = BENCHES.iter().find(|(known, _)| *known == name).and_then(|(_, inside)| *inside);
    let Some(measured) = measured else { anyhow::bail!("no bench '{name}' has a world") };
    measured(rano)?.print();
    Ok(())
}
