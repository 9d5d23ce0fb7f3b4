//! What each key does to the state, and what it asks of the rest.

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::endpoints::EndpointBy;
use super::state::tree::TreeBy;
use super::state::{FindingId, Focus, Input, Popup, Purpose, State, View, rule};
use crate::filter::Filter;

/// What the state cannot do itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    Quit,
    Suspend,
    /// What is shown is asked for anew.
    Filter(Option<Filter>),
    /// The connections that are listed, by their latest event.
    Export(PathBuf, Vec<i64>),
    Report(PathBuf),
    /// To the clipboard.
    Copy(String),
}

/// Rows of a page.
const PAGE: isize = 10;

/// Longest text that is typed, in characters.
const INPUT_MAX: usize = 1000;

/// Keys and what they do, for the help.
pub const HELP: [(&str, &str); 17] = [
    ("1 2 3 4", "tree, endpoints, connections, alerts"),
    ("↑ ↓ j k", "move; PgUp PgDn by ten, Home End to the ends"),
    ("← → h l", "fold and unfold; in the tree"),
    ("Tab", "to the endpoints beside the tree, to the events, and back"),
    ("Enter", "fold; connections of an endpoint; all about a connection"),
    ("Esc", "back: close, end the selection, leave the endpoint"),
    ("/", "filter, as type:unknown or 'process:curl sent:>1M'; empty for none"),
    ("s S", "sort by the next column; turn the order round"),
    ("g", "group: the tree by agent or provider, endpoints by name, address or class"),
    ("n", "only endpoints that no earlier session of this history has"),
    ("Space", "pause; what is observed meanwhile is not lost"),
    ("f", "events: follow the latest again"),
    ("y", "copy a policy's rule that allows what is selected"),
    ("e", "export the listed connections, as FILE.csv or FILE.jsonl"),
    ("w", "write the session as one HTML file"),
    ("Ctrl-Z Ctrl-L", "suspend; draw anew"),
    ("q", "quit; an observation of its own ends with it"),
];

pub fn press(state: &mut State, key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Some(Wish::Quit),
            KeyCode::Char('z') => Some(Wish::Suspend),
            _ => None,
        };
    }
    state.message = None;
    if state.input.is_some() {
        return typed(state, key.code);
    }
    if state.popup.is_some() {
        return in_popup(state, key.code);
    }
    match key.code {
        KeyCode::Char('q') => return Some(Wish::Quit),
        KeyCode::Char('?') => state.popup = Some(Popup::Help),
        KeyCode::Char(digit @ '1'..='4') => {
            let index = digit as usize - '1' as usize;
            (state.view, state.focus) = (View::ALL[index], Focus::Main);
            state.refresh();
        }
        KeyCode::Tab => next_focus(state, false),
        KeyCode::BackTab => next_focus(state, true),
        KeyCode::Down | KeyCode::Char('j') => step(state, 1),
        KeyCode::Up | KeyCode::Char('k') => step(state, -1),
        KeyCode::PageDown => step(state, PAGE),
        KeyCode::PageUp => step(state, -PAGE),
        KeyCode::Home => step(state, isize::MIN / 2),
        KeyCode::End => step(state, isize::MAX / 2),
        KeyCode::Left | KeyCode::Char('h') => fold(state, true),
        KeyCode::Right | KeyCode::Char('l') => fold(state, false),
        KeyCode::Enter => enter(state),
        KeyCode::Esc | KeyCode::Backspace => back(state),
        KeyCode::Char('/') => {
            let text = state.filter.as_ref().map(|filter| filter.text().to_owned()).unwrap_or_default();
            state.input = Some(Input { purpose: Purpose::Filter, text, error: None });
        }
        KeyCode::Char('e') => ask_for_file(state, Purpose::Export, "csv"),
        KeyCode::Char('w') => ask_for_file(state, Purpose::Report, "html"),
        KeyCode::Char('s') => {
            state.next_order();
            state.refresh();
        }
        KeyCode::Char('S') => {
            state.reverse_order();
            state.refresh();
        }
        KeyCode::Char('g') => group(state),
        KeyCode::Char('n') => {
            state.only_new ^= true;
            state.refresh();
        }
        KeyCode::Char(' ') => state.is_paused ^= true,
        KeyCode::Char('f') => state.held_at = None,
        KeyCode::Char('y') => return copy(state),
        _ => {}
    }
    None
}

/// Text that was pasted.
pub fn paste(state: &mut State, text: &str) {
    if let Some(input) = &mut state.input {
        let room = INPUT_MAX.saturating_sub(input.text.chars().count());
        input.text.extend(text.chars().filter(|character| !character.is_control()).take(room));
        check(input);
    }
}

fn check(input: &mut Input) {
    input.error = match input.purpose {
        Purpose::Filter if !input.text.trim().is_empty() => {
            Filter::parse(&input.text).err().map(|error| error.to_string())
        }
        _ => None,
    };
}

fn typed(state: &mut State, code: KeyCode) -> Option<Wish> {
    let input = state.input.as_mut()?;
    match code {
        KeyCode::Esc => state.input = None,
        KeyCode::Backspace => {
            input.text.pop();
            check(input);
        }
        KeyCode::Char(character) if input.text.chars().count() < INPUT_MAX => {
            input.text.push(character);
            check(input);
        }
        KeyCode::Enter if input.error.is_none() => {
            let input = state.input.take()?;
            let text = input.text.trim().to_owned();
            return match input.purpose {
                Purpose::Filter => {
                    state.filter = if text.is_empty() { None } else { Filter::parse(&text).ok() };
                    Some(Wish::Filter(state.filter.clone()))
                }
                _ if text.is_empty() => None,
                Purpose::Export => Some(Wish::Export(text.into(), state.shown_events())),
                Purpose::Report => Some(Wish::Report(text.into())),
            };
        }
        _ => {}
    }
    None
}

fn in_popup(state: &mut State, code: KeyCode) -> Option<Wish> {
    match code {
        KeyCode::Down | KeyCode::Char('j') => state.popup_offset += 1,
        KeyCode::Up | KeyCode::Char('k') => state.popup_offset = state.popup_offset.saturating_sub(1),
        KeyCode::Char('y') => return copy(state),
        KeyCode::Char('1'..='4') => {
            close(state);
            return press(state, KeyEvent::new(code, KeyModifiers::NONE));
        }
        KeyCode::Char('q' | '?') | KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace => close(state),
        _ => {}
    }
    None
}

fn close(state: &mut State) {
    (state.popup, state.popup_offset) = (None, 0);
}

fn ask_for_file(state: &mut State, purpose: Purpose, ending: &str) {
    let run = state.session.as_ref().map_or("session", |session| session.stored.run_id.as_str());
    // A run id from a file that somebody else wrote may be anything.
    let run: String =
        run.chars().filter(|sign| sign.is_ascii_alphanumeric() || *sign == '-').take(40).collect();
    state.input = Some(Input { purpose, text: format!("rano-{run}.{ending}"), error: None });
}

fn next_focus(state: &mut State, backwards: bool) {
    let places: &[Focus] = match state.view {
        View::Tree => &[Focus::Main, Focus::Beside, Focus::Events],
        View::Endpoints | View::Connections | View::Alerts => &[Focus::Main, Focus::Events],
    };
    let at = places.iter().position(|focus| *focus == state.focus).unwrap_or(0);
    let step = if backwards { places.len() - 1 } else { 1 };
    state.focus = places[(at + step) % places.len()];
}

fn step(state: &mut State, rows: isize) {
    match (state.focus, state.view) {
        (Focus::Events, _) => {
            let end = state.events_end();
            let at = state.held_at.unwrap_or(end).saturating_add_signed(i64::try_from(rows).unwrap_or(0));
            let at = at.clamp((state.events_before + 1).min(end), end);
            state.held_at = (at < end).then_some(at);
        }
        (Focus::Main, View::Tree) => {
            let items: Vec<_> = state.tree_lines.iter().map(|line| line.node).collect();
            state.tree_cursor.step(&items, rows);
            state.refresh();
        }
        (Focus::Beside, _) | (Focus::Main, View::Endpoints) => {
            let items: Vec<_> = state.endpoints.iter().map(|endpoint| endpoint.key.clone()).collect();
            state.endpoint_cursor.step(&items, rows);
        }
        (Focus::Main, View::Connections) => {
            let items = state.listed_ids();
            state.connection_cursor.step(&items, rows);
        }
        (Focus::Main, View::Alerts) => {
            let items: Vec<_> = state.findings.iter().map(|finding| finding.id.clone()).collect();
            state.finding_cursor.step(&items, rows);
        }
    }
}

fn fold(state: &mut State, is_folded: bool) {
    if (state.focus, state.view) != (Focus::Main, View::Tree) {
        return;
    }
    let Some(selected) = state.tree_cursor.selected else { return };
    let parent = state.tree.parent(selected);
    let Some(node) = state.tree.node_mut(selected) else { return };
    if node.has_children() && node.is_folded != is_folded {
        node.is_folded = is_folded;
    } else if is_folded && let Some(parent) = parent {
        let items: Vec<_> = state.tree_lines.iter().map(|line| line.node).collect();
        state.tree_cursor.select(&items, &parent);
    }
    state.refresh();
}

fn enter(state: &mut State) {
    match (state.focus, state.view) {
        (Focus::Events, _) => {
            let end = state.held_at.unwrap_or(state.events_end());
            let index =
                end.checked_sub(state.events_before + 1).and_then(|index| usize::try_from(index).ok());
            let event = index.and_then(|index| state.events.get(index)).map(|event| event.id);
            let row = event.and_then(|id| {
                state.connections.rows().iter().rev().find(|row| row.id == id || row.event.id == id)
            });
            state.popup = row.map(|row| Popup::Detail(row.id));
        }
        (Focus::Main, View::Tree) => {
            let selected = state.tree_cursor.selected.and_then(|id| state.tree.node(id));
            match selected.map(|node| (node.has_children(), node.is_folded)) {
                Some((true, is_folded)) => fold(state, !is_folded),
                Some((false, _)) => {
                    (state.view, state.scope) = (View::Connections, None);
                    state.refresh();
                }
                None => {}
            }
        }
        (Focus::Beside, _) | (Focus::Main, View::Endpoints) => {
            let Some(selected) = state.endpoint_cursor.selected.clone() else { return };
            if state.view == View::Endpoints {
                state.tree_cursor.clear();
            }
            (state.view, state.focus, state.scope) = (View::Connections, Focus::Main, Some(selected));
            state.refresh();
        }
        (Focus::Main, View::Connections) => {
            state.popup = state.connection_cursor.selected.map(Popup::Detail);
        }
        (Focus::Main, View::Alerts) => match state.finding_cursor.selected.clone() {
            Some(FindingId::Connection(id)) => state.popup = Some(Popup::Detail(id)),
            Some(FindingId::Endpoint(_, key)) => {
                state.tree_cursor.clear();
                (state.view, state.scope, state.endpoint_by) =
                    (View::Connections, Some(key), EndpointBy::Name);
                state.refresh();
            }
            None => {}
        },
    }
}

fn back(state: &mut State) {
    if state.view == View::Connections && state.scope.take().is_some() {
        return state.refresh();
    }
    match (state.focus, state.view) {
        (Focus::Events | Focus::Beside, _) => state.focus = Focus::Main,
        // What is selected in the tree narrows the list of connections too.
        (Focus::Main, View::Tree) => state.tree_cursor.clear(),
        (Focus::Main, View::Connections) if state.connection_cursor.selected.is_none() => {
            state.tree_cursor.clear();
        }
        (Focus::Main, View::Connections) => state.connection_cursor.clear(),
        (Focus::Main, View::Endpoints) => state.endpoint_cursor.clear(),
        (Focus::Main, View::Alerts) => state.finding_cursor.clear(),
    }
    state.refresh();
}

fn group(state: &mut State) {
    match (state.view, state.focus) {
        (View::Tree, Focus::Main) => {
            state.tree_by = match state.tree_by {
                TreeBy::Agent => TreeBy::Provider,
                TreeBy::Provider => TreeBy::Agent,
            };
            state.tree_cursor.clear();
        }
        (View::Tree | View::Endpoints, _) => {
            let at = EndpointBy::ALL.iter().position(|by| *by == state.endpoint_by).unwrap_or(0);
            state.endpoint_by = EndpointBy::ALL[(at + 1) % EndpointBy::ALL.len()];
            state.scope = None;
        }
        (View::Connections | View::Alerts, _) => {
            state.message = Some("this list has no groups; endpoints (2) and the tree (1) do".to_owned());
        }
    }
    state.refresh();
}

fn copy(state: &mut State) -> Option<Wish> {
    let of_connection = |id: i64| state.connections.by_id(id).and_then(rule::of_connection);
    let of_endpoint = || {
        let selected = state.endpoint_cursor.selected.as_ref()?;
        rule::of_endpoint(state.endpoints.iter().find(|endpoint| endpoint.key == *selected)?)
    };
    let rule = match (&state.popup, state.focus, state.view) {
        (Some(Popup::Rule(rule)), ..) => Some(rule.clone()),
        (Some(Popup::Detail(id)), ..) => of_connection(*id),
        (_, Focus::Beside, _) | (_, Focus::Main, View::Endpoints) => of_endpoint(),
        (_, Focus::Main, View::Connections) => state.connection_cursor.selected.and_then(of_connection),
        (_, Focus::Main, View::Alerts) => match &state.finding_cursor.selected {
            Some(FindingId::Connection(id)) => of_connection(*id),
            Some(FindingId::Endpoint(_, key)) => {
                let mut rows = state.connections.rows().iter().rev();
                rows.find(|row| super::state::endpoints::key(row, EndpointBy::Name) == *key)
                    .and_then(rule::of_connection)
            }
            None => None,
        },
        _ => None,
    };
    let Some(rule) = rule else {
        state.message = Some("select an endpoint or a connection with a name or an address first".to_owned());
        return None;
    };
    (state.popup, state.popup_offset) = (Some(Popup::Rule(rule.clone())), 0);
    Some(Wish::Copy(rule))
}
