//! A home directory of a test's own, with configuration in it.

use std::fs;
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use super::namespace::{Place, User};
use super::rano::{Finished, Launch};
use super::stage;

pub struct Home {
    place: Place,
    directory: TempDir,
}

impl Home {
    /// Files by their paths in it, with their contents.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let place = Place::new(User::Ordinary)?;
        let directory = stage::directory(&place)?;
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(path, text)?;
        }
        Ok(Self { place, directory })
    }

    /// The same with paths in rano's directory of configuration.
    pub fn configured(files: &[(&str, &str)]) -> Result<Self> {
        let files: Vec<_> =
            files.iter().map(|(name, text)| (format!(".config/rano/{name}"), *text)).collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        Self::new(&files)
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Uid and gid of its owner.
    pub fn ids(&self) -> (u32, u32) {
        self.place.ids()
    }

    pub fn launch(&self, arguments: &[&str]) -> Result<Launch> {
        Ok(Launch::new(&self.place, self.path())?.args(arguments))
    }

    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        self.launch(arguments)?.run()
    }

    /// What rano wrote to either end before it ended with `code`, paths relative to the home.
    pub fn said(&self, finished: &Finished, code: i32) -> Result<String> {
        finished.expect_code(code)?;
        let home = format!("{}/", self.path().display());
        Ok((finished.stdout.clone() + &finished.stderr).replace(&home, ""))
    }
}
