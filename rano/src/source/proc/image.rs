//! What a process runs, as /proc says.

use super::files::{ProcessDirectory, Refusal};
use super::stat::Stat;
use crate::process::Image;

/// More of a command line is not read. A single argument can have 128 KiB, all of them 2 MiB.
pub(super) const LONGEST_COMMAND_LINE: usize = 256 * 1024;
/// The remaining arguments are taken as one.
pub(super) const MOST_ARGUMENTS: usize = 4096;

/// What a process runs. The stat line was read before: an exec after that shows in the next signature.
pub(super) fn read_image(
    process: &ProcessDirectory,
    pid: u32,
    stat: &Stat<'_>,
    bytes: &mut Vec<u8>,
) -> Result<Image, Refusal> {
    let uid = process.uid()?;
    // The main thread gave back what it shared with the others when it ended.
    let living = stat.life().is_headless.then(|| process.living_thread(pid).ok()).flatten();
    let process = living.as_ref().unwrap_or(process);
    let mut target = [0; 4096];
    let exe = match process.link(c"exe", &mut target) {
        Ok(path) => String::from_utf8_lossy(path).into_owned(),
        // A kernel thread has none, and others' may not be read.
        Err(Refusal::Gone | Refusal::Denied | Refusal::Failed) => String::new(),
    };
    match process.read(c"cmdline", LONGEST_COMMAND_LINE, bytes) {
        Ok(()) => {}
        Err(Refusal::Gone) => return Err(Refusal::Gone),
        Err(Refusal::Denied | Refusal::Failed) => bytes.clear(),
    }
    let image =
        Image { comm: String::from_utf8_lossy(stat.comm).into_owned(), exe, argv: arguments(bytes), uid };
    bytes.clear();
    bytes.shrink_to(16 * 1024);
    Ok(image)
}

/// What `/proc/<pid>/cmdline` holds: arguments with a NUL behind each. A process that wrote its title over them
/// leaves any number of NULs at the end.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut arguments: Vec<String> = bytes[..end].splitn(MOST_ARGUMENTS, |&b| b == 0).map(text).collect();
    if let Some(last) = arguments.last_mut().filter(|last| last.contains('\0')) {
        *last = last.replace('\0', " ");
    }
    arguments
}
