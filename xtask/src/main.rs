//! What a developer or CI runs: `cargo xtask run|test|tidy|ebpf|vm|fuzz|bench|agents|dist|release`.

mod agents;
mod bench;
mod cargo;
mod digest;
mod dist;
mod ebpf;
mod fuzz;
mod release;
mod system;
mod tidy;
mod vm;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
usage: cargo xtask run [-- RANO'S ARGUMENTS]   install what the system lacks, build, observe
       cargo xtask test [-- CARGO TEST'S]      the same preparation, then every test
       cargo xtask tidy                        do the rooms of the code keep to their walls?
       cargo xtask ebpf [--check]       build the kernel programs that rano embeds; or: are they up to date?
       cargo xtask vm [--full] [--bench]       the kernel tests on other kernels, in emulated machines; or a bench
       cargo xtask fuzz [TARGET]... [--seconds N]
                                               feed what takes bytes from outside with nonsense (each 10 s)
       cargo xtask bench [NAME]...             measure: poll notify hooks store report memory startup alerts names resolver
                                               (all)
       cargo xtask bench db --events N --out FILE [--seed S]
                                               make a history of so many events
       cargo xtask agents [NAME]...     real agents in a closed network: whose is each row? (--help lists the options)
       cargo xtask dist [OPTIONS]       everything that a release has (--help lists the options)
       cargo xtask release X.Y.Z [--dry-run]   set the version and date the change log
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let task = arguments.next().unwrap_or_default();
    match run(task.to_str().unwrap_or_default(), arguments.collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str, arguments: Vec<OsString>) -> Result<ExitCode> {
    match task {
        "run" => {
            system::prepare()?;
            cargo::run(&without_separator(arguments))
        }
        "test" => {
            system::prepare()?;
            cargo::test(&without_separator(arguments))
        }
        "tidy" => tidy::run(&arguments),
        "ebpf" => ebpf::run(&arguments),
        "agents" => agents::run(&arguments),
        "dist" => dist::run(&arguments),
        "release" => release::run(&arguments),
        "vm" => vm::run(&arguments),
        "fuzz" => fuzz::run(&arguments),
        "bench" => bench::run(&arguments),
        // Roles that `bench` starts itself in.
        bench::world::OUTSIDE => bench::world::outside(&arguments),
        bench::world::INSIDE => bench::world::inside(&arguments),
        bench::load::HOLD => bench::load::hold(&arguments),
        bench::load::CONNECT => bench::load::connect(&arguments),
        bench::load::CONNECT_TO => bench::load::connect_to(),
        bench::run::CONNECT_OFTEN => bench::run::connect_often(&arguments[0].to_string_lossy()),
        bench::hooks::CLIENT => bench::hooks::be_client(&arguments),
        bench::hooks::COSTS => bench::hooks::measure_in_guest(&arguments),
        "" | "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        unknown => {
            eprint!("error: no task '{unknown}'\n{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// `cargo xtask run -- --json` and `cargo xtask run --json` are the same.
fn without_separator(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    arguments
}
