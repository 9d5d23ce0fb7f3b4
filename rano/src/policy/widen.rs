//! Names that could share one rule. Nothing is widened unasked: these are suggestions, and not below a suffix where
//! strangers register names.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::is_public_suffix;

/// Siblings that are worth a wildcard.
const SIBLINGS: usize = 3;
/// The same where only numbers tell them apart.
const COUNTED: usize = 2;

/// Rules that one could stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// `*.example.com`.
    pub pattern: String,
    pub names: Vec<String>,
    /// Anybody can register such a name, so no rule may have the pattern.
    pub is_refused: bool,
}

/// `names`: of rules for one name each.
pub(super) fn suggestions<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Suggestion> {
    let mut families: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        if let Some((label, parent)) = name.split_once('.') {
            families.entry(parent).or_default().insert(label);
        }
    }
    let mut found = Vec::new();
    for (parent, labels) in families {
        let mut shapes: BTreeMap<String, usize> = BTreeMap::new();
        for label in labels.iter().filter(|label| label.bytes().any(|byte| byte.is_ascii_digit())) {
            *shapes.entry(without_numbers(label)).or_default() += 1;
        }
        let is_counted = shapes.values().any(|count| *count >= COUNTED);
        if labels.len() < SIBLINGS && !is_counted {
            continue;
        }
        found.push(Suggestion {
            pattern: format!("*.{parent}"),
            names: labels.iter().map(|label| format!("{label}.{parent}")).collect(),
            is_refused: is_public_suffix(parent),
        });
    }
    found
}

/// Runs of digits as one sign.
fn without_numbers(label: &str) -> String {
    let mut shape = String::with_capacity(label.len());
    for character in label.chars() {
        if !character.is_ascii_digit() {
            shape.push(character);
        } else if !shape.ends_with('#') {
            shape.push('#');
        }
    }
    shape
}
