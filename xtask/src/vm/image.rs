//! The root file system of a guest: an initramfs in the format of `cpio -H newc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::kernels::{Kernel, unpack};
use crate::system::find_in_path;

/// Runs first in the guest; `/command` is what the guest is for. The exit status goes to a port of its own.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root TMPDIR=/run
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 run /run
chmod 1777 /tmp
mount -t tracefs t /sys/kernel/tracing
mount -t debugfs d /sys/kernel/debug
mount -t bpf b /sys/fs/bpf
mount -t cgroup2 c /sys/fs/cgroup
stty -F /dev/ttyS1 raw -echo
stty -F /dev/ttyS2 raw -echo
ip link set lo up
for module in /modules/*.ko; do insmod $module; done
cd /root
setsid sh /command </dev/null >/dev/ttyS1 2>&1
echo \"status $?\" >/dev/ttyS2
stty -F /dev/ttyS1 >/dev/null
sync
poweroff -f
";

/// Where a kernel has these as modules. Those of the second line are transports that few machines have.
const MODULES: [&str; 10] = [
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
    "veth",
    "sctp",
    "dccp_ipv4",
    "vsock_loopback",
    "tipc",
    "rds",
];

/// Programs that some tests talk to, and where those look for them.
const PEERS: [(&str, &str); 8] = [
    ("openssl", "/usr/bin/openssl"),
    ("dnsmasq", "/usr/sbin/dnsmasq"),
    ("getent", "/usr/bin/getent"),
    ("ip", "/usr/sbin/ip"),
    ("ethtool", "/usr/sbin/ethtool"),
    ("tcpdump", "/usr/bin/tcpdump"),
    ("gtlsserver", "/usr/sbin/gtlsserver"),
    ("gtlsclient", "/usr/bin/gtlsclient"),
];

/// Files for a guest. Several images may stand behind one another in one initramfs; later files win.
#[derive(Default)]
pub(crate) struct Image {
    archive: Vec<u8>,
    known: BTreeSet<PathBuf>,
    entries: u32,
}

impl Image {
    /// With busybox and what mounts and runs.
    pub(crate) fn base() -> Result<Self> {
        let mut image = Self::default();
        for folder in ["proc", "sys", "dev", "tmp", "run", "root", "modules", "lib64"] {
            image.folder(Path::new("/").join(folder).as_path())?;
        }
        let busybox = find_in_path("busybox").context("no busybox")?;
        image.program(&busybox, Path::new("/bin/busybox"))?;
        image.file(Path::new("/init"), INIT.as_bytes(), 0o755)?;
        for (path, text) in [
            ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
            ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("/etc/resolv.conf", ""),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ] {
            image.file(Path::new(path), text.as_bytes(), 0o644)?;
        }
        Ok(image)
    }

    /// Programs that some tests talk to, where this machine has them.
    pub(crate) fn peers(&mut self) -> Result<()> {
        for (name, guest) in PEERS {
            if let Some(host) = find_in_path(name) {
                self.program(&host, Path::new(guest))?;
            }
        }
        let configuration = Path::new("/usr/lib/ssl/openssl.cnf");
        if configuration.exists() {
            self.file(configuration, &read(configuration)?, 0o644)?;
        }
        Ok(())
    }

    /// The program at `host` without its debugging symbols, and every library that it needs.
    pub(crate) fn program(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let stripped = tempfile::NamedTempFile::new().context("make a temporary file")?;
        let status =
            Command::new("strip").arg("-o").arg(stripped.path()).arg(host).status().context("run strip")?;
        ensure!(status.success(), "strip {} failed", host.display());
        self.file(guest, &read(stripped.path())?, 0o755)?;
        let output = Command::new("ldd").arg(host).output().context("run ldd")?;
        let text = String::from_utf8_lossy(&output.stdout);
        for library in text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
            self.file(library, &read(library)?, 0o755)?;
        }
        Ok(())
    }

    /// The modules that the tests need and the kernel has, named so that their order is that of insertion.
    pub(crate) fn modules(&mut self, kernel: &Kernel) -> Result<()> {
        let mut files = Vec::new();
        collect(&kernel.modules(), &mut files)?;
        let mut order = Vec::new();
        for module in MODULES {
            order_modules(module, &files, &mut order)?;
        }
        for (place, (name, bytes)) in order.iter().enumerate() {
            self.file(&PathBuf::from(format!("/modules/{place:02}_{name}.ko")), bytes, 0o644)?;
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        if self.known.insert(path.to_owned()) {
            self.entry(path, 0o100_000 | mode, bytes)?;
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        if path == Path::new("/") || !self.known.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.folder(above)?;
        }
        self.entry(path, 0o040_755, &[])
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        let name = path.to_str().context("a path is not UTF-8")?.trim_start_matches('/');
        self.entries += 1;
        self.record(name, self.entries, mode, bytes)
    }

    /// `Documentation/driver-api/early-userspace/buffer-format.rst`
    fn record(&mut self, name: &str, inode: u32, mode: u32, bytes: &[u8]) -> Result<()> {
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB")?;
        let name_size = u32::try_from(name.len() + 1).context("a long name")?;
        let links = if mode & 0o040_000 == 0 { 1 } else { 2 };
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(bytes);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }

    /// A whole archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.record("TRAILER!!!", 0, 0, &[])?;
        Ok(self.archive)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        // Among them is a link to the build's folder.
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Depth first, each once. What is not there is part of the kernel itself.
fn order_modules(module: &str, files: &[PathBuf], order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if order.iter().any(|(known, _)| known == module) {
        return Ok(());
    }
    let found = files.iter().find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split_once(".ko").is_some_and(|(name, _)| name.replace('-', "_") == module)
    });
    let Some(path) = found else { return Ok(()) };
    let mut bytes = read(path)?;
    if path.extension().is_some_and(|ending| ending != "ko") {
        bytes = unpack(&bytes).with_context(|| format!("unpack {}", path.display()))?;
    }
    for needed in dependencies(&bytes) {
        order_modules(&needed.replace('-', "_"), files, order)?;
    }
    order.push((module.to_owned(), bytes));
    Ok(())
}

/// From the entry `depends=` of the section `.modinfo`, whose entries end with NUL.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut entries = module.split(|byte| *byte == 0);
    let found = entries.find_map(|entry| entry.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(found.unwrap_or_default()).into_owned();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_folders_before_their_files_and_an_end() {
        let mut image = Image::default();
        image.file(Path::new("/a/b"), b"hello", 0o644).expect("added");
        image.file(Path::new("/a/b"), b"again", 0o644).expect("known");
        let archive = image.finish().expect("finished");
        let text = String::from_utf8(archive).expect("text");
        assert_eq!(text.len() % 4, 0);
        let records: Vec<_> = text.split("070701").skip(1).collect();
        assert_eq!(records.len(), 3, "{text}");
        assert!(records[0].ends_with("a\0\0\0\0") || records[0].contains("a\0"), "{text}");
        assert!(records[1].starts_with("00000002000081a4"), "{text}");
        assert!(records[1].contains("a/b\0") && records[1].contains("hello"), "{text}");
        assert!(records[2].contains("TRAILER!!!"), "{text}");
    }

    #[test]
    fn dependencies_are_read_from_the_module() {
        let module = b"\x7fELF\0name=tcp_diag\0depends=inet_diag,x-y\0license=GPL\0";
        assert_eq!(dependencies(module), ["inet_diag", "x-y"]);
        assert!(dependencies(b"depends=\0").is_empty());
    }
}
