//! What the kernel programs must be told of the running kernel before they are loaded.

use anyhow::{Context as _, Result};
use rano_common::{OFFSET_COUNT, Offset};
use rustc_hash::FxHashMap;

use super::btf::Btf;
use super::hooks;
use crate::source::views;

pub const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What it takes to number processes as a nested pid namespace does, and nothing else.
const NUMBERS: [Offset; 5] = [
    Offset::TaskNumbers,
    Offset::PidLevel,
    Offset::PidNumbers,
    Offset::NumberNamespace,
    Offset::PidNamespaceInode,
];

/// What only kernels have that know Multipath TCP.
const MULTIPATH: [Offset; 2] = [Offset::SubflowParent, Offset::MultipathFirst];

/// What the programs must know of the running kernel.
pub struct Kernel {
    pub offsets: [u32; OFFSET_COUNT],
    /// How many arguments a function takes, if the first is a socket.
    pub arguments: FxHashMap<&'static str, usize>,
}

impl Kernel {
    pub fn read() -> Result<Self> {
        let bytes = std::fs::read(KERNEL_TYPES)
            .with_context(|| format!("read {KERNEL_TYPES} (the kernel needs CONFIG_DEBUG_INFO_BTF)"))?;
        let btf = Btf::parse(&bytes).with_context(|| format!("understand {KERNEL_TYPES}"))?;
        let mut offsets = [0; OFFSET_COUNT];
        let numbers_everybody = views::own().nested_pids().is_none();
        for field in Offset::ALL {
            let (structure, path) = field.path();
            offsets[field as usize] = match btf.offset(structure, path) {
                Err(_) if numbers_everybody && NUMBERS.contains(&field) => 0,
                // Neither is the first field of its structure.
                Err(_) if MULTIPATH.contains(&field) => 0,
                found => found?,
            };
        }
        let arguments = btf.arguments(hooks::functions());
        let of_sockets = arguments.into_iter().filter(|(_, names)| names.first() == Some(&&b"sk"[..]));
        let arguments = of_sockets.map(|(function, names)| (function, names.len())).collect();
        Ok(Self { offsets, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        if !std::path::Path::new(KERNEL_TYPES).exists() {
            println!("skipped: no {KERNEL_TYPES}");
            return;
        }
        let kernel = Kernel::read().expect("read");
        assert_eq!(kernel.offsets[Offset::SockRemote4 as usize], 0, "the first field of struct sock_common");
        assert_ne!(kernel.offsets[Offset::PidNumbers as usize], 0, "the last field of struct pid");
        assert_eq!(kernel.offsets[Offset::SockFamily as usize], 16);
        assert_eq!(kernel.arguments.get("tcp_connect"), Some(&1));
    }
}
