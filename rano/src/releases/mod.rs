//! Releases of rano: where they are, which is there, and whether it is one.
//!
//! What is trusted is the signature over `SHA256SUMS`, by the key that was built in. Its trusted comment says which
//! release it is (`rano 0.2.0`). Server, network and archive are not trusted.

pub mod fetch;
pub mod place;

use std::fmt;
use std::io::Read as _;
use std::str::FromStr;
use std::time::Duration;

use minisign_verify::{PublicKey, Signature};
use sha2::{Digest as _, Sha256};

use fetch::{Trouble, fetch};

/// Built in by `cargo xtask dist`. Tests have a key of their own, which no release has.
const KEY: Option<&str> = match option_env!("RANO_RELEASE_KEY") {
    Some(key) => Some(key),
    None if cfg!(feature = "internals") => Some(TEST_KEY),
    None => None,
};
/// Of tests/fixtures/releases.
const TEST_KEY: &str = "RWTURGYreqa6MInKqI26ieN57XthCLV7+uhs42k5lEAyigfFp2uxhHDU";
/// Where releases are on GitHub, unless somebody says otherwise.
pub const OWNER: Option<&str> = option_env!("RANO_RELEASE_OWNER");
pub const REPO: Option<&str> = option_env!("RANO_RELEASE_REPO");

/// More than any list, signature or archive of a release has, bytes.
const LARGEST_LIST: u64 = 64 << 10;
const LARGEST_ARCHIVE: u64 = 64 << 20;
const LARGEST_PROGRAM: u64 = 64 << 20;

/// `X.Y.Z`; as text a `v` may stand in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u64; 3]);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("'{text}' is no version such as v1.2.3");
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let mut version = [0; 3];
        for part in &mut version {
            let digits = parts.next().unwrap_or_default();
            // Without signs, blanks and leading zeros: a release has one name.
            let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
            if !plain || digits.len() > 1 && digits.starts_with('0') {
                return Err(refused());
            }
            *part = digits.parse().map_err(|_| refused())?;
        }
        if parts.next().is_some() { Err(refused()) } else { Ok(Self(version)) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// This program's.
pub fn current() -> Version {
    env!("CARGO_PKG_VERSION").parse().unwrap_or(Version([0; 3]))
}

/// The key that releases have to be signed with; `None` where none was built in.
pub fn key() -> Option<PublicKey> {
    PublicKey::from_base64(KEY?).ok()
}

/// Why there is no release to be had.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("cannot ask {address}")]
    CannotAsk {
        address: String,
        #[source]
        trouble: Trouble,
    },
    #[error("{0} is not signed by the key of rano's releases")]
    Signature(String),
    #[error("{address} is signed as '{signed}', not as {wanted}")]
    Another { address: String, signed: String, wanted: String },
    #[error("release {0} has no archive {1}")]
    NoArchive(Version, String),
    #[error("{0} has another checksum than its signed list says")]
    Checksum(String),
    #[error("{0} holds no program: {1}")]
    Archive(String, String),
}

/// Where releases are asked for: `BASE/latest/download/FILE` and `BASE/download/vX.Y.Z/FILE`, as GitHub has it.
#[derive(Debug, Clone)]
pub struct Site {
    pub base: String,
    /// For how long a server may say nothing.
    pub patience: Duration,
}

/// A release that is there, and whose list of checksums is signed.
#[derive(Debug)]
pub struct Release {
    pub version: Version,
    /// Of the archive for this machine.
    pub archive: String,
    checksum: String,
}

impl Site {
    /// The release named, else the latest one, by the signed list of checksums.
    pub fn release(&self, wanted: Option<Version>, key: &PublicKey) -> Result<Release, Refusal> {
        let address = match wanted {
            Some(version) => format!("{}/download/v{version}/SHA256SUMS", self.base),
            None => format!("{}/latest/download/SHA256SUMS", self.base),
        };
        let list = self.text(&address)?;
        let signature = self.text(&format!("{address}.minisig"))?;
        let unsigned = || Refusal::Signature(address.clone());
        let signature = Signature::decode(&signature).map_err(|_| unsigned())?;
        key.verify(list.as_bytes(), &signature, false).map_err(|_| unsigned())?;
        let another = |wanted: String| Refusal::Another {
            address: address.clone(),
            signed: signature.trusted_comment().to_owned(),
            wanted,
        };
        let signed = signature.trusted_comment().strip_prefix("rano ");
        let version: Option<Version> = signed.and_then(|signed| signed.parse().ok());
        let version = version.ok_or_else(|| another("a release of rano".to_owned()))?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != version) {
            return Err(another(format!("rano {wanted}")));
        }
        let archive = format!("rano-{version}-{}-linux.tar.gz", std::env::consts::ARCH);
        let checksum = listed(&list, &archive).ok_or_else(|| Refusal::NoArchive(version, archive.clone()))?;
        Ok(Release { version, archive, checksum })
    }

    /// The program in the archive of `release`, whose checksum is as the signed list has it.
    pub fn program(&self, release: &Release) -> Result<Vec<u8>, Refusal> {
        let address = format!("{}/download/v{}/{}", self.base, release.version, release.archive);
        let bytes = self.bytes(&address, LARGEST_ARCHIVE)?;
        if hexadecimal(&Sha256::digest(&bytes)) != release.checksum {
            return Err(Refusal::Checksum(address));
        }
        let stem = release.archive.trim_end_matches(".tar.gz");
        unpacked(&bytes, &format!("{stem}/rano")).map_err(|why| Refusal::Archive(address, why))
    }

    fn text(&self, address: &str) -> Result<String, Refusal> {
        let bytes = self.bytes(address, LARGEST_LIST)?;
        String::from_utf8(bytes).map_err(|_| Refusal::CannotAsk {
            address: address.to_owned(),
            trouble: Trouble::Failed("what came is no text".to_owned()),
        })
    }

    fn bytes(&self, address: &str, at_most: u64) -> Result<Vec<u8>, Refusal> {
        fetch(address, at_most, self.patience)
            .map_err(|trouble| Refusal::CannotAsk { address: address.to_owned(), trouble })
    }
}

/// The checksum of `name` in a list such as sha256sum writes.
fn listed(list: &str, name: &str) -> Option<String> {
    let line = list.lines().find(|line| line.split_once("  ").is_some_and(|(_, listed)| listed == name))?;
    let (checksum, _) = line.split_once("  ")?;
    (checksum.len() == 64).then(|| checksum.to_ascii_lowercase())
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The regular file `name` of a compressed archive. Nothing else of it is unpacked, and nothing is written.
fn unpacked(archive: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        if *entry.path_bytes() != *name.as_bytes() {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(format!("{name} is no regular file"));
        }
        let size = entry.size();
        if size > LARGEST_PROGRAM {
            return Err(format!("{name} is too large"));
        }
        let mut program = Vec::new();
        entry.take(LARGEST_PROGRAM).read_to_end(&mut program).map_err(|error| error.to_string())?;
        return if program.len() as u64 == size { Ok(program) } else { Err(format!("{name} is cut off")) };
    }
    Err(format!("there is no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers_and_go_by_number() {
        let version = |text: &str| text.parse::<Version>();
        assert!(version("v0.10.0").unwrap() > version("0.9.12").unwrap());
        assert_eq!(version("v1.2.3").unwrap().to_string(), "1.2.3");
        for text in ["", "1", "1.2", "1.2.3.4", "1.02.3", "1.2.+3", "1.2.3-rc1", "vv1.2.3", "1. 2.3"] {
            assert!(version(text).is_err(), "{text}");
        }
        assert!(current() > Version([0, 0, 0]));
    }

    #[test]
    fn a_checksum_is_found_by_its_whole_name() {
        let sum = "a".repeat(64);
        let list = format!("{}  xrano\n{sum}  rano\nshort  other\n", "b".repeat(64));
        assert_eq!(listed(&list, "rano"), Some(sum));
        assert_eq!(listed(&list, "ran"), None);
        assert_eq!(listed(&list, "other"), None);
    }

    #[test]
    fn the_key_of_the_tests_is_one() {
        assert!(key().is_some());
    }
}
