//! The root of the cgroup v2 hierarchy, mounted or not.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The hierarchy that the programs are attached to.
pub fn open() -> Result<File> {
    let Ok(place) = mounted() else { return own_mount() };
    File::open(&place).with_context(|| format!("open {}", place.display()))
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

/// Where the cgroup v2 hierarchy is mounted.
pub fn mounted() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    });
    match found {
        Some(place) => Ok(place),
        None => bail!("cgroup v2 is not mounted (mount -t cgroup2 none /sys/fs/cgroup)"),
    }
}
