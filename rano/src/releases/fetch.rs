//! Fetching a file over the network, with curl or wget, as install.sh does. That keeps TLS and its certificates, which
//! the signature makes no use of, out of a program that runs as root. A `file://` is read directly.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("releases come by https")]
    Scheme,
    #[error("neither curl nor wget is installed")]
    NoProgram,
    #[error("the server says nothing for {0:?}")]
    Slow(Duration),
    #[error("it is larger than a release can be")]
    TooLarge,
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// However slowly something comes, it comes within so much of the patience for each silence.
const LONGEST: u32 = 30;

/// What a server on this machine may be asked without TLS: tests and mirrors.
const LOCAL: [&str; 3] = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];

/// The bytes at `address`, at most so many; the server may be silent for `patience`.
pub fn fetch(address: &str, at_most: u64, patience: Duration) -> Result<Vec<u8>, Trouble> {
    if let Some(path) = address.strip_prefix("file://") {
        return whole(File::open(path)?, at_most);
    }
    let scheme = match address.split_once("://") {
        Some(("https", _)) => "=https",
        Some(("http", _)) if LOCAL.iter().any(|local| address.starts_with(local)) => "=http",
        _ => return Err(Trouble::Scheme),
    };
    let mut child = start(address, scheme, patience)?;
    let outcome = read(&mut child, at_most, patience);
    if outcome.is_err() {
        let _ = child.kill();
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(2000).read_to_string(&mut said);
    }
    let status = child.wait()?;
    let bytes = outcome?;
    if status.success() {
        return Ok(bytes);
    }
    let said = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it failed");
    Err(Trouble::Failed(said.to_owned()))
}

fn whole(reader: impl Read, at_most: u64) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    reader.take(at_most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > at_most { Err(Trouble::TooLarge) } else { Ok(bytes) }
}

fn start(address: &str, scheme: &str, patience: Duration) -> Result<Child, Trouble> {
    let seconds = patience.as_secs().max(1).to_string();
    let mut curl = Command::new("curl");
    // Wherever a redirect leads, it leads there by TLS; and not to a file.
    curl.args(["--fail", "--silent", "--show-error", "--location", "--max-redirs", "5"]);
    curl.args(["--proto", scheme, "--proto-redir", "=https", "--connect-timeout", &seconds, "--", address]);
    let mut wget = Command::new("wget");
    // Its own limit of time is not used: a static busybox fails with it, and silence is noticed here.
    wget.args(["-q", "-O", "-", "--", address]);
    for mut command in [curl, wget] {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(Trouble::NoProgram)
}

fn read(child: &mut Child, at_most: u64, patience: Duration) -> Result<Vec<u8>, Trouble> {
    let mut output = child.stdout.take().ok_or_else(|| Trouble::Failed("its output is gone".to_owned()))?;
    let end = Instant::now() + patience * LONGEST;
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let left = patience.min(end.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(left).map_err(|_| Trouble::Slow(patience))?;
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Trouble::Slow(patience)),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let length = output.read(&mut part)?;
        if length == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&part[..length]);
        if bytes.len() as u64 > at_most {
            return Err(Trouble::TooLarge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        for address in ["http://192.0.2.1/x", "ftp://127.0.0.1/x", "x", "http://127.0.0.1.example/x"] {
            let outcome = fetch(address, 1, Duration::from_secs(1));
            assert!(matches!(outcome, Err(Trouble::Scheme)), "{address}: {outcome:?}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_a_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1234").unwrap();
        let address = format!("file://{}", file.path().display());
        assert_eq!(fetch(&address, 4, Duration::ZERO).unwrap(), b"1234");
        assert!(matches!(fetch(&address, 3, Duration::ZERO), Err(Trouble::TooLarge)));
    }
}
