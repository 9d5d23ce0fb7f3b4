//! Debian's kernels: the newest of a series, unpacked and never installed, through a private apt root that leaves the
//! machine's own lists and packages alone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};

/// A kernel that guests are booted with.
pub(crate) struct Kernel {
    /// `6.12`
    pub series: &'static str,
    /// As `uname -r` says it.
    pub release: String,
    /// Holds `vmlinux` and what the package holds.
    directory: PathBuf,
}

impl Kernel {
    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// Where its modules lie; which of the two places depends on the age of the package.
    pub(crate) fn modules(&self) -> PathBuf {
        let merged = self.directory.join("usr/lib/modules");
        if merged.is_dir() { merged } else { self.directory.join("lib/modules") }
    }
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where the kernels come from: under `debian-security/`, and under `debian/`.
const SECURITY_SUITES: [&str; 2] = ["bullseye-security", "bookworm-security"];
const SUITES: [&str; 3] = ["bullseye", "bookworm", "trixie-backports"];
/// The archive drops old patch versions, so lists are asked for again after so long.
const LISTS_AGE: Duration = Duration::from_hours(24);

/// Behind the name of a kernel that is being unpacked.
const UNFINISHED: &str = ".part";

/// The private apt root and what was fetched through it.
pub(crate) struct Archive {
    home: PathBuf,
}

impl Archive {
    /// Under `home`, made if it is not there; asks for package lists where there are none or they are old.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        let archive = Self { home: home.to_owned() };
        for folder in ["debs", "kernels", "apt/lists/partial", "apt/cache/archives/partial", "apt/state"] {
            let path = home.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let stamp = home.join("apt/updated");
        let age = stamp
            .metadata()
            .and_then(|data| data.modified())
            .map(|then| SystemTime::now().duration_since(then));
        if !age.is_ok_and(|age| age.is_ok_and(|age| age < LISTS_AGE)) {
            archive.configure()?;
            match archive.update() {
                Ok(()) => fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))?,
                // What was fetched before still serves.
                Err(error) => eprintln!("vm: no new package lists: {error:#}"),
            }
        }
        Ok(archive)
    }

    /// The newest kernel of a series, fetched if it is not there yet.
    pub(crate) fn newest(&self, series: &'static str) -> Result<Kernel> {
        let mut releases = self.offered(series)?;
        releases.extend(self.unpacked(series));
        releases.sort_by_key(|release| std::cmp::Reverse(numbers(release)));
        releases.dedup();
        ensure!(!releases.is_empty(), "the archive has no kernel {series}");
        let mut reason = None;
        // The lists may be older than the archive.
        for release in releases {
            match self.fetch(&release) {
                Ok(directory) => return Ok(Kernel { series, release, directory }),
                Err(error) => reason = Some(error),
            }
        }
        Err(reason.expect("there was one")).with_context(|| format!("get a kernel {series}"))
    }

    fn configure(&self) -> Result<()> {
        ensure!(Path::new(KEYRING).exists(), "no {KEYRING} (package debian-archive-keyring)");
        let mirror = mirror()?;
        let apt = self.home.join("apt");
        let apt = apt.to_str().context("the path of the checkout is not UTF-8")?;
        let mut sources = String::new();
        for (archive, suites) in [("debian-security", &SECURITY_SUITES[..]), ("debian", &SUITES[..])] {
            for suite in suites {
                let _ = writeln!(sources, "deb [signed-by={KEYRING}] {mirror}/{archive} {suite} main");
            }
        }
        let options = format!(
            "Dir::Etc::sourcelist \"{apt}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::State \"{apt}/state\";\n\
             Dir::State::lists \"{apt}/lists\";\nDir::State::status \"{apt}/state/status\";\nDir::Cache \"{apt}/cache\";\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        );
        for (name, text) in [("sources.list", &*sources), ("state/status", ""), ("opts", &options)] {
            let path = Path::new(apt).join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn update(&self) -> Result<()> {
        let output = self.apt("apt-get").args(["update", "-q"]).output().context("run apt-get update")?;
        ensure!(output.status.success(), "apt-get update: {}", last_line(&output));
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.home.join("apt/opts")).stdin(Stdio::null());
        command
    }

    /// Releases of a series that the archive lists.
    fn offered(&self, series: &str) -> Result<Vec<String>> {
        let names = format!("^linux-image-{}[.].*-cloud-amd64$", series.replace('.', "[.]"));
        let mut command = self.apt("apt-cache");
        let output = command.args(["search", "--names-only", &names]).output().context("run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.split(' ').next()?.strip_prefix("linux-image-"));
        Ok(names.filter(|release| !is_backported(release)).map(str::to_owned).collect())
    }

    fn unpacked(&self, series: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.home.join("kernels")) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&format!("{series}.")) && !name.ends_with(UNFINISHED)).collect()
    }

    fn fetch(&self, release: &str) -> Result<PathBuf> {
        let directory = self.home.join("kernels").join(release);
        if directory.join("vmlinux").exists() {
            return Ok(directory);
        }
        eprintln!("vm: fetching linux {release}");
        let partial = self.home.join("kernels").join(format!("{release}{UNFINISHED}"));
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
        self.unpack(&format!("linux-image-{release}"), &partial)?;
        let mut image = partial.join("boot").join(format!("vmlinuz-{release}"));
        if !image.exists() {
            // From 6.19 on that package only asks for these.
            for part in ["binary", "modules"] {
                self.unpack(&format!("linux-{part}-{release}"), &partial)?;
            }
            image = partial.join("usr/lib/modules").join(release).join("vmlinuz");
        }
        fs::write(partial.join("vmlinux"), payload(&image)?).context("write vmlinux")?;
        fs::rename(&partial, &directory).with_context(|| format!("name {}", directory.display()))?;
        Ok(directory)
    }

    fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let downloads = self.home.join("debs").join(package);
        fs::create_dir_all(&downloads).with_context(|| format!("make {}", downloads.display()))?;
        let mut command = self.apt("apt-get");
        let output = command.args(["download", "-q", package]).current_dir(&downloads).output();
        let output = output.context("run apt-get download")?;
        ensure!(output.status.success(), "apt-get download {package}: {}", last_line(&output));
        let entry = fs::read_dir(&downloads)?.next().context("apt-get download left no file")??;
        let status = Command::new("dpkg").arg("-x").arg(entry.path()).arg(to).status().context("run dpkg")?;
        ensure!(status.success(), "dpkg -x {package} failed");
        fs::remove_dir_all(&downloads).with_context(|| format!("remove {}", downloads.display()))
    }
}

/// The mirror that this machine's own apt uses.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
        .output()
        .context("ask apt for its mirror")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| line.trim_end_matches('/').strip_suffix("/debian"));
    found.map(str::to_owned).context("apt knows of no mirror of Debian")
}

/// Whether it was rebuilt for an older suite, such as `6.1.0-0.deb11.52`.
fn is_backported(release: &str) -> bool {
    release.contains("-0.deb")
}

/// What to sort releases by.
fn numbers(release: &str) -> Vec<u32> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

/// The kernel proper out of a bzImage: booted as it is, an emulated guest need not spend a minute on decompressing it.
/// Fields are those of `Documentation/arch/x86/boot.rst`.
fn payload(image: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(image).with_context(|| format!("read {}", image.display()))?;
    let word = |at: usize| -> Result<usize> {
        let field = bytes.get(at..at + 4).context("the image is too short")?;
        Ok(u32::from_le_bytes(field.try_into().expect("four bytes")) as usize)
    };
    let setup_sectors = match bytes.get(0x1f1) {
        None | Some(0) => 4,
        Some(&sectors) => usize::from(sectors),
    };
    let begin = (setup_sectors + 1) * 512 + word(0x248)?;
    let packed = bytes.get(begin..begin + word(0x24c)?).context("the image is cut off")?;
    let kernel = unpack(packed).with_context(|| format!("unpack {}", image.display()))?;
    ensure!(kernel.starts_with(b"\x7fELF"), "what is packed in {} is no kernel", image.display());
    Ok(kernel)
}

/// Decompresses what the kernel's build compressed.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    const KINDS: [(&[u8], &[&str]); 4] = [
        (b"\xfd7zXZ\0", &["xz", "-dcq"]),
        (b"\x28\xb5\x2f\xfd", &["zstd", "-dcq"]),
        (b"\x1f\x8b", &["gzip", "-dcq"]),
        (b"\x02\x21\x4c\x18", &["lz4", "-dcq"]),
    ];
    let Some((_, command)) = KINDS.iter().find(|(magic, _)| packed.starts_with(magic)) else {
        bail!("unknown compression {:02x?}", packed.get(..4));
    };
    let file = tempfile::NamedTempFile::new().context("make a temporary file")?;
    fs::write(file.path(), packed).context("write a temporary file")?;
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(File::open(file.path())?)
        .output()
        .with_context(|| format!("run {}", command[0]))?;
    // Behind the stream the kernel's build put the unpacked length, which the programs call trailing garbage.
    ensure!(!output.stdout.is_empty(), "{}: {}", command[0], last_line(&output));
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_the_one_with_the_greatest_numbers() {
        let mut releases =
            ["6.12.9+deb13-cloud-amd64", "6.12.117+deb12-cloud-amd64", "6.12.90+deb12.1-cloud-amd64"];
        releases.sort_by_key(|release| numbers(release));
        assert_eq!(releases[2], "6.12.117+deb12-cloud-amd64");
        assert!(numbers("6.1.0-56-cloud-amd64") > numbers("6.1.0-9-cloud-amd64"));
        assert!(is_backported("6.1.0-0.deb11.52-cloud-amd64"));
    }
}
