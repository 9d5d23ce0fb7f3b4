//! What the kernel programs cost on each kernel and rung, beside `tcplife`, in instructions: the emulator counts them,
//! and its time is that count. So the figures are the same whatever else the machine does, where the time of an
//! emulated processor means little.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::guest::Clock;
use super::image::Image;
use super::plan::Scenario;
use super::run_guest;
use crate::bench::hooks::COSTS;
use crate::cargo;
use crate::system::find_in_path;

const BENCH: &str = "/usr/bin/xtask";
const RANO: &str = "/usr/bin/rano";

pub(crate) fn measure(home: &Path, scenarios: &[Scenario<'_>]) -> Result<ExitCode> {
    let rano = cargo::build_rano(cargo::DIST)?;
    let mut image = Image::base()?;
    image.program(&std::env::current_exe().context("find this program")?, Path::new(BENCH))?;
    image.program(&rano, Path::new(RANO))?;
    if let Some(tcplife) = find_in_path("tcplife") {
        image.program(&tcplife, Path::new("/usr/bin/tcplife"))?;
    }
    let base = image.finish()?;
    let mut failed = 0;
    for scenario in scenarios {
        let Some(rung) = scenario.rung else { continue };
        let command = format!("{BENCH} {COSTS} {RANO} {rung}\n");
        let ended = run_guest(home, &base, scenario, &command, Clock::Instructions)?;
        println!(
            "\n{} ({}), {} s; 1 µs is a thousand instructions\n\n{}",
            scenario.name,
            scenario.kernel.release,
            ended.took.as_secs(),
            ended.output
        );
        if ended.status != Some(0) {
            println!("FAILED: status {:?}; its console:\n{}", ended.status, ended.console);
            failed += 1;
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
