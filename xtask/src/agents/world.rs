//! Where the agents run: a network namespace with loopback alone, in which every name leads to a service that stands in
//! for all of theirs.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The network namespace.
const NAME: &str = "rano-agents";
const RESOLVER: &str = "127.0.0.53";
/// RFC 2544: for tests of networks, nobody's.
const ADDRESSES: &str = "198.18.0.0/15";
/// Where every other name leads.
const ELSEWHERE: &str = "198.18.255.1";
/// Who the agents are: some refuse to run commands as root.
const USER: &str = "nobody";

pub(super) struct World {
    /// Readable for everybody.
    pub directory: PathBuf,
    children: Vec<Child>,
}

impl World {
    /// `hosts` get an address each. `command` is what agents are told to run in their shell.
    pub(super) fn make(directory: &Path, hosts: &[&str], command: &str) -> Result<Self> {
        let mut world = Self { directory: directory.to_owned(), children: Vec::new() };
        fs::create_dir_all(etc()).context("make the namespace's /etc")?;
        fs::write(etc().join("resolv.conf"), format!("nameserver {RESOLVER}\n"))?;
        fs::write(etc().join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
        done(Command::new("ip").args(["netns", "add", NAME]))?;
        done(Command::new("ip").args(["-n", NAME, "link", "set", "lo", "up"]))?;
        done(Command::new("ip").args(["-n", NAME, "route", "add", "local", ADDRESSES, "dev", "lo"]))?;
        world.certify(hosts)?;
        world.resolve(hosts)?;
        world.serve(command)?;
        Ok(world)
    }

    /// `program` in the namespace; as root unless told otherwise.
    fn inside(program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAME, program]);
        command
    }

    /// `program` as an ordinary user in a home of its own, with `variables` and little else.
    pub(super) fn as_user(&self, home: &Path, variables: &[(&str, &str)], path: &str) -> Command {
        let mut command = Self::inside("setpriv");
        command.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups", "--"]);
        let certificates = self.directory.join("all.pem");
        command.env_clear().current_dir(home).env("HOME", home).env("PATH", path).env("USER", USER);
        command.env("LANG", "C.UTF-8").env("TERM", "dumb").env("SHELL", "/bin/bash");
        command.env("NODE_EXTRA_CA_CERTS", self.directory.join("ca.pem"));
        command.env("SSL_CERT_FILE", &certificates).env("CODEX_CA_CERTIFICATE", &certificates);
        command.envs(variables.iter().copied());
        command
    }

    /// An authority of its own, and one certificate for all `hosts`.
    fn certify(&self, hosts: &[&str]) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
        let extensions = format!("subjectAltName={}\nextendedKeyUsage=serverAuth\n", names.join(","));
        fs::write(self.directory.join("extensions"), extensions)?;
        let new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"];
        let authority = ["-x509", "-days", "30", "-addext", "keyUsage=critical,keyCertSign", "-keyout"];
        done(openssl().args(new).arg("/CN=test authority").args(authority).args([
            &at("ca.key"),
            "-out",
            &at("ca.pem"),
        ]))?;
        done(openssl().args(new).arg("/CN=test").args([
            "-keyout",
            &at("key.pem"),
            "-out",
            &at("request.pem"),
        ]))?;
        let sign = ["x509", "-req", "-days", "30", "-CAcreateserial", "-in"];
        let by = ["-CA", &at("ca.pem"), "-CAkey", &at("ca.key"), "-extfile", &at("extensions"), "-out"];
        done(openssl().args(sign).arg(at("request.pem")).args(by).arg(at("certificate.pem")))?;
        let mut all = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        all.extend(fs::read(self.directory.join("ca.pem"))?);
        fs::write(self.directory.join("all.pem"), all).context("write the certificates")
    }

    fn resolve(&mut self, hosts: &[&str]) -> Result<()> {
        let mut settings = String::from("no-resolv\nno-hosts\nbind-interfaces\nuser=root\n");
        let _ = writeln!(settings, "listen-address={RESOLVER}\naddress=/#/{ELSEWHERE}\nlocal=/#/");
        for (number, host) in hosts.iter().enumerate() {
            let _ = writeln!(settings, "address=/{host}/198.18.{}.{}", number / 200, number % 200 + 1);
        }
        let file = self.directory.join("dnsmasq.conf");
        fs::write(&file, settings)?;
        let mut command = Self::inside("dnsmasq");
        command.args(["--keep-in-foreground", "--pid-file", "--log-facility=-", "-C"]).arg(file);
        self.children.push(command.stderr(Stdio::null()).spawn().context("start dnsmasq")?);
        Ok(())
    }

    fn serve(&mut self, order: &str) -> Result<()> {
        let script = self.directory.join("mock.py");
        fs::write(&script, include_str!("mock.py"))?;
        let mut command = Self::inside("python3");
        command.arg(script).arg(self.directory.join("certificate.pem")).arg(self.directory.join("key.pem"));
        command.arg(order).arg(self.directory.join("requests")).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the services")?;
        let output = child.stdout.take().context("standard output was piped")?;
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "the services did not start");
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", NAME]).status();
        let _ = fs::remove_dir_all(etc());
    }
}

/// The namespace's inode: what rano calls it.
pub(super) fn namespace() -> Result<u64> {
    Ok(fs::metadata(Path::new("/run/netns").join(NAME))?.ino())
}

fn etc() -> PathBuf {
    Path::new("/etc/netns").join(NAME)
}

fn openssl() -> Command {
    let mut command = Command::new("openssl");
    command.stderr(Stdio::null());
    command
}

pub(super) fn done(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
