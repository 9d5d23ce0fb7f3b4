//! Endpoints of which nobody knows what they are: each is told of once, when its name has had its time to become known.
//! Of more than a person can read only a few are told one by one, and how many there were.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::bounded::Bounded;
use crate::change::SocketId;
use crate::event::ConnectionId;
use crate::process::ProcessId;

/// Endpoints that are remembered to have been told of. The oldest makes room, and is told of again.
const TOLD_MAX: usize = 1 << 14;
/// Connections that wait for a name at a time; beyond that nothing is waited for.
const WAITING_MAX: usize = 1 << 14;
/// How long lines are counted together.
const WINDOW_NS: u64 = 10_000_000_000;
/// Lines in that time: of one process, so that it does not hide another's endpoint, and in all.
const LINES_OF_ONE: u32 = 20;
const LINES: u32 = 60;

/// A connection that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub due_ns: u64,
    pub socket: SocketId,
    pub connection: ConnectionId,
}

/// What is to be said of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A line of its own.
    Line,
    /// There were too many lines: it is counted.
    Counted,
    /// It was told of.
    Nothing,
}

/// An address, or what a proxy there was asked for.
pub type Endpoint = (SocketAddr, Option<Arc<str>>);

/// When an endpoint was told of last, or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Line,
    /// In the window that began then: in another one it may get its line.
    Counted(u64),
}

/// What was told, and what waits.
pub struct UnknownEndpoints {
    told: Bounded<Endpoint, Told>,
    /// All wait equally long.
    waiting: VecDeque<Waiting>,
    window: Window,
    /// Connections that found no room to wait.
    pub not_awaited: u64,
}

/// The lines of a while.
#[derive(Debug, Default)]
struct Window {
    began_ns: u64,
    lines: u32,
    lines_of: FxHashMap<Option<ProcessId>, u32>,
    counted: u64,
}

impl Default for UnknownEndpoints {
    fn default() -> Self {
        Self {
            told: Bounded::new(TOLD_MAX),
            waiting: VecDeque::new(),
            window: Window::default(),
            not_awaited: 0,
        }
    }
}

impl UnknownEndpoints {
    /// Whether the connection waits now; otherwise it is to be told at once, if [`Self::news`] says so.
    pub fn wait(&mut self, waiting: Waiting) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back(waiting);
        }
        self.not_awaited += u64::from(!has_room);
        has_room
    }

    pub fn was_told(&self, endpoint: &Endpoint) -> bool {
        self.told.get(endpoint) == Some(&Told::Line)
    }

    /// What to say of it. What a window that is over left uncounted is to be taken before, see [`Self::take_counted`].
    pub fn news(&mut self, endpoint: Endpoint, who: Option<ProcessId>, now_ns: u64) -> News {
        if self.window.lines == 0 {
            self.window.began_ns = now_ns;
        }
        let window = &mut self.window;
        match self.told.get(&endpoint) {
            Some(Told::Line) => return News::Nothing,
            Some(Told::Counted(when)) if *when == window.began_ns => return News::Nothing,
            Some(Told::Counted(_)) | None => {}
        }
        let of_one = window.lines_of.get(&who).copied().unwrap_or_default();
        if window.lines < LINES && of_one < LINES_OF_ONE {
            window.lines += 1;
            *window.lines_of.entry(who).or_default() += 1;
            self.told.insert(endpoint, Told::Line);
            return News::Line;
        }
        window.counted += 1;
        self.told.insert(endpoint, Told::Counted(window.began_ns));
        News::Counted
    }

    /// How many endpoints were only counted in a window that is over by `now_ns`.
    pub fn take_counted(&mut self, now_ns: u64) -> Option<u64> {
        let is_over = self.window_ends_ns().is_some_and(|end| end <= now_ns);
        let window = is_over.then(|| std::mem::take(&mut self.window))?;
        Some(window.counted).filter(|counted| *counted > 0)
    }

    fn window_ends_ns(&self) -> Option<u64> {
        (self.window.lines > 0).then(|| self.window.began_ns.saturating_add(WINDOW_NS))
    }

    pub fn next_due(&self) -> Option<u64> {
        let waiting = self.waiting.front().map(|waiting| waiting.due_ns);
        // Nothing is to be said of a window in which every line was told.
        let counted = self.window_ends_ns().filter(|_| self.window.counted > 0);
        waiting.into_iter().chain(counted).min()
    }

    pub fn take_due(&mut self, now_ns: u64) -> Option<Waiting> {
        self.waiting.pop_front_if(|waiting| waiting.due_ns <= now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn endpoint(number: u32) -> Endpoint {
        (SocketAddr::from((std::net::Ipv4Addr::from(0x0b00_0000 + number), 443)), None)
    }

    fn news(unknown: &mut UnknownEndpoints, number: u32, pid: u32, now_ns: u64) -> News {
        unknown.news(endpoint(number), Some(ProcessId { pid, start_time: 1 }), now_ns)
    }

    #[test]
    fn an_endpoint_is_told_once() {
        let mut unknown = UnknownEndpoints::default();
        assert_eq!(news(&mut unknown, 1, 1, 0), News::Line);
        assert!(unknown.was_told(&endpoint(1)) && !unknown.was_told(&endpoint(2)));
        assert_eq!(news(&mut unknown, 1, 2, 60 * SECOND), News::Nothing);
        assert_eq!(unknown.next_due(), None, "nothing was only counted");
    }

    #[test]
    fn after_a_flood_unknown_endpoints_are_told_of_again() {
        let mut unknown = UnknownEndpoints::default();
        for number in 0..20_000 {
            news(&mut unknown, number, 1, 2 * SECOND);
        }
        assert_eq!(unknown.next_due(), Some(12 * SECOND));
        assert_eq!(unknown.take_counted(12 * SECOND), Some(20_000 - 20));
        assert_eq!(news(&mut unknown, 20_001, 1, 13 * SECOND), News::Line);
        assert_eq!(news(&mut unknown, 19_999, 1, 13 * SECOND), News::Line, "it had no line");
    }

    #[test]
    fn a_process_that_tells_too_much_hides_no_other() {
        let mut unknown = UnknownEndpoints::default();
        for number in 0..1_000 {
            news(&mut unknown, number, 1, 0);
        }
        assert_eq!(news(&mut unknown, 5_000, 2, 1), News::Line);
        assert_eq!(news(&mut unknown, 999, 1, 1), News::Nothing, "counted once in a window");
        assert_eq!(unknown.take_counted(u64::MAX), Some(980));
    }

    #[test]
    fn too_many_processes_are_counted_together() {
        let mut unknown = UnknownEndpoints::default();
        let lines = (0..1_000).filter(|&n| news(&mut unknown, n, n, 0) == News::Line).count();
        assert_eq!(lines, LINES as usize);
    }

    #[test]
    fn beyond_the_bound_nothing_waits() {
        let mut unknown = UnknownEndpoints::default();
        let waiting = Waiting {
            due_ns: 1,
            socket: SocketId::Cookie { netns: 1, cookie: 1 },
            connection: ConnectionId(1),
        };
        assert!((0..WAITING_MAX).all(|_| unknown.wait(waiting)));
        assert!(!unknown.wait(waiting));
        assert_eq!(unknown.not_awaited, 1);
    }
}
