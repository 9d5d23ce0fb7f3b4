//! How a block looks: headings, bars and names that keep their columns whatever the names hold.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::UnicodeWidthStr as _;

use crate::event::{Address, Bytes};
use crate::output::escape::{cut, fit};
use crate::output::human::ShortSize;
use crate::output::style::Styles;
use crate::process::ProcessId;
use crate::totals::{AgentStanding, Last, ProviderStanding, Standing, Standings};

/// A name longer than this says no more to a person.
const NAME_MAX: usize = 120;
const PROVIDER_MAX: usize = 24;

/// A line of a block, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// Columns it takes on a terminal.
    pub width: usize,
}

impl Line {
    /// The pieces one after the other, cut at `columns`.
    pub(super) fn of(columns: usize, pieces: &[(Style, &str)]) -> Self {
        let mut line = Self { text: String::new(), width: 0 };
        for (style, text) in pieces {
            let piece = cut(text, columns - line.width);
            if !piece.is_empty() {
                line.width += piece.width();
                write!(line.text, "{style}{piece}{style:#}").expect("writing into a String cannot fail");
            }
        }
        line
    }
}

const PLAIN: Style = Style::new();

/// Bytes a second of each agent, where they are known.
pub type Rates = std::collections::HashMap<Option<ProcessId>, Bytes>;

/// Columns of a bar and most rows of a view.
type Size = (usize, usize);

pub fn lines(
    standing: &Standing,
    standings: &Standings,
    rates: &Rates,
    (width, top): Size,
    columns: usize,
    styles: &Styles,
) -> Vec<Line> {
    let heading = format!("Live Stats [{}]", standing.view().name());
    let mut lines = vec![Line::of(columns, &[(styles.heading, &heading)])];
    match standing {
        Standing::Providers { rows, kinds } => {
            let shown = &rows[..rows.len().min(top)];
            providers(shown, width, columns, styles, &mut lines);
            more(kinds - shown.len(), columns, styles, &mut lines);
            let Standings { active, peak, average_duration, .. } = standings;
            let average = average_duration.as_millis();
            let sums = format!("active={active} peak={peak} avg_dur={average}ms");
            lines.push(Line::of(columns, &[(PLAIN, &sums)]));
        }
        Standing::Ranked { rows, kinds, .. } => {
            let shown = &rows[..rows.len().min(top)];
            ranked(shown, width, columns, styles, &mut lines);
            more(kinds - shown.len(), columns, styles, &mut lines);
        }
        Standing::Agents { rows, kinds } => {
            let shown = &rows[..rows.len().min(top)];
            agents(shown, rates, columns, styles, &mut lines);
            more(kinds - shown.len(), columns, styles, &mut lines);
        }
    }
    lines
}

/// Name, bar and counts, most first.
fn providers(
    shown: &[ProviderStanding],
    width: usize,
    columns: usize,
    styles: &Styles,
    lines: &mut Vec<Line>,
) {
    let most = shown.first().map_or(0, |provider| provider.connects);
    let names: Vec<String> =
        shown.iter().map(|provider| fit(&provider.name, PROVIDER_MAX.min(columns / 3))).collect();
    let counts: Vec<String> = shown
        .iter()
        .map(|ProviderStanding { connects, domains, ips, .. }| {
            format!("{connects} (domains={domains}, ips={ips})")
        })
        .collect();
    let widest = |texts: &[String]| texts.iter().map(|text| text.width()).max().unwrap_or(0);
    let name_width = widest(&names);
    let room = columns.saturating_sub(name_width + widest(&counts) + 2);
    for ((name, counts), provider) in names.iter().zip(&counts).zip(shown) {
        let padding = " ".repeat(name_width - name.width() + 1);
        let (full, empty) = bar(provider.connects, most, width.min(room));
        lines.push(Line::of(
            columns,
            &[
                (styles.provider, name),
                (PLAIN, &padding),
                (styles.bar, &full),
                (styles.dim, &empty),
                (PLAIN, &format!(" {counts}")),
            ],
        ));
    }
}

/// Count, bar and name, most first.
fn ranked(rows: &[(String, u64)], width: usize, columns: usize, styles: &Styles, lines: &mut Vec<Line>) {
    let most = rows.first().map_or(0, |(_, count)| *count);
    let count_width = most.to_string().len();
    let names: Vec<String> = rows.iter().map(|(name, _)| fit(name, NAME_MAX)).collect();
    let longest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    // On a narrow terminal a bar gives way to the names, but not to more than half of the line.
    let room = columns.saturating_sub(count_width + 2);
    let width = width.min(room.saturating_sub(longest.min(room / 2)));
    for (name, (_, count)) in names.iter().zip(rows) {
        let (full, empty) = bar(*count, most, width);
        let pieces = [
            (PLAIN, &*format!("{count:>count_width$} ")),
            (styles.bar, &*full),
            (styles.dim, &*empty),
            (PLAIN, " "),
            (styles.name, &**name),
        ];
        lines.push(Line::of(columns, &pieces));
    }
    if rows.is_empty() {
        lines.push(Line::of(columns, &[(styles.dim, "no connections yet")]));
    }
}

/// Agent, what it has open, rates, and where it went last.
fn agents(rows: &[AgentStanding], rates: &Rates, columns: usize, styles: &Styles, lines: &mut Vec<Line>) {
    if rows.iter().all(|agent| agent.open == 0) {
        let said = if rows.is_empty() { "no connections yet" } else { "idle: nothing is open" };
        lines.push(Line::of(columns, &[(styles.dim, said)]));
    }
    let names: Vec<String> = rows
        .iter()
        .map(|agent| match agent.id {
            Some(id) => format!("{}({})", fit(&agent.name, PROVIDER_MAX), id.pid),
            None => "no agent".to_owned(),
        })
        .collect();
    let rate = |agent: &AgentStanding| {
        let rate = rates.get(&agent.id).copied().unwrap_or_default();
        [('↑', rate.sent), ('↓', rate.received)]
            .map(|(arrow, bytes)| format!("{:>9}", format!("{arrow}{}/s", ShortSize(bytes))))
            .join(" ")
    };
    let widest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    for (name, agent) in names.iter().zip(rows) {
        let padding = " ".repeat(widest - name.width() + 1);
        let open = if agent.open == 0 { "   idle".to_owned() } else { format!("{:>2} open", agent.open) };
        let last = agent.last.as_ref().map(place).unwrap_or_default();
        // On a narrow terminal rates give way to where it went.
        let rates = if columns < 60 { "  ".to_owned() } else { format!("  {}  ", rate(agent)) };
        let pieces = [
            (styles.provider, &**name),
            (PLAIN, &padding),
            (if agent.open == 0 { styles.dim } else { PLAIN }, &open),
            (PLAIN, &*rates),
            (styles.name, &last),
        ];
        lines.push(Line::of(columns, &pieces));
    }
}

fn place(last: &Last) -> String {
    let port = match &last.remote {
        Some(Address::Ip(remote)) => format!(":{}", remote.port()),
        Some(Address::Host(_) | Address::Path(_)) | None => String::new(),
    };
    match (&last.name, &last.remote) {
        (Some(name), _) => fit(&format!("{name}{port}"), NAME_MAX),
        (None, Some(remote)) => fit(&remote.to_string(), NAME_MAX),
        (None, None) => String::new(),
    }
}

fn more(hidden: usize, columns: usize, styles: &Styles, lines: &mut Vec<Line>) {
    if hidden > 0 {
        lines.push(Line::of(columns, &[(styles.dim, &format!("… and {hidden} more"))]));
    }
}

/// `███` and `░`: together `width` columns, of which `value / most` are full; a value above zero shows at least one.
fn bar(value: u64, most: u64, width: usize) -> (String, String) {
    let width_wide = width as u128;
    let filled = (u128::from(value) * width_wide).div_ceil(u128::from(most.max(1))).min(width_wide);
    let filled = usize::try_from(filled).unwrap_or(width);
    ("█".repeat(filled), "░".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_exactly_as_wide_as_asked_and_show_the_smallest_value() {
        let bar = |value, most, width| {
            let (full, empty) = bar(value, most, width);
            full + &empty
        };
        assert_eq!(bar(3, 4, 4), "███░");
        assert_eq!(bar(0, 4, 4), "░░░░");
        assert_eq!(bar(1, 1_000_000, 4), "█░░░");
        assert_eq!(bar(u64::MAX, u64::MAX, 4), "████");
        assert_eq!(bar(1, 0, 0), "");
    }

    #[test]
    fn a_line_is_cut_at_the_columns_there_are() {
        let line = Line::of(5, &[(PLAIN, "ab"), (PLAIN, "日本語"), (PLAIN, "x")]);
        assert_eq!((line.text.as_str(), line.width), ("ab日…", 5));
        assert_eq!(Line::of(0, &[(PLAIN, "ab")]).width, 0);
    }
}
