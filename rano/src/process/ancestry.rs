//! An ancestry as text: exact for the store and JSON, short for people.

use std::fmt::Write as _;

use super::Ancestor;

/// Up to this many levels are shown to people in full.
const SHOWN_IN_FULL: usize = 5;
/// Of a longer ancestry so many last levels are shown: the parent and the process itself.
const SHOWN_OF_LONGER: usize = 2;

/// `init:1,bash:1700,claude:2000`, from init to the process. In a comm `,`, `:`, `%` and control characters are
/// percent-encoded, byte for byte of their UTF-8, so that the text can be taken apart again.
pub fn path(ancestry: &[Ancestor]) -> String {
    let mut text = String::new();
    for (at, ancestor) in ancestry.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        for character in ancestor.comm.chars() {
            if matches!(character, ',' | ':' | '%') || character.is_control() {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(text, "%{byte:02X}").expect("writing to a String does not fail");
                }
            } else {
                text.push(character);
            }
        }
        write!(text, ":{}", ancestor.pid).expect("writing to a String does not fail");
    }
    text
}

/// `init(1) → bash(1700) → claude(2000)`; of more than five levels the last two, `... → bash(1700) → claude(2000)`.
/// Names are raw: escape before showing.
pub fn pretty(ancestry: &[Ancestor]) -> String {
    let (mut text, shown) = if ancestry.len() > SHOWN_IN_FULL {
        ("... → ".to_owned(), &ancestry[ancestry.len() - SHOWN_OF_LONGER..])
    } else {
        (String::new(), ancestry)
    };
    for (at, ancestor) in shown.iter().enumerate() {
        let arrow = if at > 0 { " → " } else { "" };
        write!(text, "{arrow}{}({})", ancestor.comm, ancestor.pid)
            .expect("writing to a String does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ancestry(levels: &[(&str, u32)]) -> Vec<Ancestor> {
        levels.iter().map(|&(comm, pid)| Ancestor { comm: comm.into(), pid }).collect()
    }

    #[test]
    fn path_goes_from_init_to_the_process() {
        assert_eq!(
            path(&ancestry(&[("init", 1), ("bash", 1700), ("claude", 2000)])),
            "init:1,bash:1700,claude:2000"
        );
        assert_eq!(path(&[]), "");
    }

    #[test]
    fn separators_and_control_characters_in_names_are_encoded() {
        assert_eq!(
            path(&ancestry(&[("a,b:c%", 1), ("\n\u{1b}\u{85}é", 2)])),
            "a%2Cb%3Ac%25:1,%0A%1B%C2%85é:2"
        );
    }

    #[test]
    fn five_levels_are_shown_in_full_and_longer_ones_by_their_end() {
        let six = ancestry(&[("init", 1), ("a", 2), ("b", 3), ("c", 4), ("bash", 1700), ("claude", 2000)]);
        assert_eq!(pretty(&six), "... → bash(1700) → claude(2000)");
        assert_eq!(pretty(&six[1..]), "a(2) → b(3) → c(4) → bash(1700) → claude(2000)");
        assert_eq!(pretty(&six[..1]), "init(1)");
    }
}
