//! What the thread of the quick looks read and heard of processes.

use super::{Entry, ProcessScanner, ROUND, State, stat_buffer};
use crate::event::Moment;
use crate::process::{Birth, ProcessId};
use crate::source::Intake;
use crate::source::proc::catch::Met;

/// Processes above one with a new socket that are read anew if they changed.
const FRESH_ANCESTORS: usize = 8;

impl ProcessScanner {
    /// A child of a watched process, as somebody else read it. Whether it is watched.
    pub(in super::super) fn admit(&mut self, met: Met, intake: &mut dyn Intake) -> bool {
        let Met { id, parent, forker, image, facts, occasion, at } = met;
        if self.table.get(&id.pid).is_some_and(|entry| entry.start_time != id.start_time) {
            self.remove(id.pid, at, intake);
        }
        // A scan may have read it since: what is there now decides.
        if self.has_met(id) && at.boot_ns <= self.scanned_ns {
            self.look(id.pid, at, intake);
            return self.is_tracked(id);
        }
        let scans = self.scans;
        let entry = self.table.entry(id.pid).or_insert_with(|| Entry {
            start_time: id.start_time,
            session: facts.session,
            ..Entry::hidden(scans)
        });
        if entry.state != State::Alive {
            return false;
        }
        entry.signature = facts.signature;
        entry.program = facts.program;
        entry.settles = scans.wrapping_add(ROUND);
        let session = Some(facts.session).filter(|&leader| leader != 0 && leader != id.pid);
        let birth = Birth { forker, of_tracked: forker.is_some(), session };
        self.tell(id.pid, parent, image, (birth, occasion), at, intake);
        self.read_newly_tracked(at, intake);
        self.is_tracked(id)
    }

    /// A process ended, as somebody else heard.
    pub(in super::super) fn bury(&mut self, id: ProcessId, at: Moment, intake: &mut dyn Intake) {
        if self.has_met(id) {
            self.remove(id.pid, at, intake);
        }
    }

    /// Looks at processes that are said to have begun a program.
    pub(in super::super) fn meet_some(&mut self, pids: &[u32], at: Moment, intake: &mut dyn Intake) {
        for &pid in pids {
            if self.table.contains_key(&pid) {
                self.look(pid, at, intake);
            } else {
                self.meet(pid, false, at, intake);
            }
        }
        self.read_newly_tracked(at, intake);
        self.place_orphans(at, intake);
    }

    /// Reads anew what a watched process, or one above it, began since it was read last. What ended is left to scans.
    pub(in super::super) fn freshen(&mut self, id: ProcessId, at: Moment, intake: &mut dyn Intake) {
        let mut pid = id.pid;
        for _ in 0..FRESH_ANCESTORS {
            let Some(entry) = self.table.get(&pid).filter(|entry| entry.tracked) else { return };
            let mut buffer = stat_buffer();
            let Ok(stat) = self.files.stat(pid, &mut buffer) else { return };
            if stat.start_time != entry.start_time || stat.is_ended() {
                return;
            }
            if stat.signature != entry.signature {
                self.read_again(pid, at, intake);
            }
            pid = stat.parent;
        }
    }
}
