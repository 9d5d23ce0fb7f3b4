//! What the build needs from the system: a C compiler and the C library's headers, for the SQLite that is built in; and
//! what it can do without: libpcap's headers, for `--pcap`.

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A package manager, and what it calls the compiler and the headers.
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    packages: &'static [&'static str],
    libpcap: &'static str,
}

/// Tried in this order; a distribution has one of them.
const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        install: &["install", "-y"],
        packages: &["gcc", "libc6-dev"],
        libpcap: "libpcap-dev",
    },
    Manager {
        program: "dnf",
        install: &["install", "-y"],
        packages: &["gcc", "glibc-devel"],
        libpcap: "libpcap-devel",
    },
    Manager {
        program: "pacman",
        install: &["-S", "--needed", "--noconfirm"],
        packages: &["gcc", "glibc"],
        libpcap: "libpcap",
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install"],
        packages: &["gcc", "glibc-devel"],
        libpcap: "libpcap-devel",
    },
    Manager { program: "apk", install: &["add"], packages: &["gcc", "musl-dev"], libpcap: "libpcap-dev" },
];

/// Installs what is missing, or says what to install and how.
pub(crate) fn prepare() -> Result<()> {
    if compiler_works() {
        return Ok(());
    }
    let Some(manager) = MANAGERS.iter().find(|manager| is_installed(manager.program)) else {
        bail!("no working C compiler (cc)\nhint: install gcc and the headers of the C library");
    };
    let command = install_command(manager, manager.packages);
    let Some(mut installer) = as_root(&command) else {
        bail!("no working C compiler (cc)\nhint: sudo {}", command.join(" "));
    };
    if !is_agreed(&command) {
        bail!("no working C compiler (cc)\nhint: sudo {}", command.join(" "));
    }
    eprintln!("installing a C compiler: {}", command.join(" "));
    let status = installer.status().with_context(|| format!("run {}", command.join(" ")))?;
    if !status.success() || !compiler_works() {
        bail!("still no working C compiler (cc)\nhint: sudo {}", command.join(" "));
    }
    Ok(())
}

/// Whether rano can be built with libpcap. As root it is installed where it is missing; nothing else depends on it.
pub(crate) fn has_libpcap() -> bool {
    if libpcap_works() {
        return true;
    }
    let manager = MANAGERS.iter().find(|manager| is_installed(manager.program));
    if let Some(manager) = manager
        && rustix::process::geteuid().is_root()
    {
        let command = install_command(manager, &[manager.libpcap]);
        eprintln!("installing libpcap's headers: {}", command.join(" "));
        let installed = as_root(&command).is_some_and(|mut installer| installer.status().is_ok());
        if installed && libpcap_works() {
            return true;
        }
    }
    let package = manager.map_or("libpcap's headers", |manager| manager.libpcap);
    eprintln!("without libpcap, rano is built without --pcap (install {package} for it)");
    false
}

fn install_command(manager: &Manager, packages: &[&'static str]) -> Vec<&'static str> {
    let mut words = vec![manager.program];
    words.extend(manager.install);
    words.extend(packages);
    words
}

/// Whoever sits at a terminal is asked before anything is installed with sudo. As root, or without a terminal, it goes
/// on.
fn is_agreed(command: &[&str]) -> bool {
    if rustix::process::geteuid().is_root()
        || !std::io::stdin().is_terminal()
        || !std::io::stderr().is_terminal()
    {
        return true;
    }
    eprint!("rano needs a C compiler. Run this? sudo {} [Y/n] ", command.join(" "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok_and(|length| length > 0 && is_yes(&answer))
}

/// Enter alone is yes.
fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes")
}

/// `None` where root cannot be asked for.
fn as_root(command: &[&str]) -> Option<Command> {
    if rustix::process::geteuid().is_root() {
        let mut direct = Command::new(command.first()?);
        direct.args(&command[1..]);
        return Some(direct);
    }
    let can_type_password = std::io::stdin().is_terminal() && is_installed("sudo");
    if !can_type_password && !succeeds(Command::new("sudo").args(["-n", "true"])) {
        return None;
    }
    let mut sudo = Command::new("sudo");
    sudo.args(command);
    Some(sudo)
}

/// Compiles and links a program that includes a header of the C library.
fn compiler_works() -> bool {
    compiles("#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n", &[])
}

fn libpcap_works() -> bool {
    compiles("#include <pcap/pcap.h>\nint main(void) { return pcap_lib_version() == 0; }\n", &["-lpcap"])
}

fn compiles(program: &str, libraries: &[&str]) -> bool {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let started = Command::new(compiler)
        .args(["-x", "c", "-", "-o", "/dev/null"])
        .args(libraries)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut compiler) = started else { return false };
    if let Some(mut input) = compiler.stdin.take() {
        // A compiler that does not read its input fails, and that is what is looked at.
        let _ = input.write_all(program.as_bytes());
    }
    compiler.wait().is_ok_and(|status| status.success())
}

fn is_installed(program: &str) -> bool {
    find_in_path(program).is_some()
}

/// Where `program` lies, as the shell would find it.
pub(crate) fn find_in_path(program: &str) -> Option<std::path::PathBuf> {
    let mut folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    // An ordinary user's PATH leaves out where `ss` lies on some distributions.
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manager_is_asked_for_a_compiler_without_questions() {
        let commands: Vec<_> =
            MANAGERS.iter().map(|manager| install_command(manager, manager.packages).join(" ")).collect();
        assert_eq!(commands[0], "apt-get install -y gcc libc6-dev");
        assert!(commands.iter().all(|command| command.contains(" gcc ")), "{commands:?}");
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(["\n", "y\n", "Yes\n"].into_iter().all(is_yes));
        assert!(!["n\n", "no\n", "yonder\n"].into_iter().any(is_yes));
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_found() {
        assert!(find_in_path("sh").is_some());
        assert!(find_in_path("no-such-program-81aa3").is_none());
    }
}
