//! Where answers are kept, by address. Whoever receives answers fills it, and everybody may: so each watched tree and
//! each user outside of them has a share of the room, the watched ones apart from the others, and a full share forgets
//! its own oldest answer. What was forgotten of an address leaves a mark for as long as it would have held, so that
//! what is left does not look unambiguous. Where many processes of a share looked up the same, only the share is
//! remembered: it may have been any of them.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::glob::Glob;
use crate::names::lookups::Receiver;

/// Answers that are kept for watched trees, and for everybody else. Some two hundred bytes each.
const WATCHED_MAX: usize = 1 << 14;
const OTHERS_MAX: usize = 1 << 13;
/// Answers of one tree or user.
const SHARE_MAX: usize = 1 << 12;
/// Names of one address in a share; with more of them nobody can say which one is meant.
const NAMES_MAX: usize = 32;
/// Marks of what a share forgot. Two addresses may have the same one: then one of them gets no name in vain.
const MARKS: usize = 1 << 12;
/// Between two searches for answers that have run out.
const TIDY_NS: u64 = 1_000_000_000;

/// A name that was answered with an address.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) name: Arc<str>,
    pub(super) receiver: Receiver,
    /// Of the answers that followed one another before the one before had run out.
    first_ns: u64,
    last_ns: u64,
    until_ns: u64,
    /// Of the last answer.
    number: u64,
    is_precious: bool,
}

impl Lookup {
    pub(super) fn is_valid(&self, at_ns: u64) -> bool {
        self.first_ns <= at_ns && at_ns <= self.until_ns
    }

    /// When it was answered last before a time at which it is valid.
    pub(super) fn answered_ns(&self, before_ns: u64) -> u64 {
        if self.last_ns <= before_ns { self.last_ns } else { self.first_ns }
    }

    fn answered_again(&mut self, at_ns: u64, until_ns: u64, number: u64) {
        if at_ns > self.until_ns {
            self.first_ns = at_ns;
        }
        self.first_ns = self.first_ns.min(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
        self.until_ns = self.until_ns.max(until_ns);
        self.number = number;
    }
}

/// What one tree or user has of the room.
#[derive(Debug, Default)]
struct Share {
    count: usize,
    precious: usize,
    /// In the order of the answers; one that came again has left its former place here.
    order: VecDeque<(IpAddr, u64)>,
    /// Until when something that was forgotten of an address would have held, in seconds.
    marks: Option<Box<[u32]>>,
    marked_until_ns: u64,
}

/// All answers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Keys come from the network, hence the keyed hash of the standard library.
    pages: HashMap<IpAddr, Vec<Lookup>>,
    /// By who receives, less the process.
    shares: FxHashMap<Receiver, Share>,
    watched: usize,
    others: usize,
    number: u64,
    tidy_at_ns: u64,
    places: RandomState,
    /// Names that somebody waits for: of a full share they go last.
    precious: Vec<Glob>,
    pub(super) forgotten: u64,
}

impl Ledger {
    pub(super) fn new(precious: Vec<Glob>) -> Self {
        Self { precious, ..Self::default() }
    }

    pub(super) fn page(&self, address: &IpAddr) -> Option<&[Lookup]> {
        self.pages.get(address).map(Vec::as_slice)
    }

    /// Takes an answer in. `at_ns`: when it came, and until when it holds.
    pub(super) fn note(
        &mut self,
        address: IpAddr,
        name: &Arc<str>,
        receiver: Receiver,
        (at_ns, until_ns): (u64, u64),
    ) {
        let whose = Receiver { process: None, ..receiver };
        self.number += 1;
        let number = self.number;
        let page = self.pages.entry(address).or_default();
        let same = |lookup: &&mut Lookup| lookup.receiver == receiver && lookup.name == *name;
        let known = page.iter_mut().find(same).map(|lookup| lookup.answered_again(at_ns, until_ns, number));
        let share = self.shares.entry(whose).or_default();
        share.order.push_back((address, number));
        if known.is_some() {
            self.shorten(whose);
            return;
        }
        let is_precious = self.precious.iter().any(|glob| glob.matches_name(name));
        let name = Arc::clone(name);
        page.push(Lookup { name, receiver, first_ns: at_ns, last_ns: at_ns, until_ns, number, is_precious });
        let kept = page.iter().filter(|lookup| is_of(lookup, whose)).count();
        share.count += 1;
        share.precious += usize::from(is_precious);
        *self.side(whose) += 1;
        if kept > NAMES_MAX && !self.merge(address, whose) {
            self.forget_name_of(address, whose, at_ns);
        }
        self.make_room(whose, at_ns);
    }

    /// Whether something of the address was forgotten that would still hold, in a share for which it matters.
    pub(super) fn has_forgotten(
        &self,
        address: IpAddr,
        at_ns: u64,
        matters: impl Fn(Receiver) -> bool,
    ) -> bool {
        self.shares.iter().any(|(whose, share)| {
            let marks = share.marks.as_ref().filter(|_| at_ns <= share.marked_until_ns && matters(*whose));
            marks.is_some_and(|marks| seconds(at_ns) <= marks[self.place(address)])
        })
    }

    fn place(&self, address: IpAddr) -> usize {
        usize::try_from(self.places.hash_one(address) % MARKS as u64).expect("there are few")
    }

    fn side(&mut self, whose: Receiver) -> &mut usize {
        if whose.root.is_some() { &mut self.watched } else { &mut self.others }
    }

    fn is_crowded(&self, whose: Receiver) -> bool {
        let (count, most) = match whose.root {
            Some(_) => (self.watched, WATCHED_MAX),
            None => (self.others, OTHERS_MAX),
        };
        count > most || self.shares.get(&whose).is_some_and(|share| share.count > SHARE_MAX)
    }

    /// After an answer was taken in, there may be one too many.
    fn make_room(&mut self, whose: Receiver, now_ns: u64) {
        if !self.is_crowded(whose) {
            return self.shorten(whose);
        }
        if now_ns >= self.tidy_at_ns {
            self.tidy(now_ns);
            self.tidy_at_ns = now_ns.saturating_add(TIDY_NS);
        }
        while self.is_crowded(whose) {
            let is_full = self.shares.get(&whose).is_some_and(|share| share.count > SHARE_MAX);
            let largest = || {
                let kin =
                    self.shares.iter().filter(|(other, _)| other.root.is_some() == whose.root.is_some());
                kin.max_by_key(|(_, share)| share.count).map(|(other, _)| *other)
            };
            let Some(from) = (if is_full { Some(whose) } else { largest() }) else { return };
            if !self.forget_oldest_of(from, now_ns) {
                return;
            }
        }
    }

    /// Puts together what several processes of a share looked up. Whether there was such a name.
    fn merge(&mut self, address: IpAddr, whose: Receiver) -> bool {
        let Some(page) = self.pages.get_mut(&address) else { return false };
        let its = || page.iter().filter(|lookup| is_of(lookup, whose));
        let count = |name: &Arc<str>| its().filter(|lookup| lookup.name == *name).count();
        let most = its().map(|lookup| (count(&lookup.name), Arc::clone(&lookup.name))).max();
        let Some((count, name)) = most.filter(|(count, _)| *count > 1) else { return false };
        let mut merged: Option<Lookup> = None;
        for lookup in page.extract_if(.., |lookup| is_of(lookup, whose) && lookup.name == name) {
            merged = Some(match merged {
                None => Lookup { receiver: whose, ..lookup },
                Some(other) => Lookup {
                    first_ns: other.first_ns.min(lookup.first_ns),
                    last_ns: other.last_ns.max(lookup.last_ns),
                    until_ns: other.until_ns.max(lookup.until_ns),
                    number: other.number.max(lookup.number),
                    ..other
                },
            });
        }
        let is_precious = merged.as_ref().is_some_and(|merged| merged.is_precious);
        page.extend(merged);
        if let Some(share) = self.shares.get_mut(&whose) {
            share.count -= count - 1;
            share.precious -= if is_precious { count - 1 } else { 0 };
        }
        *self.side(whose) -= count - 1;
        true
    }

    /// Of one address, a name that nobody waits for if there is one.
    fn forget_name_of(&mut self, address: IpAddr, whose: Receiver, now_ns: u64) {
        let Some(page) = self.pages.get(&address) else { return };
        let its = page.iter().enumerate().filter(|(_, lookup)| is_of(lookup, whose));
        let oldest = its.min_by_key(|(_, lookup)| {
            // One that has run out is no loss.
            (lookup.until_ns >= now_ns, lookup.is_precious, lookup.number)
        });
        if let Some((at, _)) = oldest {
            self.forget(address, at, whose, now_ns);
        }
    }

    /// Whether there was one.
    fn forget_oldest_of(&mut self, whose: Receiver, now_ns: u64) -> bool {
        loop {
            let Some(share) = self.shares.get_mut(&whose) else { return false };
            let Some((address, number)) = share.order.pop_front() else { return false };
            let page = self.pages.get(&address);
            let place = page.and_then(|page| page.iter().position(|lookup| lookup.number == number));
            let (Some(place), Some(page)) = (place, page) else { continue };
            let spared = page[place].is_precious && page[place].until_ns >= now_ns;
            // A share of nothing but such names is as any other.
            if spared && share.precious <= SHARE_MAX / 4 && share.precious < share.count {
                share.order.push_back((address, number));
                continue;
            }
            self.forget(address, place, whose, now_ns);
            return true;
        }
    }

    fn forget(&mut self, address: IpAddr, at: usize, whose: Receiver, now_ns: u64) {
        let place = self.place(address);
        let Entry::Occupied(mut page) = self.pages.entry(address) else { return };
        let lookup = page.get_mut().swap_remove(at);
        if page.get().is_empty() {
            page.remove();
        }
        *self.side(whose) -= 1;
        if let Some(share) = self.shares.get_mut(&whose) {
            share.count -= 1;
            share.precious -= usize::from(lookup.is_precious);
            if lookup.until_ns >= now_ns {
                self.forgotten += 1;
                let marks = share.marks.get_or_insert_with(|| vec![0; MARKS].into_boxed_slice());
                marks[place] = marks[place].max(seconds(lookup.until_ns));
                share.marked_until_ns = share.marked_until_ns.max(lookup.until_ns);
            }
        }
    }

    /// Takes out what has run out.
    fn tidy(&mut self, now_ns: u64) {
        let (shares, mut gone) = (&mut self.shares, (0, 0));
        self.pages.retain(|_, page| {
            page.retain(|lookup| {
                let is_over = lookup.until_ns < now_ns;
                let whose = Receiver { process: None, ..lookup.receiver };
                if is_over && let Some(share) = shares.get_mut(&whose) {
                    share.count -= 1;
                    share.precious -= usize::from(lookup.is_precious);
                    *(if whose.root.is_some() { &mut gone.0 } else { &mut gone.1 }) += 1;
                }
                !is_over
            });
            !page.is_empty()
        });
        self.watched -= gone.0;
        self.others -= gone.1;
        self.shares.retain(|_, share| {
            if share.marked_until_ns < now_ns {
                share.marks = None;
            }
            share.count > 0 || share.marks.is_some()
        });
    }

    /// Keeps the order of a share in bounds, whose places are left behind by answers that came again.
    fn shorten(&mut self, whose: Receiver) {
        let Some(share) = self.shares.get_mut(&whose) else { return };
        if share.order.len() > 2 * share.count + 64 {
            let pages = &self.pages;
            share.order.retain(|(address, number)| {
                pages.get(address).is_some_and(|page| page.iter().any(|lookup| lookup.number == *number))
            });
        }
    }
}

#[cfg(test)]
impl Ledger {
    /// Answers of watched trees and of others, as they lie, and places in the orders.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let lies = |watched: bool| {
            self.pages.values().flatten().filter(|one| one.receiver.root.is_some() == watched).count()
        };
        assert_eq!((lies(true), lies(false)), (self.watched, self.others));
        (self.watched, self.others, self.shares.values().map(|share| share.order.len()).sum())
    }
}

fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX)
}

fn is_of(lookup: &Lookup, whose: Receiver) -> bool {
    lookup.receiver.root == whose.root && lookup.receiver.uid == whose.uid
}
