//! Contacts of connections, those that are alike put together. Bounded.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::Contact;

/// Kinds of contacts that are kept apart; a megabyte holds a few thousand.
const CONTACTS_MAX: usize = 1 << 17;

/// Contacts as they come in.
#[derive(Debug, Default)]
pub struct Gatherer {
    contacts: HashTable<Contact>,
    left_out: u64,
}

impl Gatherer {
    pub fn add(&mut self, contact: Contact) {
        let of_contact = hash(&contact);
        if let Some(known) = self.contacts.find_mut(of_contact, |known| known.is_like(&contact)) {
            known.seen.add(&contact.seen);
        } else if self.contacts.len() < CONTACTS_MAX {
            self.contacts.insert_unique(of_contact, contact, hash);
        } else {
            self.left_out += 1;
        }
    }

    /// All of them, and how many found no room.
    pub fn finish(self) -> (Vec<Contact>, u64) {
        (self.contacts.into_iter().collect(), self.left_out)
    }
}

fn hash(contact: &Contact) -> u64 {
    let Contact { run_id, remote, port, name, program, command, tool, .. } = contact;
    FxBuildHasher.hash_one((run_id, remote, port, name, program, command, tool))
}
