use super::*;
use crate::event::Protocol;

/// Keeps who has gone.
#[derive(Default)]
struct Left(Vec<ProcessId>);

impl Intake for Left {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        if let ProcessChange::Gone { id, .. } = change {
            self.0.push(id);
        }
        Verdict::Tracked
    }

    fn socket(&mut self, _: SocketChange) {}

    fn evidence(&mut self, _: Evidence) {}

    fn unattributed(&mut self, _: u64) {}
    fn stray(&mut self, _: crate::source::Stray) {}

    fn left_out(&mut self, _: u64) {}

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        Vec::new()
    }

    fn verdict(&self, _: ProcessId) -> Verdict {
        Verdict::Tracked
    }

    fn watches(&self, _: Party) -> bool {
        false
    }

    fn open(&self, _: Protocol) -> Vec<Open> {
        Vec::new()
    }
}

#[test]
fn a_process_whose_exit_was_lost_is_gone_once_proc_is_read() {
    let mut processes = Processes::new(Moment::default(), false).expect("/proc");
    // Its pid is taken by another one.
    let ended = ProcessId { pid: std::process::id(), start_time: 1 };
    processes.known.insert(ended.pid, known(ended, Some(3)));
    let mut left = Left::default();
    processes.read_all(crate::source::now(), &|_| None, &mut left);
    assert!(processes.known.get(&ended.pid).is_none_or(|known| !known.is(ended)));
    // Others' processes come and go meanwhile.
    assert_eq!(left.0.iter().filter(|id| **id == ended).count(), 1);
    assert!(processes.departed.contains(&ended), "its sockets may end after it");
}

fn known(id: ProcessId, last: Option<u32>) -> Known {
    Known {
        start_time: id.start_time,
        parent: 1,
        image: Image::default(),
        told: last.map(|last| (0, last)),
        verdict: Verdict::Ignored,
        tracked_from: None,
        by_rename: false,
    }
}

#[test]
fn whoever_ran_another_program_since_it_was_told_of_is_not_remembered() {
    let id = ProcessId { pid: 4_000_000, start_time: 7 };
    let check = |last, alive, departed| {
        let mut processes = Processes::new(Moment::default(), false).expect("/proc");
        processes.known.insert(id.pid, known(id, last));
        assert_eq!(processes.remembered(id, 3), alive, "alive, told of {last:?}");
        depart(id, &mut processes.known, &mut processes.departed);
        assert_eq!(processes.remembered(id, 3), Some(departed), "departed, told of {last:?}");
    };
    check(Some(3), Some(Acquaintance::Alive), Acquaintance::Departed);
    check(Some(2), None, Acquaintance::Unknown);
    // Read in /proc, perhaps before it ran the program that opened the socket.
    check(None, None, Acquaintance::Unknown);
}

#[test]
fn a_process_that_has_ended_is_not_learned_anew_from_what_proc_still_lists() {
    let mut processes = Processes::new(Moment::default(), false).expect("/proc");
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let start_time = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)?.parse().ok());
    let id = ProcessId { pid: std::process::id(), start_time: start_time.expect("field 22") };
    processes.known.insert(id.pid, known(id, Some(3)));
    depart(id, &mut processes.known, &mut processes.departed);
    processes.read_all(crate::source::now(), &|_| None, &mut Left::default());
    assert_eq!(processes.remembered(id, 3), Some(Acquaintance::Departed));
}
