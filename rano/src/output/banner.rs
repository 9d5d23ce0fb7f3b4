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
    pub files: &'a [String],
    pub notes: &'a [String],
}

impl Banner<'_> {
    /// To stderr; where that is closed there is nobody to tell.
    pub fn print(&self, styles: &Styles) {
        stream::say(&folded(self.render(styles), stream::stderr_columns(), 11));
    }

    fn render(&self, styles: &Styles) -> String {
        let heading = styles.heading;
        let mut text = format!("{heading}rano {}{heading:#}\n", env!("CARGO_PKG_VERSION"));
        let mut row = |name: &str, value: &str| {
            writeln!(text, "  {name:9}{}", Escaped(value)).expect("writing into a String cannot fail");
        };
        row("watching", &few(self.watching));
        if let Some(excluding) = self.excluding {
            row("excluded", excluding);
        }
        let mut source = self.source.name().to_owned();
        if let Some(interval) = self.interval {
            write!(source, ", a poll every {} ms", interval.as_millis())
                .expect("writing into a String cannot fail");
        }
        if let Some(reason) = self.source_reason {
            write!(source, ": {reason}").expect("writing into a String cannot fail");
        }
        row("source", &source);
        row("names", self.names);
        match self.history {
            Some(path) => row("history", &format!("{} (run {})", path.display(), self.run_id)),
            None => row("history", "none is kept"),
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
    fn it_says_how_often_rano_looks_and_what_is_kept() {
        let banner = Banner {
            run_id: "1-2",
            watching: &["claude".to_owned(), "pid 7".to_owned()],
            excluding: Some("git, cmd:--dry-run (config.conf)"),
            source: SourceKind::Proc,
            source_reason: Some("reading /proc/net as text"),
            names: "ptr",
            interval: Some(Duration::from_millis(250)),
            history: None,
            files: &[],
            notes: &[],
        };
        let text = banner.render(&Styles::PLAIN);
        let (_, rows) = text.split_once('\n').expect("a heading");
        let expected = "  watching claude, pid 7\n  excluded git, cmd:--dry-run (config.conf)\n  source   proc, a poll every 250 ms: reading /proc/net as text\n  \
                        names    ptr\n  history  none is kept\n";
        assert_eq!(rows, expected);
    }
}
