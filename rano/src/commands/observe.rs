//! `rano` without a command: observe until told to stop.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::Context;
use crate::config::Configuration;

pub fn run(_configuration: Configuration, _context: &Context) -> Result<ExitCode> {
    bail!("not built yet")
}
