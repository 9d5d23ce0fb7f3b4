//! Measurements of rano beside a peer in the same run. Each happens in a world of its own: network, process and
//! mount namespaces that hold only what the measurement put there and end with it.

mod catch;
pub(crate) mod hooks;
pub(crate) mod load;
mod measure;
mod memory;
mod names;
mod notify;
mod poll;
mod report;
mod resolver;
pub(crate) mod run;
mod startup;
mod table;
pub(crate) mod world;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cargo;
use table::Table;

/// Where a measurement happens, and what fills its table.
#[derive(Clone, Copy)]
enum Bench {
    InWorld(fn(&Path) -> Result<Table>),
    Here(fn(&Path) -> Result<Table>),
    /// It is one of rano's own benches, of the same name.
    OfRano,
}

const BENCHES: [(&str, Bench); 12] = [
    ("poll", Bench::InWorld(poll::measure)),
    ("catch", Bench::Here(catch::measure)),
    ("notify", Bench::InWorld(notify::measure)),
    ("hooks", Bench::InWorld(hooks::measure)),
    ("store", Bench::OfRano),
    ("report", Bench::Here(report::measure)),
    ("memory", Bench::InWorld(memory::measure)),
    ("startup", Bench::InWorld(startup::measure)),
    ("alerts", Bench::OfRano),
    ("names", Bench::Here(names::measure)),
    ("resolver", Bench::InWorld(resolver::measure)),
    ("run", Bench::InWorld(run::measure)),
];

/// Makes a database to try things on; not a measurement.
const DATABASE: &str = "db";

/// Arguments whose `--out` means what it says here: cargo runs a bench in its package's directory.
fn from_here(arguments: &[OsString]) -> Result<Vec<OsString>> {
    let mut changed = arguments.to_vec();
    if let Some(at) = changed.iter().position(|argument| argument == "--out")
        && let Some(path) = changed.get_mut(at + 1)
    {
        *path = std::path::absolute(&*path).context("find the file of --out")?.into();
    }
    Ok(changed)
}

pub(crate) fn run(names: &[OsString]) -> Result<ExitCode> {
    if let Some((first, arguments)) = names.split_first()
        && first == DATABASE
    {
        return cargo::bench("database", from_here(arguments)?);
    }
    if let Some(unknown) = names.iter().find(|name| !BENCHES.iter().any(|(known, _)| name == known)) {
        eprintln!(
            "error: no bench '{}': poll catch notify hooks store report memory startup alerts names resolver run",
            unknown.display()
        );
        return Ok(ExitCode::from(2));
    }
    let rano = cargo::build_rano(cargo::DIST)?;
    println!("{}", measure::machine()?);
    let mut failed = 0;
    let mut run = 0;
    for (name, bench) in BENCHES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        run += 1;
        println!("\n`cargo xtask bench {name}`\n");
        let ended = match bench {
            Bench::InWorld(_) => world::enter(name, &rano),
            Bench::Here(measure) => measure(&rano).map(|table| {
                table.print();
                ExitCode::SUCCESS
            }),
            Bench::OfRano => cargo::bench(name, []),
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
    let bench = BENCHES.iter().find(|(known, _)| *known == name);
    let Some((_, Bench::InWorld(measure))) = bench else { anyhow::bail!("no bench '{name}' has a world") };
    measure(rano)?.print();
    Ok(())
}
