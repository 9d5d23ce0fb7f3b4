//! What is known of the bytes of a connection that stays open, without privileges.

use anyhow::Result;

use crate::support::actor::Transport;
use crate::support::namespace::User;
use crate::support::open_bytes::{Ending, check};
use crate::support::scene::Scene;

crate::tests![
    forty_megabytes_on_an_open_connection_are_told,
    what_was_read_of_an_open_connection_survives_a_kill,
];

fn forty_megabytes_on_an_open_connection_are_told() -> Result<()> {
    check(Scene::new(User::Ordinary)?, "proc", Transport::Tcp, Ending::InOrder)
}

fn what_was_read_of_an_open_connection_survives_a_kill() -> Result<()> {
    check(Scene::new(User::Ordinary)?, "proc", Transport::Tcp, Ending::Killed)
}
