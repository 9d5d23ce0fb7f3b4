//! Colours: what each thing is painted with in each theme. Nothing is told by colour alone.

use anstyle::{Ansi256Color, Effects, Style};

use crate::event::{Class, EventKind};

// Of the palette's fixed part (xterm's 6 × 6 × 6 cube) those of middle brightness: on white as on black the contrast is
// at least 3.5 : 1. The sixteen basic colours are whatever the terminal makes of them, and some always are too pale or
// too dark.
const RED: Ansi256Color = Ansi256Color(160);
const ORANGE: Ansi256Color = Ansi256Color(166);
const BROWN: Ansi256Color = Ansi256Color(130);
const GREEN: Ansi256Color = Ansi256Color(28);
const TEAL: Ansi256Color = Ansi256Color(30);
const BLUE: Ansi256Color = Ansi256Color(68);
const PURPLE: Ansi256Color = Ansi256Color(133);
/// Of the 24 steps between black and white.
const GREY: Ansi256Color = Ansi256Color(244);

fn color(color: Ansi256Color) -> Style {
    color.on_default()
}

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
    /// Of classes of endpoints.
    pub model: Style,
    pub code_host: Style,
    pub registry: Style,
    pub telemetry: Style,
    pub unknown: Style,
    /// What stays on this machine or in this network, and look-ups.
    pub near: Style,
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
        model: Style::new(),
        code_host: Style::new(),
        registry: Style::new(),
        telemetry: Style::new(),
        unknown: Style::new(),
        near: Style::new(),
    };

    pub fn new(theme: Theme) -> Self {
        let bold = Style::new().effects(Effects::BOLD);
        let dim = Style::new().effects(Effects::DIMMED);
        match theme {
            Theme::Mono => Self {
                heading: bold,
                fail: bold,
                warning: bold,
                critical: Style::new().effects(Effects::BOLD.insert(Effects::INVERT)),
                dim,
                name: bold,
                unknown: bold,
                near: dim,
                ..Self::PLAIN
            },
            Theme::Vivid => Self {
                connect: color(GREEN),
                close: color(BLUE),
                fail: color(RED).effects(Effects::BOLD),
                serving: color(PURPLE),
                provider: color(TEAL),
                name: bold,
                dim,
                heading: bold,
                warning: color(BROWN),
                critical: color(RED).effects(Effects::BOLD),
                bar: color(TEAL),
                model: color(BLUE),
                code_host: color(GREEN),
                registry: color(ORANGE),
                telemetry: color(PURPLE),
                unknown: color(RED),
                near: color(GREY),
            },
            // Blue against orange is told apart with every common colour vision deficiency.
            Theme::Colorblind => Self {
                connect: color(BLUE).effects(Effects::BOLD),
                close: color(BLUE),
                fail: color(ORANGE).effects(Effects::BOLD),
                serving: color(ORANGE),
                provider: bold,
                name: bold,
                dim,
                heading: bold,
                warning: color(ORANGE).effects(Effects::BOLD),
                critical: color(ORANGE).effects(Effects::BOLD.insert(Effects::INVERT)),
                bar: color(BLUE),
                model: color(BLUE),
                code_host: color(TEAL),
                registry: color(BROWN),
                telemetry: color(PURPLE),
                unknown: color(ORANGE).effects(Effects::BOLD),
                near: color(GREY),
            },
        }
    }

    /// No style paints anything; every other theme has a heading of its own.
    pub fn is_plain(&self) -> bool {
        self.heading.is_plain()
    }

    pub fn class(&self, class: Class) -> Style {
        match class {
            Class::LlmApi => self.model,
            Class::CodeHost => self.code_host,
            Class::Registry => self.registry,
            Class::Telemetry => self.telemetry,
            Class::Localhost | Class::Private | Class::Ipc | Class::Dns => self.near,
            Class::Unknown => self.unknown,
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

/// What a style does, for a screen that is not painted with escape sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paint {
    /// Of the palette of 256.
    pub color: Option<u8>,
    pub bold: bool,
    pub dim: bool,
    pub inverted: bool,
}

impl From<Style> for Paint {
    fn from(style: Style) -> Self {
        let color = match style.get_fg_color() {
            Some(anstyle::Color::Ansi256(color)) => Some(color.0),
            Some(anstyle::Color::Ansi(color)) => Some(color as u8),
            Some(anstyle::Color::Rgb(_)) | None => None,
        };
        let effects = style.get_effects();
        Self {
            color,
            bold: effects.contains(Effects::BOLD),
            dim: effects.contains(Effects::DIMMED),
            inverted: effects.contains(Effects::INVERT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WCAG 2, relative luminance of a colour of the cube or of the greys.
    fn luminance(color: Ansi256Color) -> f64 {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        if color.0 >= 232 {
            return linear(8 + 10 * (color.0 - 232));
        }
        let index = color.0 - 16;
        let channel = |step: u8| linear(if step == 0 { 0 } else { 55 + 40 * step });
        0.2126 * channel(index / 36) + 0.7152 * channel(index / 6 % 6) + 0.0722 * channel(index % 6)
    }

    #[test]
    fn every_color_is_readable_on_white_and_on_black() {
        for color in [RED, ORANGE, BROWN, GREEN, TEAL, BLUE, PURPLE, GREY] {
            let luminance = luminance(color);
            let (on_white, on_black) = (1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05);
            assert!(on_white >= 3.5 && on_black >= 3.5, "{color:?}: {on_white} {on_black}");
        }
    }
}
