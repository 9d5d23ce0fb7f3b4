//! A server on this machine that plays the place where releases are, honestly or not; and a user who has a rano.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::namespace::is_root;
use super::stage;

/// The releases that `make.sh` there made.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/releases")
}

/// What the server says to one request.
pub enum Answer {
    Whole(Vec<u8>),
    /// Its head promises all of it, and half of it comes.
    Cut(Vec<u8>),
    Status(u16),
    Redirect(String),
    /// Until the client goes away.
    Silence,
}

impl Answer {
    /// The file of a release, or that there is none.
    pub fn file(path: &str) -> Self {
        fs::read(fixtures().join(path)).map_or(Self::Status(404), Self::Whole)
    }
}

/// An honest server's answer where `latest` is the latest release: `/latest/download/FILE` or `/download/vX.Y.Z/FILE`.
pub fn honest(latest: &str, path: &str) -> Answer {
    match path.strip_prefix("/latest/download/") {
        Some(file) => Answer::file(&format!("v{latest}/{file}")),
        None => Answer::file(path.trim_start_matches("/download/")),
    }
}

type Manners = dyn Fn(&str) -> Answer + Send + Sync;

/// A running server; ends when dropped.
pub struct Site {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    pub fn start(manners: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (asked, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let manners: Arc<Manners> = Arc::new(manners);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (manners, noted) = (Arc::clone(&manners), Arc::clone(&noted));
                // A client that goes away in the middle is what some tests are about.
                let _ = stream.map(|stream| std::thread::spawn(move || answer(stream, &*manners, &noted)));
            }
        });
        Ok(Self { url, asked, stop, thread: Some(thread) })
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks once somebody comes.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, manners: &Manners, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let (status, more, body, sent) = match manners(&path) {
        Answer::Whole(body) => (200, String::new(), body.clone(), body.len()),
        Answer::Cut(body) => (200, String::new(), body.clone(), body.len() / 2),
        Answer::Status(status) => (status, String::new(), Vec::new(), 0),
        Answer::Redirect(to) => (302, format!("Location: {to}\r\n"), Vec::new(), 0),
        Answer::Silence => {
            let mut rest = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut rest)?;
            return Ok(());
        }
    };
    let head = format!("HTTP/1.0 {status} x\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body[..sent])
}

/// An ordinary user's home with `bin/rano` in it.
pub struct Installed {
    directory: TempDir,
    uid: u32,
}

impl Installed {
    /// The rano under test. Its owner is `uid`, which only root can choose.
    pub fn new(uid: u32) -> Result<Self> {
        let installed = Self::empty(uid)?;
        let bin = installed.home().join("bin");
        fs::create_dir(&bin)?;
        fs::hard_link(stage::rano()?, bin.join("rano"))?;
        chown(&bin, Some(installed.uid), Some(installed.uid))?;
        Ok(installed)
    }

    pub fn empty(uid: u32) -> Result<Self> {
        let rano = stage::rano()?;
        let beside = rano.parent().context("the stage")?;
        let directory = tempfile::Builder::new().prefix("home-").tempdir_in(beside)?;
        let uid = if is_root() { uid } else { rustix::process::geteuid().as_raw() };
        if is_root() {
            chown(directory.path(), Some(uid), Some(uid))?;
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory, uid })
    }

    pub fn home(&self) -> &Path {
        self.directory.path()
    }

    pub fn rano(&self) -> PathBuf {
        self.home().join("bin/rano")
    }

    /// `program` as this user, with nothing on its standard input.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_as(program, self.uid)
    }

    pub fn command_as(&self, program: impl AsRef<std::ffi::OsStr>, uid: u32) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.home()).env("LC_ALL", "C");
        command.env("TMPDIR", self.home()).current_dir(self.home()).stdin(Stdio::null());
        if is_root() {
            command.uid(uid).gid(uid);
        }
        command
    }

    pub fn update(&self, url: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(self.rano());
        command.arg("update").args(arguments).env("RANO_UPDATE_URL", url);
        command.output().context("start rano update")
    }

    /// Every file below the home, by its path from there.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        collect(self.home(), self.home(), &mut found)?;
        found.sort();
        Ok(found)
    }

    /// Which file is at `bin/rano`, so that another one with the same bytes is another.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::metadata(self.rano())?.ino())
    }

    /// A directory of links to `programs`, as a PATH with nothing else; `None` where one of them is not installed.
    pub fn path_with(&self, programs: &[&str]) -> Result<Option<PathBuf>> {
        let path = self.home().join("path");
        fs::create_dir(&path)?;
        for program in programs {
            let found = ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(program));
            let Some(found) = found.into_iter().find(|path| path.exists()) else { return Ok(None) };
            symlink(found, path.join(program))?;
        }
        Ok(Some(path))
    }
}

fn collect(directory: &Path, root: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, root, found)?;
        } else {
            found.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Both ends of a finished program.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Fails with everything it said unless the exit code is `code` and each of `texts` is in it.
pub fn expect(output: &Output, code: i32, texts: &[&str]) -> Result<()> {
    let said = said(output);
    ensure!(output.status.code() == Some(code), "{} instead of exit code {code}: {said}", output.status);
    for text in texts {
        ensure!(said.contains(text), "no '{text}' in: {said}");
    }
    Ok(())
}
