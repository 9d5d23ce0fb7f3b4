//! JSON as rano writes it: the same whether a terminal or a program reads it. Nothing in it can move a cursor.

use serde::Serialize;
use serde_json::Value;

use super::escape::screen_json;

/// Appends `value` on one line, without its end.
pub fn append(line: &mut Vec<u8>, value: &impl Serialize) {
    let from = line.len();
    serde_json::to_writer(&mut *line, value).expect("plain fields always serialize");
    screen_json(line, from);
}

/// `value` on one line, without its end.
pub fn text(value: &impl Serialize) -> String {
    let mut line = Vec::new();
    append(&mut line, value);
    String::from_utf8(line).expect("JSON is UTF-8")
}

/// `value` on as many lines as a person wants, the last one ended.
pub fn pretty(value: &Value) -> String {
    let mut json = format!("{value:#}\n").into_bytes();
    screen_json(&mut json, 0);
    String::from_utf8(json).expect("JSON is UTF-8")
}
