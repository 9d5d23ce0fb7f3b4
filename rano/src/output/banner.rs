//! What is said at the start: what is watched, how, and where it is kept.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::event::SourceKind;
use crate::output::escape::Escaped;
use crate::output::fold::folded;
use crate::output::stream;
use crate::output::style::Styles;

/// The facts of a start.
pub struct Banner<'a> {
    pub run_id: &'a str,
    pub watching: &'a [String],
    /// What is left out, and who says so where it is not the command line.
    pub excluding: Option<&'a str>,
    pub source: SourceKind,
    pub source_reason: Option<&'a str>,
    /// Where names come from.
    pub names: &'a str,
    /// Between two looks; `None` where nothing is polled.
    pub interval: Option<Duration>,
    pub history: Option<&'a Path>,
    pub unseen: Option<Unseen>,
    pub files: &'a [String],
    pub notes: &'a [String],
}

/// What this run does not see and another one would.
pub struct Unseen {
    pub what: &'static str,
    /// A command, or several.
    pub remedy: String,
}

impl Banner<'_> {
    /// To stderr; where that is closed there is nobody to tell.
    pub fn print(&self, styles: &Styles) {
        stream::say(&folded(self.render(styles), stream::stderr_columns(), 11));
    }

    /// What is watched, how, and where it is kept; after these three lines what only some runs have to say.
    fn render(&self, styles: &Styles) -> String {
        let heading = styles.heading;
        let watching = Escaped(&few(self.watching)).to_string();
        let mut text =
            format!("{heading}rano {}{heading:#} watching {watching}\n", env!("CARGO_PKG_VERSION"));
        let mut row = |name: &str, value: &str| {
            writeln!(text, "  {name:9}{}", Escaped(value)).expect("writing into a String cannot fail");
        };
        let poll = self.interval.map(|interval| format!(", a poll every {} ms", interval.as_millis()));
        let reason = self.source_reason.map(|reason| format!(": {reason}"));
        let (poll, reason) = (poll.unwrap_or_default(), reason.unwrap_or_default());
        row("source", &format!("{}{poll}, names {}{reason}", self.source.name(), self.names));
        match self.history {
            Some(path) => row("history", &format!("{} (run {})", path.display(), self.run_id)),
            None => row("history", "none is kept"),
        }
        if let Some(Unseen { what, remedy }) = &self.unseen {
            row("not seen", &format!("{what}; to see it: {remedy}"));
        }
        if let Some(excluding) = self.excluding {
            row("excluded", excluding);
        }
        for file in self.files {
            row("config", file);
        }
        for note in self.notes {
            row("note", note);
        }
        text
    }
}

/// Names, or the first few of many.
pub fn few(names: &[String]) -> String {
    match names {
        [first, second, third, rest @ ..] if rest.len() > 3 => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_names_the_first_are_shown() {
        let names = |count: usize| (0..count).map(|index| format!("a{index}")).collect::<Vec<_>>();
        assert_eq!(few(&names(6)), "a0, a1, a2, a3, a4, a5");
        assert_eq!(few(&names(7)), "a0, a1, a2 and 4 more");
    }

    #[test]
    fn three_lines_say_what_is_watched_how_and_where_it_is_kept() {
        let mut banner = Banner {
            run_id: "1-2",
            watching: &["claude".to_owned(), "pid 7".to_owned()],
            excluding: None,
            source: SourceKind::Proc,
            source_reason: Some("reading /proc/net as text"),
            names: "ptr",
            interval: Some(Duration::from_millis(250)),
            history: None,
            unseen: None,
            files: &[],
            notes: &[],
        };
        let rows = |banner: &Banner<'_>| {
            banner.render(&Styles::PLAIN).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let usual = [
            concat!("rano ", env!("CARGO_PKG_VERSION"), " watching claude, pid 7"),
            "  source   proc, a poll every 250 ms, names ptr: reading /proc/net as text",
            "  history  none is kept",
        ];
        assert_eq!(rows(&banner), usual);
        banner.excluding = Some("git, cmd:--dry-run (config.conf)");
        banner.unseen = Some(Unseen { what: "other users' processes", remedy: "sudo rano".to_owned() });
        let more = [
            "  not seen other users' processes; to see it: sudo rano",
            "  excluded git, cmd:--dry-run (config.conf)",
        ];
        assert_eq!(rows(&banner), [&usual[..], &more].concat());
    }
}
