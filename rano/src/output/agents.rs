//! The list of agents that are known.

use serde_json::{Value as Json, json};

use super::json;
use super::style::Styles;
use super::table::{Align, Column, Table};
use crate::process::agents::{Agent, Extent};

/// An agent, and which file says so.
pub struct Row<'a> {
    pub agent: &'a Agent,
    /// `None` for one that is built in.
    pub file: Option<String>,
}

const COLUMNS: [Column; 4] =
    [("agent", Align::Left), ("provider", Align::Left), ("recognised by", Align::Cut), ("from", Align::Left)];

/// A table, at most `width` columns wide.
pub fn text(rows: &[Row<'_>], width: usize, styles: &Styles) -> String {
    let cells = |row: &Row<'_>| {
        let Row { agent, file } = row;
        vec![
            agent.name.clone(),
            agent.provider.clone().unwrap_or_default(),
            recognised_by(agent),
            file.clone().unwrap_or_else(|| "built in".to_owned()),
        ]
    };
    Table { columns: &COLUMNS, rows: rows.iter().map(cells).collect() }.render(width, styles)
}

/// `a name with codex in it`, `the name goose or goosed, with package goose-ai or path */.local/bin/goose`.
fn recognised_by(agent: &Agent) -> String {
    let names = agent.names.join(" or ");
    let by_name = match agent.extent {
        Extent::Whole => format!("the name {names}"),
        Extent::Part => format!("a name with {names} in it"),
    };
    let packages: Vec<String> = agent.packages.iter().map(|package| format!("package {package}")).collect();
    let paths: Vec<String> = agent.paths.iter().map(|path| format!("path {}", path.written())).collect();
    let agreeing = |others: Vec<String>| others.join(" or ");
    if agent.common {
        let interpreters = agent.interpreters.iter().map(|one| format!("as a script of {one}")).collect();
        format!("{by_name}, with {}", agreeing([packages, paths, interpreters].concat()))
    } else if packages.is_empty() && paths.is_empty() {
        by_name
    } else {
        format!("{by_name}, or {}", agreeing([packages, paths].concat()))
    }
}

/// An array of objects with the words of `rano.toml`.
pub fn json(rows: &[Row<'_>]) -> String {
    let object = |row: &Row<'_>| {
        let Row { agent, file } = row;
        let paths: Vec<&str> = agent.paths.iter().map(|path| &**path.written()).collect();
        let mut object = json!({
            "name": agent.name,
            "names": agent.names,
            "match": agent.extent.name(),
            "packages": agent.packages,
            "common": agent.common,
            "paths": paths,
            "interpreters": agent.interpreters,
            "environment": agent.environment,
            "session": agent.session,
            "endpoints": agent.endpoints,
            "origin": file.as_deref().unwrap_or("built in"),
        });
        // What is not known is left out, as in every other format.
        if let (Some(provider), Some(object)) = (&agent.provider, object.as_object_mut()) {
            object.insert("provider".to_owned(), provider.as_str().into());
        }
        object
    };
    json::pretty(&Json::Array(rows.iter().map(object).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::agents;

    #[test]
    fn each_agent_is_a_row_that_says_how_it_is_told() {
        let mut goose = agents::built_in().swap_remove(0);
        goose.name = "goose".to_owned();
        goose.provider = None;
        goose.names = vec!["goose".into(), "goosed".into()];
        (goose.extent, goose.common) = (Extent::Whole, true);
        goose.packages = vec!["goose-ai".into()];
        goose.paths = vec!["*/bin/\u{1b}goose".into()];
        let claude = &agents::built_in()[0];
        let from = "/x/rano.toml:3".to_owned();
        let rows = [Row { agent: claude, file: None }, Row { agent: &goose, file: Some(from) }];
        let text = text(&rows, 200, &Styles::PLAIN);
        let lines: Vec<_> =
            text.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty())).collect();
        let cells: Vec<Vec<_>> = lines.into_iter().map(|cells| cells.map(str::trim).collect()).collect();
        assert_eq!(
            cells[1],
            [
                "claude",
                "anthropic",
                "the name claude or claude-code or claude-cli or claude-code-acp or claude-agent-sdk, or package \
             @anthropic-ai/claude-code or package @anthropic-ai/claude-agent-sdk",
                "built in"
            ]
        );
        let how = "the name goose or goosed, with package goose-ai or path */bin/\\x1bgoose";
        assert_eq!(cells[2], ["goose", how, "/x/rano.toml:3"]);

        let json: Json = serde_json::from_str(&json(&rows)).expect("JSON");
        assert_eq!(json[0]["provider"], "anthropic");
        assert!(json[1].get("provider").is_none() && json[1]["common"] == true, "{json}");
        assert_eq!(json[1]["origin"], "/x/rano.toml:3");
    }
}
