//! For which agent and on which tool call a connection was made, by polling and without privileges.

use anyhow::Result;

use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::tool_calls;

crate::tests![every_row_says_on_which_tool_call, a_tool_call_that_is_gone_is_kept];

fn every_row_says_on_which_tool_call() -> Result<()> {
    tool_calls::every_row_says_on_which_tool_call(&mut Scene::new(User::Ordinary)?, "proc")
}

fn a_tool_call_that_is_gone_is_kept() -> Result<()> {
    tool_calls::a_tool_call_that_is_gone_is_kept(&mut Scene::new(User::Ordinary)?, "proc")
}
