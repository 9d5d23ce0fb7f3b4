//! Rules as TOML.

use std::fmt::Write as _;

use toml_edit::{Array, ArrayOfTables, Item, Table, Value};

use super::Rule;

/// A rule that is to be written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Sketch {
    pub(super) domain: Option<String>,
    pub(super) class: Option<String>,
    pub(super) cidr: Option<String>,
    pub(super) ports: Vec<u16>,
    pub(super) who: Option<String>,
    pub(super) agent: Option<String>,
}

impl Sketch {
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        let texts = [("domain", &self.domain), ("class", &self.class), ("cidr", &self.cidr)];
        for (key, text) in texts {
            if let Some(text) = text {
                table.insert(key, Item::Value(quoted(text)));
            }
        }
        if !self.ports.is_empty() {
            let ports: Array = self.ports.iter().map(|port| i64::from(*port)).collect();
            table.insert("ports", Item::Value(Value::Array(ports)));
        }
        for (key, text) in [("who", &self.who), ("agent", &self.agent)] {
            if let Some(text) = text {
                table.insert(key, Item::Value(quoted(text)));
            }
        }
        table
    }

    /// As an `[[allow]]` on lines of its own, the last one not ended.
    pub(super) fn text(&self) -> String {
        let mut rules = ArrayOfTables::new();
        rules.push(self.table());
        let mut document = toml_edit::DocumentMut::new();
        document.insert("allow", Item::ArrayOfTables(rules));
        document.to_string().trim().to_owned()
    }

    /// The same for whoever is named besides.
    pub(super) fn beside(rule: &Rule, who: &str) -> Self {
        Self {
            domain: rule.domain.as_ref().map(|domain| domain.written.clone()),
            class: rule.class.map(|class| class.name().to_owned()),
            cidr: rule.cidr.map(|network| network.to_string()),
            ports: rule.ports.clone(),
            who: Some(who.to_owned()),
            agent: None,
        }
    }
}

/// On one line, whatever is in it.
fn quoted(text: &str) -> Value {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            // Signs that move a cursor, turn text round, or end a block of code in Markdown.
            odd if odd.is_control() || odd == '`' || !odd.is_ascii() && !odd.is_alphanumeric() => {
                let number = u32::from(odd);
                let width = if number > 0xffff { 8 } else { 4 };
                let sign = if number > 0xffff { 'U' } else { 'u' };
                write!(literal, "\\{sign}{number:0width$X}").expect("writing into a String cannot fail");
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal.parse().unwrap_or_else(|_| Value::from(text))
}
