//! Colours: what each thing is painted with in each theme. Nothing is told by colour alone.

use anstyle::{AnsiColor, Effects, Style};

use crate::event::EventKind;

/// A set of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    #[default]
    Vivid,
    Mono,
    Colorblind,
}

/// The styles of one output; all empty where colour is off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Styles {
    pub connect: Style,
    pub close: Style,
    pub fail: Style,
    pub serving: Style,
    pub provider: Style,
    pub name: Style,
    pub dim: Style,
    pub heading: Style,
    pub warning: Style,
    pub critical: Style,
    /// The full part of a bar.
    pub bar: Style,
}

impl Styles {
    /// No escape sequence at all.
    pub const PLAIN: Self = Self {
        connect: Style::new(),
        close: Style::new(),
        fail: Style::new(),
        serving: Style::new(),
        provider: Style::new(),
        name: Style::new(),
        dim: Style::new(),
        heading: Style::new(),
        warning: Style::new(),
        critical: Style::new(),
        bar: Style::new(),
    };

    pub fn new(theme: Theme) -> Self {
        let bold = Style::new().effects(Effects::BOLD);
        let dim = Style::new().effects(Effects::DIMMED);
        let color = |color: AnsiColor| color.on_default();
        match theme {
            Theme::Mono => Self {
                heading: bold,
                fail: bold,
                warning: bold,
                critical: Style::new().effects(Effects::BOLD.insert(Effects::INVERT)),
                dim,
                name: bold,
                ..Self::PLAIN
            },
            Theme::Vivid => Self {
                connect: color(AnsiColor::Green),
                close: color(AnsiColor::Blue),
                fail: color(AnsiColor::Red).effects(Effects::BOLD),
                serving: color(AnsiColor::Magenta),
                provider: color(AnsiColor::Cyan),
                name: bold,
                dim,
                heading: bold,
                warning: color(AnsiColor::Yellow),
                critical: color(AnsiColor::Red).effects(Effects::BOLD),
                bar: color(AnsiColor::Cyan),
            },
            // Blue against orange-ish yellow is told apart with every common colour vision deficiency.
            Theme::Colorblind => Self {
                connect: color(AnsiColor::Blue).effects(Effects::BOLD),
                close: color(AnsiColor::Blue),
                fail: color(AnsiColor::Yellow).effects(Effects::BOLD),
                serving: color(AnsiColor::Yellow),
                provider: bold,
                name: bold,
                dim,
                heading: bold,
                warning: color(AnsiColor::Yellow).effects(Effects::BOLD),
                critical: color(AnsiColor::Yellow).effects(Effects::BOLD.insert(Effects::INVERT)),
                bar: color(AnsiColor::Blue),
            },
        }
    }

    pub fn event(&self, kind: EventKind) -> Style {
        match kind {
            EventKind::Connect => self.connect,
            EventKind::Close => self.close,
            EventKind::Fail => self.fail,
            EventKind::Accept | EventKind::Listen => self.serving,
        }
    }
}
