//! Where a process stands: below the one that forked it, as far as that can be known.

use super::Tree;
use super::node::{Link, Node, Place, Standing, State};
use crate::process::{Birth, ProcessId, Verdict};

/// Of every pid namespace; what is orphaned becomes its child, unless there is a nearer reaper.
const INIT: u32 = 1;

impl Tree {
    pub(super) fn insert(&mut self, id: ProcessId, parent: u32, birth: Birth) {
        let node = Node {
            start_time: id.start_time,
            place: Place::NOWHERE,
            comm: Box::default(),
            who: None,
            detail: None,
            ppid: parent,
            uid: 0,
            own: None,
            standing: Standing::Plain,
            state: State::Ignored,
            is_counted: false,
        };
        self.live.insert(id.pid, node);
        match birth.forker {
            Some(forker) => self.put_below(id, forker),
            None => self.put_below_pid(id, parent),
        }
    }

    /// Whoever has that pid.
    fn put_below_pid(&mut self, id: ProcessId, parent: u32) {
        let place = match self.live.get(&parent) {
            _ if parent == 0 || parent == id.pid => Place::NOWHERE,
            Some(node) if node.start_time <= id.start_time => Place::known(node.id(parent)),
            // The pid was given to a younger process: the parent is dead and was never seen.
            Some(_) => Place::NOWHERE,
            None => Place { pid: parent, link: Link::Waiting, start_time: 0 },
        };
        self.place(id, place);
    }

    fn put_below(&mut self, id: ProcessId, forker: ProcessId) {
        let place = match self.node(forker) {
            _ if forker.pid == id.pid => Place::NOWHERE,
            Some(_) => Place::known(forker),
            None => Place { link: Link::WaitingFor, ..Place::known(forker) },
        };
        self.place(id, place);
    }

    fn place(&mut self, id: ProcessId, place: Place) {
        if let Some(node) = self.live.get_mut(&id.pid) {
            node.place = place;
        }
        if matches!(place.link, Link::Waiting | Link::WaitingFor) {
            self.waiting.entry(place.pid).or_default().push(id.pid);
        }
    }

    /// Whose parent is nobody's and who is of a session that a watched process began, was started from there: a session
    /// is entered by fork alone (setsid(2)), and its number is not used again while it lasts.
    pub(super) fn put_into_session(&mut self, id: ProcessId, birth: Birth) {
        let Some(session) = birth.session.filter(|&leader| leader != id.pid) else { return };
        let waits = |node: &Node| node.place.link == Link::Waiting && node.place.pid != INIT;
        let parent_will_tell = self.node(id).is_none_or(waits);
        if birth.forker.is_some() || parent_will_tell || self.lineage(id) != State::Ignored {
            return;
        }
        let began = |leader: &ProcessId| leader.pid == session && leader.start_time <= id.start_time;
        let living = self.live.get(&session).map(|node| node.id(session));
        let dead = self.dead.ids();
        let leader = living.into_iter().chain(dead).filter(began).max_by_key(|leader| leader.start_time);
        let is_watched = |leader: &ProcessId| self.verdict(*leader) != Verdict::Ignored;
        if let Some(leader) = leader.filter(is_watched) {
            self.move_below(id, leader);
        }
    }

    /// It was found with its parent before it was known who forked it.
    pub(super) fn move_below(&mut self, id: ProcessId, forker: ProcessId) {
        let Some(place) = self.live.get(&id.pid).map(|node| node.place) else { return };
        if place.pid != forker.pid || place.start_time != forker.start_time {
            self.wait_no_more(id.pid, place);
            self.put_below(id, forker);
            self.mark_longer_ancestries(&[id.pid]);
        }
    }

    /// The children that waited for this parent.
    pub(super) fn settle_waiting(&mut self, id: ProcessId) -> Vec<u32> {
        let mut children = self.waiting.remove(&id.pid).unwrap_or_default();
        children.retain(|child| {
            let Some(node) = self.live.get_mut(child) else { return false };
            let is_parent = match node.place.link {
                Link::WaitingFor => node.place.start_time == id.start_time,
                Link::Waiting => node.start_time >= id.start_time,
                Link::None | Link::Known => return false,
            };
            node.place = if is_parent { Place::known(id) } else { Place::NOWHERE };
            is_parent
        });
        children
    }

    pub(super) fn bury(&mut self, pid: u32) {
        let Some(node) = self.live.remove(&pid) else { return };
        self.wait_no_more(pid, node.place);
        self.dead.insert(node.id(pid), node);
    }

    fn wait_no_more(&mut self, pid: u32, place: Place) {
        if let Link::Waiting | Link::WaitingFor = place.link
            && let Some(children) = self.waiting.get_mut(&place.pid)
        {
            children.retain(|&child| child != pid);
            if children.is_empty() {
                self.waiting.remove(&place.pid);
            }
        }
    }
}
