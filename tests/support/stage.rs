//! A directory that every user can read, with the programs under the names the tests call them by.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::namespace::Place;
use super::program;

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

struct Stage {
    directory: TempDir,
}

impl Stage {
    fn build() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("rano-test-").tempdir().context("make the stage")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let stage = Self { directory };
        stage.copy(&std::env::current_exe()?, "actor")?;
        stage.copy(Path::new(env!("CARGO_BIN_EXE_rano")), "rano")?;
        Ok(stage)
    }

    /// Checkouts lie in places that another user may not enter, hence copies.
    fn copy(&self, from: &Path, name: &str) -> Result<()> {
        program::copy(from, &self.directory.path().join(name))
    }
}

fn with_stage<T>(use_it: impl FnOnce(&Stage) -> Result<T>) -> Result<T> {
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if stage.is_none() {
        *stage = Some(Stage::build()?);
    }
    use_it(stage.as_ref().expect("was built above"))
}

/// The rano under test.
pub fn rano() -> Result<PathBuf> {
    with_stage(|stage| Ok(stage.directory.path().join("rano")))
}

/// The actor under the file name `name`.
pub fn actor(name: &str) -> Result<PathBuf> {
    with_stage(|stage| {
        let path = stage.directory.path().join(name);
        if !path.exists() {
            fs::hard_link(stage.directory.path().join("actor"), &path)?;
        }
        Ok(path)
    })
}

/// An empty directory of the test's own that belongs to the user of `place`; gone when dropped.
pub fn directory(place: &Place) -> Result<TempDir> {
    with_stage(|stage| {
        let directory = tempfile::Builder::new().prefix("test-").tempdir_in(stage.directory.path())?;
        let (uid, gid) = place.ids();
        std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))?;
        Ok(directory)
    })
}

/// Removes the stage; statics are never dropped.
pub fn clear() {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner).take();
}
