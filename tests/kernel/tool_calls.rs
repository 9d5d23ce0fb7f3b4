//! The same as in the tests of the command, as the kernel programs tell it.

use anyhow::Result;

use crate::support::tool_calls;

crate::tests![every_row_says_on_which_tool_call, a_tool_call_that_is_gone_is_kept];

fn every_row_says_on_which_tool_call() -> Result<()> {
    tool_calls::every_row_says_on_which_tool_call(&mut crate::scene()?, "ebpf")
}

fn a_tool_call_that_is_gone_is_kept() -> Result<()> {
    tool_calls::a_tool_call_that_is_gone_is_kept(&mut crate::scene()?, "ebpf")
}
