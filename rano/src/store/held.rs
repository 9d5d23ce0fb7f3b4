//! Databases that this process writes. POSIX takes away all of a process's locks on a file when it closes any
//! descriptor of it (fcntl(2)), SQLite's too: a reader in the same process must not open the file but through SQLite.

use std::fs::{File, Metadata};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Device and inode.
type Identity = (u64, u64);

static HELD: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The file of a database that is written, until it is dropped.
#[derive(Debug)]
pub(super) struct HeldFile {
    file: File,
    identity: Identity,
}

impl HeldFile {
    pub(super) fn new(file: File) -> std::io::Result<Self> {
        let identity = identity(&file.metadata()?);
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(identity);
        Ok(Self { file, identity })
    }
}

impl Deref for HeldFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|identity| *identity == self.identity) {
            held.swap_remove(at);
        }
    }
}

/// Whether this process writes the database at `path`.
pub(super) fn is_held(path: &Path) -> bool {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    !held.is_empty() && path.metadata().is_ok_and(|metadata| held.contains(&identity(&metadata)))
}
