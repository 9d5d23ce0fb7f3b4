//! Names from packets: live on every device of rano's network namespace by libpcap, where rano was built with it, or
//! out of a capture file, which takes no libpcap.

use std::path::Path;

use anyhow::Result;

use super::feed::Feed;
use crate::files::{Files, NamedBy};

#[cfg(feature = "pcap")]
mod live;

/// Watches every device. An error says why that is not possible here.
#[cfg(feature = "pcap")]
pub fn open_live() -> Result<Feed> {
    live::open()
}

/// Watches every device. An error says why that is not possible here.
#[cfg(not(feature = "pcap"))]
pub fn open_live() -> Result<Feed> {
    anyhow::bail!("this rano was built without libpcap (cargo build --features pcap)")
}

/// Takes names out of a capture file, pcap or pcapng.
pub fn open_file(path: &Path, files: &Files, named_by: NamedBy) -> Result<Feed> {
    Feed::from_file(path, files, named_by)
}
