//! `cargo xtask dist --test`: what was made, tried in bare roots as a user has it: installed from a server on this
//! machine, observing, updated, removed. As root; Debian's root is made by mmdebstrap.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::tools::{said, succeed};
use super::{Platform, Release, build, fresh, names};
use crate::digest::sha256;
use crate::system::find_in_path;

/// Later than any release; its program is a script that says so.
const NEWER: &str = "999.0.0";

/// Ends with this.
struct Server {
    python: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

pub(super) fn run(out: &Path, secret_key: &Path, platform: Platform, release: &Release) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the trial needs root, for chroot");
    let directory = fresh(&build::directory().join("trial"))?;
    let site = site(&directory, out, secret_key, platform, release)?;
    let server = serve(&site)?;
    let peer = TcpListener::bind("127.0.0.1:0").context("listen")?;
    for (name, root) in [("busybox", busybox(&directory)?), ("debian", debian(&directory)?)] {
        let Some(root) = root else {
            println!("trial in {name}: SKIPPED, what makes its root is not installed");
            continue;
        };
        latest(&site, &release.version)?;
        let trial = Trial { name, root, server: &server, release };
        trial.script(&peer, &site)?;
        if name == "debian" {
            trial.package(out, platform)?;
        }
    }
    Ok(())
}

/// This release and a newer one, as a server has them.
fn site(
    directory: &Path,
    out: &Path,
    secret_key: &Path,
    platform: Platform,
    release: &Release,
) -> Result<PathBuf> {
    let site = directory.join("site");
    let this = site.join(format!("download/v{}", release.version));
    fs::create_dir_all(&this)?;
    for name in names(out)? {
        fs::hard_link(out.join(&name), this.join(&name))
            .or_else(|_| fs::copy(out.join(&name), this.join(&name)).map(drop))?;
    }
    let newer = site.join(format!("download/v{NEWER}"));
    let stem = format!("rano-{NEWER}-{}-linux", platform.arch);
    fs::create_dir_all(directory.join(&stem))?;
    fs::create_dir_all(&newer)?;
    let program = directory.join(&stem).join("rano");
    fs::write(&program, format!("#!/bin/sh\necho rano {NEWER}\n"))?;
    succeed(Command::new("chmod").arg("755").arg(&program))?;
    let archive = newer.join(format!("{stem}.tar.gz"));
    succeed(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(directory).arg(&stem))?;
    let list = newer.join("SHA256SUMS");
    fs::write(&list, format!("{}  {stem}.tar.gz\n", sha256(&[archive])?))?;
    fs::copy(out.join("install.sh"), newer.join("install.sh"))?;
    super::signed(secret_key, &list, NEWER)?;
    Ok(site)
}

fn latest(site: &Path, version: &str) -> Result<()> {
    let link = site.join("latest/download");
    fs::create_dir_all(site.join("latest"))?;
    let _ = fs::remove_file(&link);
    symlink(format!("../download/v{version}"), &link).context("say which release is the latest")
}

fn serve(site: &Path) -> Result<Server> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "--directory"]).arg(site);
    let python = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start a server")?;
    let server = Server { python, url: format!("http://127.0.0.1:{port}") };
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(std::time::Instant::now() < end, "the server does not start");
        std::thread::yield_now();
    }
    Ok(server)
}

fn busybox(directory: &Path) -> Result<Option<PathBuf>> {
    let Some(busybox) = find_in_path("busybox") else { return Ok(None) };
    let root = directory.join("busybox");
    for folder in ["bin", "tmp", "proc", "root"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    succeed(Command::new("chroot").arg(&root).args(["/bin/busybox", "--install", "-s", "/bin"]))?;
    null_device(&root)?;
    Ok(Some(root))
}

/// The one that every script uses.
fn null_device(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("dev"))?;
    succeed(Command::new("mknod").args(["-m", "666"]).arg(root.join("dev/null")).args(["c", "1", "3"]))
}

/// Its archive is kept, because making it takes minutes.
fn debian(directory: &Path) -> Result<Option<PathBuf>> {
    let archive = super::tools::directory().join("bookworm.tar");
    if !archive.exists() {
        if find_in_path("mmdebstrap").is_none() {
            return Ok(None);
        }
        let unfinished = archive.with_extension("unfinished");
        let mut command = Command::new("mmdebstrap");
        command.args([
            "--quiet",
            "--variant=minbase",
            "--include=curl,ca-certificates",
            "--format=tar",
            "bookworm",
        ]);
        succeed(command.arg(&unfinished))?;
        fs::rename(&unfinished, &archive).context("keep Debian's root")?;
    }
    let root = directory.join("debian");
    fs::create_dir_all(&root)?;
    succeed(Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(&root).arg("--exclude=./dev/*"))?;
    null_device(&root)?;
    Ok(Some(root))
}

struct Trial<'a> {
    name: &'static str,
    root: PathBuf,
    server: &'a Server,
    release: &'a Release,
}

impl Trial<'_> {
    /// What `sh -c` prints in the root, with a /proc of its own view.
    fn sh(&self, line: &str) -> Result<String> {
        println!("{}$ {line}", self.name);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--root"]).arg(&self.root);
        command.args(["--mount-proc=/proc", "/bin/sh", "-c", line]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/root");
        command.env("RANO_UPDATE_URL", &self.server.url).stdin(Stdio::null());
        let output = command.output().context("run unshare")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        println!("{text}");
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "in {}: {line}: {} {}", self.name, output.status, errors.trim());
        Ok(text)
    }

    fn has(&self, line: &str, text: &str) -> Result<()> {
        let output = self.sh(line)?;
        ensure!(output.contains(text), "in {}: no '{text}' from: {line}", self.name);
        Ok(())
    }

    /// The line of docs/install.md and what comes after it.
    fn script(&self, peer: &TcpListener, site: &Path) -> Result<()> {
        let fetch = if self.name == "busybox" { "wget -qO-" } else { "curl -fsSL" };
        let installer = format!("{fetch} {}/latest/download/install.sh", self.server.url);
        let version = format!("rano {}", self.release.version);
        self.has(&format!("{installer} | sh -s -- --system 2>&1"), &format!("installed {version}"))?;
        self.has("rano --version", &version)?;
        let port = peer.local_addr()?.port();
        let connect = if self.name == "busybox" {
            format!("nc 127.0.0.1 {port} &")
        } else {
            format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; read -r line <&3' &")
        };
        // The one who listens says nothing, so the connection stays.
        let watch = format!(
            "{connect} pid=$!; n=0; until rano --once --json --pid $pid >/tmp/seen && grep -q ':{port}' /tmp/seen; do \
             n=$((n+1)); [ $n -lt 600 ] || exit 1; done; cat /tmp/seen; kill $pid"
        );
        self.has(&watch, &format!("127.0.0.1:{port}"))?;
        self.has("rano update --check", "up to date")?;
        latest(site, NEWER)?;
        self.has("rano update --check", &format!("rano {NEWER} is there"))?;
        self.has("rano update", &format!("rano {NEWER} replaces"))?;
        self.has("rano --version; rano.old --version", &format!("rano {NEWER}\n{version}"))?;
        self.has(&format!("{installer} | sh -s -- --system --uninstall"), "removed /usr/local/bin/rano")?;
        self.has(
            "command -v rano || find /usr/local -type f -name '*rano*' || echo none; echo gone",
            "gone",
        )?;
        ensure!(!self.root.join("usr/local/bin/rano").exists(), "rano is still there");
        Ok(())
    }

    fn package(&self, out: &Path, platform: Platform) -> Result<()> {
        let name = format!("rano_{}_{}.deb", self.release.version, platform.deb);
        fs::copy(out.join(&name), self.root.join("tmp").join(&name))?;
        let before = self.files()?;
        self.sh(&format!("dpkg --install /tmp/{name}"))?;
        self.has("rano --version", &format!("rano {}", self.release.version))?;
        self.has("rano update 2>&1 || echo code $?", "belongs to a package manager")?;
        self.sh("dpkg --purge rano")?;
        let after = self.files()?;
        let left: Vec<_> = after.lines().filter(|file| !before.lines().any(|known| known == *file)).collect();
        ensure!(left.is_empty(), "purging leaves {}", left.join(" "));
        Ok(())
    }

    fn files(&self) -> Result<String> {
        let mut command = Command::new("find");
        command.arg(&self.root).args(["-xdev", "-not", "-path", "*/var/*"]);
        said(&mut command)
    }
}
