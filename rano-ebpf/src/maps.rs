//! All state of the kernel programs.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use rano_common::{
    CALLS_MAX, DESTINATIONS_MAX, DestinationWords, FLOWS_MAX, FOLLOWED_GROUPS, FlowBytes, FlowKey,
    JUDGEMENTS_MAX, JudgementWords, LEFT_OUT_FLOWS_MAX, LISTENERS_MAX, LeftOut, ListenerKey, ListenerWords,
    Loss, OFFSET_COUNT, OWNERS_MAX, Offset, OwnerWords, RING_BYTES, SETTING_COUNT, Setting,
    TRACKED_MARKS_MAX, TRACKED_MAX,
};

use crate::follow::add;

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// By pid of the thread group: whoever is not watched, or asked for. Written by user space, and here when a process is
/// told of, forks or ends. Anybody's forks come here; a forgotten verdict is asked for again.
#[map]
pub static JUDGEMENTS: LruHashMap<u32, JudgementWords> = LruHashMap::with_max_entries(JUDGEMENTS_MAX, 0);

/// The same of watched processes, which others' forks do not push out.
#[map]
pub static TRACKED: HashMap<u32, JudgementWords> = HashMap::with_max_entries(TRACKED_MAX, 0);

/// Not 0: a process whose pid has this mark is watched, or was not judged since its exec. A look at it costs a tenth of
/// one for a verdict.
#[map]
pub static TRACKED_MARKS: Array<u64> = Array::with_max_entries(TRACKED_MARKS_MAX, 0);

/// By socket cookie, or without hooks of cgroups by the socket's address.
#[map]
pub static OWNERS: HashMap<u64, OwnerWords> = HashMap::with_max_entries(OWNERS_MAX, 0);

/// How many of them have [`flags::LIMITED`](rano_common::flags::LIMITED).
#[map]
pub static LIMITED: Array<u64> = Array::with_max_entries(1, 0);

/// How many sockets of each group have an owner: a look at it costs a tenth of one for an owner that is not there. What
/// user space adds is not counted here.
#[map]
pub static FOLLOWED: Array<u64> = Array::with_max_entries(FOLLOWED_GROUPS, 0);

/// Not 0: to a socket of this group user space gave an owner.
#[map]
pub static FOLLOWED_OLDER: Array<u64> = Array::with_max_entries(FOLLOWED_GROUPS, 0);

/// Destinations that were told, and what went there. A forgotten one is told again, and user space knows it.
#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowBytes> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

/// By thread: with whom the datagram is exchanged that is just being sent or received.
#[map]
pub static TALKS: LruHashMap<u64, FlowKey> = LruHashMap::with_max_entries(CALLS_MAX, 0);

/// By cookie: where the last packet of a socket went that is neither TCP's nor UDP's.
#[map]
pub static DESTINATIONS: LruHashMap<u64, DestinationWords> =
    LruHashMap::with_max_entries(DESTINATIONS_MAX, 0);

/// By thread: the socket with which a function was called that has not returned, and its flags.
#[map]
pub static CALLS: HashMap<u64, [u64; 2]> = HashMap::with_max_entries(CALLS_MAX, 0);

#[map]
pub static LISTENERS: HashMap<ListenerKey, ListenerWords> = HashMap::with_max_entries(LISTENERS_MAX, 0);

/// 1 once the function that accepts is hooked: it then tells, and not the handshake.
#[map]
pub static ACCEPT_HOOKED: Array<u32> = Array::with_max_entries(1, 0);

/// 1 once it is seen how many bytes a call on a datagram socket exchanged: a flow then begins with its first datagram.
#[map]
pub static DATAGRAMS_HOOKED: Array<u32> = Array::with_max_entries(1, 0);

/// What excluded processes exchange datagrams with. A forgotten one is counted again.
#[map]
pub static LEFT_OUT_FLOWS: LruHashMap<FlowKey, u8> = LruHashMap::with_max_entries(LEFT_OUT_FLOWS_MAX, 0);

#[map]
pub static LEFT_OUT: PerCpuArray<u64> = PerCpuArray::with_max_entries(LeftOut::ALL.len() as u32, 0);

#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// Set by the loader from the running kernel's BTF; `rano_common::OFFSETS_GLOBAL` is its name.
#[unsafe(no_mangle)]
static RANO_OFFSETS_9: [u32; OFFSET_COUNT] = [0; OFFSET_COUNT];

/// Set by the loader; `rano_common::SETTINGS_GLOBAL` is its name.
#[unsafe(no_mangle)]
static RANO_SETTINGS_9: [u32; SETTING_COUNT] = [0; SETTING_COUNT];

#[inline(always)]
pub fn offset(of: Offset) -> usize {
    // SAFETY: the index is that of a variant, and so within the array; volatile because the loader changes it.
    unsafe { core::ptr::read_volatile(&raw const RANO_OFFSETS_9[of as usize]) as usize }
}

#[inline(always)]
pub fn setting(of: Setting) -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const RANO_SETTINGS_9[of as usize]) }
}

#[inline(always)]
pub fn lost(what: Loss) {
    crate::log::full(what);
    count(&LOST, what as u32);
}

/// Another one of an excluded process.
#[inline(always)]
pub fn left_out(what: LeftOut) {
    count(&LEFT_OUT, what as u32);
}

#[inline(always)]
fn count(counts: &PerCpuArray<u64>, at: u32) {
    if let Some(count) = counts.get_ptr_mut(at) {
        // A program in a process's context may be interrupted here by one that counts the same.
        add(count, 1);
    }
}
