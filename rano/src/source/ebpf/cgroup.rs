//! The root of the cgroup v2 hierarchy, mounted or not.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::source::proc::PROC;
use crate::source::views::Kind;

/// Inode of the root of a hierarchy (fs/kernfs): every other directory has another one.
const ROOT_INODE: u64 = 1;

/// The directory that the programs are attached to.
#[derive(Debug)]
pub struct Group {
    pub directory: File,
    /// It is the root of all. Else it is as far up as a cgroup namespace lets us see: programs on it run for what lies
    /// below.
    pub is_root: bool,
}

/// The root of the hierarchy if there is a way to it, else the highest that is mounted.
pub fn open() -> Result<Group> {
    let mut highest = None;
    let mut trouble = None;
    let ways: [fn() -> Result<File>; 3] = [open_mounted, own_mount, first_mount];
    for way in ways {
        match way() {
            Ok(directory) if is_root(&directory) => return Ok(Group { directory, is_root: true }),
            Ok(directory) => highest = highest.or(Some(directory)),
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    match (highest, trouble) {
        (Some(directory), _) => Ok(Group { directory, is_root: false }),
        (None, Some(error)) => Err(error),
        (None, None) => bail!("cgroup v2 is not mounted"),
    }
}

fn is_root(directory: &File) -> bool {
    directory.metadata().is_ok_and(|found| found.ino() == ROOT_INODE)
}

/// Of several mounts that of the root, else the first.
fn open_mounted() -> Result<File> {
    let mut first = None;
    for place in mounts()? {
        let opened = File::open(&place).with_context(|| format!("open {}", place.display()));
        match opened {
            Ok(directory) if is_root(&directory) => return Ok(directory),
            opened => first = first.or(Some(opened)),
        }
    }
    first.unwrap_or_else(|| Err(not_mounted()))
}

/// The root of the cgroup v2 hierarchy, through a mount of our own that is at no place and goes with its descriptor.
/// Takes `CAP_SYS_ADMIN`.
pub fn own_mount() -> Result<File> {
    let mount = || -> rustix::io::Result<File> {
        let filesystem = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&filesystem)?;
        let mount = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&mount, c".", flags, Mode::empty())?.into())
    };
    mount().map_err(|errno| anyhow!("cgroup v2 is not mounted, and mounting it failed: {errno}"))
}

/// The same as in the first cgroup namespace, where nothing is hidden, if any process shows that: on a thread that
/// enters it and ends.
fn first_mount() -> Result<File> {
    let namespace = first_namespace().context("no process shows the first cgroup namespace")?;
    let mount = move || -> Result<File> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        own_mount()
    };
    let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn(mount)?;
    thread.join().unwrap_or_else(|_| bail!("the thread that enters a cgroup namespace failed"))
}

fn first_namespace() -> Option<File> {
    let pids = std::fs::read_dir(PROC).ok()?.filter_map(Result::ok);
    let pids = pids.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let mut namespaces = pids.filter_map(|entry| File::open(entry.path().join("ns/cgroup")).ok());
    namespaces.find(|namespace| namespace.metadata().is_ok_and(|found| found.ino() == Kind::Cgroup.first()))
}

/// Where the cgroup v2 hierarchy is mounted.
pub fn mounted() -> Result<PathBuf> {
    mounts()?.into_iter().next().ok_or_else(not_mounted)
}

fn not_mounted() -> anyhow::Error {
    anyhow!("cgroup v2 is not mounted (mount -t cgroup2 none /sys/fs/cgroup)")
}

fn mounts() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let place = |line: &str| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    };
    Ok(mounts.lines().filter_map(place).collect())
}

/// Whether a process is in a cgroup that lies outside of what this cgroup namespace shows (`cgroup_namespaces(7)`).
pub fn is_outside(pid: u32) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let of_v2 = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    of_v2.is_some_and(|path| path == ".." || path.starts_with("../"))
}
