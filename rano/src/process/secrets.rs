//! What counts as a secret in a command line: names of options, variables and headers, shapes of tokens, addresses that
//! are secrets, and the options of single programs. Data, and the look-ups in it.

mod keys;
mod programs;
mod shapes;
mod urls;

pub(super) use keys::{
    is_header, is_header_list, is_path, is_query_key, is_reference, is_scheme, is_secret_key, looks_random,
    may_be_file,
};
pub(super) use programs::{Command, MOST_COMMANDS, Positional, Program, Takes, program, reads_secret};
pub(super) use shapes::token_length;
pub(super) use urls::{BOT, MARKERS, Part};
