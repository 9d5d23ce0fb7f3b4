//! What is known of the bytes of a connection that stays open.

use anyhow::Result;

use crate::support::actor::Transport;
use crate::support::open_bytes::{Ending, check};

crate::tests![
    forty_megabytes_on_an_open_connection_are_told,
    what_was_read_of_an_open_connection_survives_a_kill,
    datagrams_of_a_flow_that_goes_on_are_told,
];

fn forty_megabytes_on_an_open_connection_are_told() -> Result<()> {
    check(crate::scene()?, "ebpf", Transport::Tcp, Ending::InOrder)
}

fn what_was_read_of_an_open_connection_survives_a_kill() -> Result<()> {
    check(crate::scene()?, "ebpf", Transport::Tcp, Ending::Killed)
}

fn datagrams_of_a_flow_that_goes_on_are_told() -> Result<()> {
    check(crate::scene()?, "ebpf", Transport::Udp, Ending::InOrder)?;
    check(crate::scene()?, "ebpf", Transport::Udp, Ending::Killed)
}
