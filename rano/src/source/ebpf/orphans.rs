//! Sockets whose process nobody knows, because its records were lost and it is gone: each is counted once, when it
//! ends.

use rano_common::{SocketKind, SocketRecord, flags};
use rustc_hash::FxHashSet;

/// Beyond so many open ones they are counted as they come.
const MOST: usize = 1 << 16;

/// Cookies of sockets that wait for somebody to be known.
#[derive(Default)]
pub struct Orphans {
    waiting: FxHashSet<u64>,
}

impl Orphans {
    /// A record of a socket whose process is not known has come; how many connections have to be counted now.
    pub fn told(&mut self, kind: SocketKind, record: &SocketRecord) -> u64 {
        // Of those before this one, none may have arrived; what waits under its number is then another connection,
        // whose end was lost.
        let is_first = record.flags & (flags::HEARD | flags::PREEXISTING) == 0;
        let others = u64::from(is_first && self.waiting.contains(&record.cookie));
        match kind {
            SocketKind::Closed | SocketKind::Released | SocketKind::Failed => {
                let has_waited = self.waiting.remove(&record.cookie);
                others + u64::from(has_waited || is_first)
            }
            SocketKind::Accepted | SocketKind::Listening => 0,
            SocketKind::Attempt | SocketKind::Established | SocketKind::Datagram | SocketKind::Bound => {
                if self.waiting.len() < MOST || self.waiting.contains(&record.cookie) {
                    self.waiting.insert(record.cookie);
                    return others;
                }
                u64::from(!matches!(kind, SocketKind::Established | SocketKind::Bound))
            }
        }
    }

    /// The process of the socket became known.
    pub fn adopted(&mut self, cookie: u64) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&cookie);
        }
    }

    /// Those that are left when nothing comes any more.
    pub fn finish(&mut self) -> u64 {
        self.waiting.drain().count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ebpf::sockets::tests::record;

    #[test]
    fn a_connection_counts_once_whichever_of_its_records_arrived() {
        use SocketKind::{Attempt, Closed, Established};
        let check = |kinds: &[SocketKind], at_once, at_last| {
            let mut orphans = Orphans::default();
            let mut heard = 0;
            let mut counted = 0;
            for &kind in kinds {
                counted += orphans.told(kind, &record(kind, heard));
                heard = flags::HEARD;
            }
            assert_eq!((counted, orphans.finish()), (at_once, at_last), "{kinds:?}");
        };
        check(&[Attempt, Established, Closed], 1, 0);
        check(&[Closed], 1, 0);
        check(&[Established], 0, 1);
        check(&[Attempt, Established], 0, 1);
    }

    #[test]
    fn one_whose_end_was_lost_counts_beside_the_next_of_that_number() {
        use SocketKind::{Attempt, Closed};
        let mut orphans = Orphans::default();
        let mut tell = |kind, flags| orphans.told(kind, &record(kind, flags));
        assert_eq!((tell(Attempt, 0), tell(Attempt, 0), tell(Closed, flags::HEARD)), (0, 1, 1));
        assert_eq!((tell(Attempt, 0), tell(Closed, 0)), (0, 2));
    }

    #[test]
    fn the_end_of_one_that_was_given_to_somebody_before_does_not_count() {
        let end = record(SocketKind::Closed, flags::HEARD);
        assert_eq!(Orphans::default().told(SocketKind::Closed, &end), 0);
    }

    #[test]
    fn one_whose_process_became_known_does_not_count() {
        let mut orphans = Orphans::default();
        orphans.told(SocketKind::Attempt, &record(SocketKind::Attempt, 0));
        orphans.adopted(7);
        assert_eq!(orphans.finish(), 0);
    }
}
