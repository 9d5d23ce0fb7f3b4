//! What the kernel programs say of their decisions, on standard error (feature `kernel-log`).

use crate::output::stream;

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        stream::say(&format!("kernel: {}\n", record.args()));
    }

    fn flush(&self) {}
}

/// Once for the process; later calls change nothing.
pub(super) fn begin() {
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
