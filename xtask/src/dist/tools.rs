//! The programs that a release is made with. Those that a registry has are fetched into `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::workspace;
use crate::system::find_in_path;

/// A C compiler and linker for every platform, with musl; and what makes cargo use it.
const ZIG: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];
const CARGO_DEB: &str = "3.8.0";
const CARGO_GENERATE_RPM: &str = "0.21.1";

pub(crate) struct Tools {
    /// `None`: the one that runs this, which has musl's standard library.
    pub compiler: Option<Compiler>,
    pub zigbuild: PathBuf,
    pub zig: PathBuf,
    pub cargo_deb: PathBuf,
    pub cargo_generate_rpm: PathBuf,
}

/// One that has the sources of its standard library, to be built for musl.
pub(crate) struct Compiler {
    pub rustc: PathBuf,
    pub cargo: PathBuf,
}

/// Kept from one run to the next.
pub(crate) fn directory() -> PathBuf {
    workspace().join("target/tools")
}

pub(crate) fn find() -> Result<Tools> {
    let zig = directory().join("zig");
    if !zig.join("ziglang/zig").exists() || !zig.join("bin/cargo-zigbuild").exists() {
        println!("fetching {}", ZIG.join(" "));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
        succeed(pip.arg("--root-user-action=ignore").arg("--target").arg(&zig).args(ZIG))?;
    }
    Ok(Tools {
        compiler: compiler()?,
        zigbuild: zig.join("bin/cargo-zigbuild"),
        zig: zig.join("ziglang/zig"),
        cargo_deb: cargo_tool("cargo-deb", CARGO_DEB)?,
        cargo_generate_rpm: cargo_tool("cargo-generate-rpm", CARGO_GENERATE_RPM)?,
    })
}

fn compiler() -> Result<Option<Compiler>> {
    let libraries = said(Command::new("rustc").args([
        "--print",
        "target-libdir",
        "--target",
        "x86_64-unknown-linux-musl",
    ]))?;
    if Path::new(&libraries).is_dir() {
        return Ok(None);
    }
    let named =
        |variable, usual: &str| PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| usual.into()));
    let (rustc, cargo) = (named("RUSTC_DIST", "/usr/bin/rustc"), named("CARGO_DIST", "/usr/bin/cargo"));
    let sources = Command::new(&rustc).args(["--print", "sysroot"]).output().ok();
    let sources = sources.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let has_sources =
        sources.is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir());
    if !has_sources || !cargo.is_file() {
        bail!(
            "the compiler has no standard library for musl\n\
             hint: rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl\n\
             or: sudo apt-get install rustc-web cargo-web rust-web-src (see xtask/src/dist/mod.rs)"
        );
    }
    Ok(Some(Compiler { rustc, cargo }))
}

/// Unoptimised: building it takes longer than its work.
fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = directory().join(name);
    let path = root.join("bin").join(name);
    if !path.exists() {
        println!("building {name} {version}");
        let mut install = Command::new("cargo");
        install.args(["install", name, "--version", version, "--locked", "--quiet", "--debug"]);
        install.args(["--config", "profile.dev.debug=false"]).arg("--root").arg(&root);
        let build = directory().join(format!("build-{name}"));
        succeed(install.arg("--target-dir").arg(&build))?;
        let _ = std::fs::remove_dir_all(&build);
    }
    Ok(path)
}

/// Runs it to a good end.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| match find_in_path(&name) {
        None => format!("run {name}, which is not installed"),
        Some(_) => format!("run {name}"),
    })?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

/// What it prints, without the last line's end.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)
        .with_context(|| format!("read what {name} prints"))?
        .trim_end()
        .to_owned())
}
