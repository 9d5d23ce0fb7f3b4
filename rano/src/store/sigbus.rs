//! A file that is mapped and then cut kills who touches what is gone: SIGBUS. SQLite maps the index of its log
//! (`-shm`), and who shares the file may cut it at any time. So its mappings are entered here; where the kernel finds
//! one of their pages gone, a page of zeros takes its place, and a flag says that what SQLite read there is worth
//! nothing. Any other SIGBUS ends the process as before.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use rusqlite::ffi;

/// Mappings that may exist at a time. One holds the index of 4096 frames, 16 MiB of log; without room SQLite is told
/// that there is no memory.
const SLOTS: usize = 4096;

/// What a slot holds while it is being filled. No page is there.
const TAKEN: usize = 1;

/// A mapping, and whom to tell. Free where `base` is 0.
struct Slot {
    base: AtomicUsize,
    length: AtomicUsize,
    cut: AtomicPtr<AtomicBool>,
}

static MAPPED: [Slot; SLOTS] = [const {
    Slot { base: AtomicUsize::new(0), length: AtomicUsize::new(0), cut: AtomicPtr::new(ptr::null_mut()) }
}; SLOTS];

static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// What SIGBUS did before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

thread_local! {
    /// Whom the mappings that this thread makes belong to.
    static OWNER: Cell<*mut AtomicBool> = const { Cell::new(ptr::null_mut()) };
}

/// The mappings of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mappings {
    /// Never freed: a signal may come at any time. It is one byte a connection.
    cut: &'static AtomicBool,
}

impl Mappings {
    /// From now on what SQLite maps in this thread belongs to the answer.
    pub(super) fn watch() -> Self {
        install();
        let mappings = Self { cut: Box::leak(Box::new(AtomicBool::new(false))) };
        mappings.claim_thread();
        mappings
    }

    /// The connection is used in this thread from now on.
    pub(super) fn claim_thread(self) {
        OWNER.set(ptr::from_ref(self.cut).cast_mut());
    }

    /// Whether a page was gone, and zeros were read instead.
    pub(super) fn were_cut(self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// Once, before the first connection maps anything.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: it takes a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if let Ok(page) = usize::try_from(page) {
            PAGE.store(page, Ordering::Relaxed);
        }
        install_handler();
        replace_system_calls();
    });
}

fn install_handler() {
    // SAFETY: all-zero bytes are a valid sigaction: default action, empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks only; `before` outlives the call.
    unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) };
    let _ = PREVIOUS.set(before);
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    action.sa_sigaction = handler as usize;
    // As the runtime's own handler: on a stack of its own.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler calls only what is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
}

/// Returning repeats the access.
extern "C" fn on_sigbus(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: that of a SIGBUS has an address.
    let address = unsafe { info.si_addr() } as usize;
    // What was interrupted may be about to read it.
    let errno = errno();
    // SAFETY: the pointer is to this thread's own errno, which lives as long as the thread.
    let before = unsafe { *errno };
    if !replace_page(address) {
        // Not one of ours: what would have happened, happens now.
        let previous = PREVIOUS.get().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: async-signal-safe (signal-safety(7)); `previous` is what was in place before.
        unsafe { libc::sigaction(libc::SIGBUS, previous, ptr::null_mut()) };
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Where this thread's error number is.
fn errno() -> *mut c_int {
    // SAFETY: it takes nothing and always answers.
    unsafe { libc::__errno_location() }
}

/// Puts zeros where a page of a known mapping is gone.
fn replace_page(address: usize) -> bool {
    let found = MAPPED.iter().find(|slot| {
        let base = slot.base.load(Ordering::Acquire);
        base > TAKEN && address.wrapping_sub(base) < slot.length.load(Ordering::Relaxed)
    });
    let Some(slot) = found else { return false };
    let cut = slot.cut.load(Ordering::Relaxed);
    let page = PAGE.load(Ordering::Relaxed);
    let at = address & !(page - 1);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page lies in a mapping that is entered here and so is SQLite's; mmap is a plain system call.
    let mapped =
        unsafe { libc::mmap(at as *mut c_void, page, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: a slot that is filled points to a flag that is never freed.
    unsafe { (*cut).store(true, Ordering::Release) };
    true
}

/// SQLite calls what stands in a table of the VFS (<https://sqlite.org/c3ref/vfs.html>).
fn replace_system_calls() {
    type Map = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
    type Unmap = unsafe extern "C" fn(*mut c_void, usize) -> c_int;
    let (map, unmap): (Map, Unmap) = (map, unmap);
    // SAFETY: SQLite casts it back to the type of mmap before it calls it.
    let map = unsafe { mem::transmute::<Map, unsafe extern "C" fn()>(map) };
    // SAFETY: the same for munmap.
    let unmap = unsafe { mem::transmute::<Unmap, unsafe extern "C" fn()>(unmap) };
    let calls: [(&CStr, _); 2] = [(c"mmap", map), (c"munmap", unmap)];
    // SAFETY: initializes the library if need be; the answer lives as long as the process.
    let vfs = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    // SAFETY: the default VFS is there, or null.
    let Some(set) = unsafe { vfs.as_ref() }.and_then(|vfs| vfs.xSetSystemCall) else { return };
    for (name, call) in calls {
        // SAFETY: the name is a C string, and the function has the type of the system call of that name.
        unsafe { set(vfs, name.as_ptr(), Some(call)) };
    }
}

/// In place of mmap(2).
unsafe extern "C" fn map(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: what SQLite passed is passed on.
    let mapped = unsafe { libc::mmap64(address, length, protection, flags, fd, offset) };
    let owner = OWNER.get();
    if mapped == libc::MAP_FAILED || owner.is_null() {
        return mapped;
    }
    for slot in &MAPPED {
        if slot.base.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            slot.length.store(length, Ordering::Relaxed);
            slot.cut.store(owner, Ordering::Relaxed);
            slot.base.store(mapped as usize, Ordering::Release);
            return mapped;
        }
    }
    // SAFETY: it was mapped a moment ago, and nobody knows of it.
    unsafe { libc::munmap(mapped, length) };
    // SAFETY: the pointer is to this thread's own errno.
    unsafe { *errno() = libc::ENOMEM };
    libc::MAP_FAILED
}

/// In place of munmap(2).
unsafe extern "C" fn unmap(address: *mut c_void, length: usize) -> c_int {
    // Before the address can be given to somebody else.
    if let Some(slot) = MAPPED.iter().find(|slot| slot.base.load(Ordering::Relaxed) == address as usize) {
        slot.base.store(0, Ordering::Release);
    }
    // SAFETY: what SQLite passed is passed on.
    unsafe { libc::munmap(address, length) }
}
