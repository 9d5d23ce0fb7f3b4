//! Checksums of files.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// SHA-256 of the files' contents one after another, in hexadecimal, by coreutils.
pub(crate) fn sha256(files: &[PathBuf]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start sha256sum")?;
    let mut input = child.stdin.take().context("standard input was piped")?;
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        input.write_all(&bytes).context("feed sha256sum")?;
    }
    drop(input);
    let output = child.wait_with_output().context("wait for sha256sum")?;
    let text = String::from_utf8(output.stdout).context("read sha256sum")?;
    text.split_whitespace().next().map(str::to_owned).context("sha256sum said nothing")
}
