//! A config file that sets nothing: every key with its default and its help, made from the table of options.

use super::layers;
use super::spec::Group;

/// Columns of a comment.
const WIDTH: usize = 78;

/// The text of the file.
pub fn sample() -> String {
    let mut text = String::from(
        "# rano's options, one key=value a line. It lies in ~/.config/rano/config.conf. Every line below is a default:\n\
         # take away the # in front of a key to set it.\n",
    );
    let mut group: Option<Group> = None;
    for option in layers::resolve([]) {
        let spec = option.spec;
        if !spec.in_file || spec.is_hidden() {
            continue;
        }
        if group != Some(spec.group) {
            group = Some(spec.group);
            text.push_str(&format!("\n# ---- {} ----\n", spec.group.title()));
        }
        for (position, (key, value, _)) in option.lines().into_iter().enumerate() {
            let spelling = spec.spellings.iter().find(|spelling| spelling.key == key);
            text.push_str(&format!("\n# {}\n", spelling.map_or("", |spelling| spelling.help)));
            if position == 0 {
                text.push_str(&wrapped(spec.details));
            }
            text.push_str(&format!("#{key}={value}\n"));
        }
    }
    text
}

fn wrapped(paragraph: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in paragraph.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH - 2 {
            lines.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push_str(&format!("# {line}\n"));
    }
    lines
}

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
    fn every_option_is_in_it_with_its_help() {
        let text = sample();
        for spec in OPTIONS.iter().filter(|spec| spec.in_file && !spec.is_hidden()) {
            let spelling = &spec.spellings[0];
            assert!(text.contains(&format!("\n#{}=", spelling.key)), "{}", spec.name);
            assert!(text.contains(spelling.help), "{}", spec.name);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }
}
