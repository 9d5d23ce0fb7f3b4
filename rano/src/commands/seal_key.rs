//! `--seal-key`: a secret that whoever is watched must not be able to read.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;
use clap::Arg;

use super::Context;
use crate::config::{Configuration, Field, flags};
use crate::exit::{Code, Failure};
use crate::files::{NamedBy, Reading};
use crate::store::SealKey;

/// No key is as long.
const LARGEST: u64 = 4096;

/// `--seal-key` of the commands that read.
pub(super) fn flag() -> impl Iterator<Item = Arg> {
    flags::flags(|option| option.is(Field::seal_key))
        .map(|arg| arg.help("Key that the seals were made with").hide(false))
}

/// The key in the file that was named, if one was.
pub(super) fn read(configuration: &Configuration, context: &Context) -> Result<Option<SealKey>> {
    let named_by = configuration.origin(Field::seal_key).named_by();
    configuration.settings.seal_key.as_ref().map(|path| read_file(path, named_by, context)).transpose()
}

pub(super) fn read_file(path: &Path, named_by: NamedBy, context: &Context) -> Result<SealKey> {
    let cannot =
        |error: String| Failure::new(Code::CannotOpen, format!("cannot use {}: {error}", path.display()));
    let file = context
        .environment
        .files
        .open(path, named_by, Reading::Data)
        .map_err(|problem| cannot(problem.to_string()))?;
    let metadata = file.metadata().map_err(|error| cannot(error.to_string()))?;
    if !metadata.is_file() {
        return Err(cannot("it is not a regular file".to_owned()).into());
    }
    if metadata.mode() & 0o077 != 0 {
        let failure = Failure::new(Code::Usage, format!("others may read the key in {}", path.display()));
        return Err(failure.hint(format!("chmod 600 {}", quoted(path))).into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| cannot(error.to_string()))?;
    let key = SealKey::new(&bytes).filter(|_| bytes.len() as u64 <= LARGEST);
    let key = key.ok_or_else(|| {
        let message =
            format!("{} has no key: it takes {} to {LARGEST} bytes", path.display(), SealKey::LEAST);
        let make = format!("(umask 077; head -c 32 /dev/urandom | base64 > {})", quoted(path));
        Failure::new(Code::Usage, message).hint(make)
    })?;
    Ok(key)
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    if path.bytes().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
