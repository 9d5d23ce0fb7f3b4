//! Whether a database was written, without opening it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Size and time of a database's log and of the file: they change with every commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written([Option<(u64, i64, i64)>; 2]);

impl Written {
    pub fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self([PathBuf::from(log), path.to_owned()].map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
        }))
    }
}
