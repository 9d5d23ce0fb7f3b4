//! A config file that sets nothing: every key with its default and its help, made from the table of options. Its end
//! shows, as a comment, what a `rano.toml` can say.

use std::fmt::Write as _;

use super::layers;
use super::spec::Group;
use crate::output::fold::wrapped;

/// Columns of a comment.
const WIDTH: usize = 76;

/// The text of the file.
pub fn sample() -> String {
    let mut text = String::new();
    write(&mut text).expect("writing into a String cannot fail");
    text
}

fn write(out: &mut String) -> std::fmt::Result {
    writeln!(out, "# rano's options, one key=value a line, for ~/.config/rano/config.conf.")?;
    writeln!(out, "# Every value is the default: take away the # in front of a key to set it.")?;
    let mut group: Option<Group> = None;
    for option in layers::resolve([]) {
        let spec = option.spec;
        if !spec.in_file || spec.is_hidden() {
            continue;
        }
        if group != Some(spec.group) {
            group = Some(spec.group);
            writeln!(out, "\n# ---- {} ----", spec.group.title())?;
        }
        for (position, (key, value, _)) in option.lines().into_iter().enumerate() {
            let spelling = spec.spellings.iter().find(|spelling| spelling.key == key);
            writeln!(out, "\n# {}", spelling.map_or("", |spelling| spelling.help))?;
            for line in wrapped(spec.details, WIDTH).iter().filter(|_| position == 0) {
                writeln!(out, "# {line}")?;
            }
            writeln!(out, "#{key}={value}")?;
        }
    }
    writeln!(out, "\n# ---- rano.toml ----")?;
    for line in RANO_TOML.lines() {
        writeln!(out, "{}", format!("# {line}").trim_end())?;
    }
    Ok(())
}

/// A file to begin with. Below the first blank line it is TOML.
const RANO_TOML: &str = r#"Providers, classes of endpoints and agents of your own go into a file of their own beside
this one, ~/.config/rano/rano.toml. `rano config check` reads it too:

[providers]
# Texts that say on whose behalf a process acts, anywhere in its names and arguments.
local_llm = ["llama-server", "ollama"]

[endpoints]
# Domains with all below them, or globs: * any text, ? one character, [ab] one of these.
llm_api = ["*.corp.example"]

# Agents that rano watches besides those that `rano agents` lists. Of each, a name is enough.
[[agents]]
name = "helper"
# Whose it is; without this line, nobody's.
provider = "acme"
# Names of its executable, script or package; without this line, its name.
names = ["helper", "helper-cli"]
# "whole": such a name and nothing else, but for version, ending (.js, .exe) and platform.
# "part": any name that contains one.
match = "whole"
# Packages that are this agent, whatever their script is called.
packages = ["@acme/helper"]
# The names are common words: a package, a path or an interpreter has to agree.
common = true
paths = ["*/.local/bin/helper"]
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OPTIONS;
    use crate::config::tests::World;

    #[test]
    fn the_sample_is_the_defaults_whether_its_keys_are_comments_or_not() {
        let defaults = World::new().load(&[]).unwrap().settings;
        let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let set: String = sample()
            .lines()
            .map(|line| line.strip_prefix('#').filter(|_| is_key(line)).unwrap_or(line).to_owned() + "\n")
            .collect();
        for text in [sample(), set] {
            let loaded = World::config(&text).load(&[]).unwrap();
            assert_eq!(loaded.settings, defaults);
            assert!(loaded.warnings.is_empty());
        }
    }

    #[test]
    fn the_comment_about_rano_toml_is_one() {
        let (_, toml) = RANO_TOML.split_once("\n\n").expect("TOML follows");
        let world = World::new().file(".config/rano/rano.toml", toml);
        let loaded = world.load(&[]).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let last = loaded.agents.entries.last().expect("agents");
        assert_eq!((last.agent.name.as_str(), last.agent.common), ("helper", true));
        assert_eq!(loaded.settings.pattern.last().map(String::as_str), Some("helper"), "it is watched");
        for line in toml.lines() {
            assert!(sample().contains(&format!("\n# {line}").trim_end().to_owned()), "{line}");
        }
    }

    #[test]
    fn every_option_is_in_it_with_its_help() {
        let text = sample();
        for spec in OPTIONS.iter().filter(|spec| spec.in_file && !spec.is_hidden()) {
            let spelling = &spec.spellings[0];
            assert!(text.contains(&format!("\n#{}=", spelling.key)), "{}", spec.name);
            assert!(text.contains(spelling.help), "{}", spec.name);
        }
        // The names of all agents are one value.
        let mut others = text.lines().filter(|line| !line.starts_with("#pattern="));
        assert!(others.all(|line| line.chars().count() <= 120), "{text}");
    }
}
