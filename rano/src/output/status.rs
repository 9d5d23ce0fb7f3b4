//! The line for a shell prompt.

use crate::output::escape::Escaped;
use crate::process::provider;
use crate::store::query::status::Status;

/// What stands in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    Active,
    Total,
    /// Any other name.
    Provider(String),
    SessionName,
    Source,
    Running,
}

/// Those that are no provider.
const VARIABLES: [(&str, Variable); 5] = [
    ("active", Variable::Active),
    ("total", Variable::Total),
    ("session_name", Variable::SessionName),
    ("source", Variable::Source),
    ("running", Variable::Running),
];

pub const DEFAULT: &str = "{active} active | anthropic:{anthropic} openai:{openai}";

/// A line with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

impl Template {
    /// `{{` and `}}` are braces. The error says what is wrong. What is no other variable may be a provider:
    /// [`Self::check`] says whether it is.
    pub fn parse(format: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
            } else if brace == "{" {
                let (name, after) = rest.split_once('}').ok_or("a '{' has no '}' (write {{ for a brace)")?;
                let known = VARIABLES.iter().find(|(known, _)| *known == name);
                let variable = match known {
                    Some((_, variable)) => variable.clone(),
                    None if provider::is_name(name) => Variable::Provider(name.to_owned()),
                    None => return Err(unknown(name, &[])),
                };
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::Variable(variable));
                rest = after;
            } else {
                return Err("a '}' has no '{' (write }} for a brace)".to_owned());
            }
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        Ok(Self(parts))
    }

    /// Whether every variable is one, with these providers; the error names those that there are.
    pub fn check(&self, providers: &[&str]) -> Result<(), String> {
        for part in &self.0 {
            if let Part::Variable(Variable::Provider(name)) = part
                && !providers.contains(&name.as_str())
            {
                return Err(unknown(name, providers));
            }
        }
        Ok(())
    }

    /// One line without its end. `is_running`: what a session that ended had open is closed.
    pub fn render(&self, status: &Status, is_running: bool) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(Variable::Active | Variable::Provider(_)) if !is_running => "0".to_owned(),
            Part::Variable(Variable::Active) => status.active.to_string(),
            Part::Variable(Variable::Total) => status.total().to_string(),
            Part::Variable(Variable::Provider(name)) => status.active_of(name).to_string(),
            Part::Variable(Variable::SessionName) => {
                Escaped(status.session_name.as_deref().unwrap_or("")).to_string()
            }
            Part::Variable(Variable::Running) => is_running.to_string(),
            Part::Variable(Variable::Source) => Escaped(&status.source).to_string(),
        };
        self.0.iter().map(part).collect()
    }
}

fn unknown(name: &str, providers: &[&str]) -> String {
    let names = VARIABLES.iter().map(|(name, _)| name).chain(providers);
    let known: Vec<_> = names.map(|name| format!("{{{}}}", Escaped(name))).collect();
    format!("unknown variable '{{{}}}' (known: {})", Escaped(name), known.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_checked() {
        assert!(Template::parse(DEFAULT).is_ok());
        assert!(Template::parse("").is_ok());
        let error = Template::parse("{actve}").expect("a name").check(&["acme"]).expect_err("a typo");
        assert!(error.contains("unknown variable '{actve}'") && error.contains("{session_name}"), "{error}");
        assert!(error.contains("{acme}"), "{error}");
        assert_eq!(Template::parse("{acme} {active}").expect("names").check(&["acme"]), Ok(()));
        assert!(Template::parse("{a b}").is_err() && Template::parse("{}").is_err());
        assert!(Template::parse("{active").is_err());
        assert!(Template::parse("active}").is_err());
        assert_eq!(Template::parse("{{}}").expect("braces").0, [Part::Text("{}".into())]);
        assert!(Template::parse("{é}").expect("a name").check(&["e"]).is_err());
    }
}
