//! An ancestry as text: exact for the store and JSON, short for people.

use std::fmt::Write as _;

use super::{Ancestor, Process};

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

/// `init(1) → bash(1700) → claude(2000)`; of more than five levels what stands below the agent, the agent included, and
/// at least the last two: `... → claude(2000) → bash(2100) → curl(2200)`. Levels between a distant agent and the last
/// two are left out too. Names are raw: escape before showing.
pub fn pretty(process: &Process) -> String {
    let ancestry = process.ancestry.as_slice();
    if ancestry.len() <= SHOWN_IN_FULL {
        return joined(ancestry);
    }
    let end = ancestry.len() - SHOWN_OF_LONGER;
    let agent = process.call.as_ref().map(|call| call.agent_id.pid);
    let agent = agent.and_then(|agent| ancestry.iter().rposition(|ancestor| ancestor.pid == agent));
    let agent = agent.unwrap_or(end).min(end);
    if agent + SHOWN_IN_FULL > ancestry.len() {
        return format!("... → {}", joined(&ancestry[agent..]));
    }
    format!("... → {} → ... → {}", joined(&ancestry[agent..=agent]), joined(&ancestry[end..]))
}

fn joined(levels: &[Ancestor]) -> String {
    let mut text = String::new();
    for ancestor in levels {
        let arrow = if text.is_empty() { "" } else { " → " };
        write!(text, "{arrow}{}({})", ancestor.program, ancestor.pid)
            .expect("writing to a String does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::process::{Call, ProcessId};

    fn ancestry(levels: &[(&str, u32)]) -> Vec<Ancestor> {
        levels.iter().map(|&(comm, pid)| Ancestor { comm: comm.into(), pid, program: comm.into() }).collect()
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

    fn shown(levels: &[(&str, u32)], agent: Option<u32>) -> String {
        let call = agent.map(|pid| Call {
            agent: "claude".into(),
            agent_id: ProcessId { pid, start_time: 1 },
            session: None,
            tool: None,
        });
        pretty(&Process {
            ancestry: ancestry(levels),
            call: call.map(Arc::new),
            ..Process::unknown(ProcessId { pid: 1, start_time: 1 })
        })
    }

    #[test]
    fn five_levels_are_shown_in_full_and_longer_ones_by_their_end() {
        let six = [("init", 1), ("a", 2), ("b", 3), ("c", 4), ("bash", 1700), ("claude", 2000)];
        assert_eq!(shown(&six, None), "... → bash(1700) → claude(2000)");
        assert_eq!(shown(&six, Some(2000)), "... → bash(1700) → claude(2000)");
        assert_eq!(shown(&six[1..], None), "a(2) → b(3) → c(4) → bash(1700) → claude(2000)");
        assert_eq!(shown(&six[..1], None), "init(1)");
    }

    #[test]
    fn the_agent_is_never_left_out() {
        let levels = [
            ("init", 1),
            ("sh", 2),
            ("claude", 3),
            ("bash", 4),
            ("make", 5),
            ("sh", 6),
            ("python3", 7),
            ("curl", 8),
        ];
        assert_eq!(shown(&levels[..6], Some(3)), "... → claude(3) → bash(4) → make(5) → sh(6)");
        assert_eq!(shown(&levels, Some(3)), "... → claude(3) → ... → python3(7) → curl(8)");
        assert_eq!(shown(&levels, Some(5)), "... → make(5) → sh(6) → python3(7) → curl(8)");
    }

    #[test]
    fn people_see_the_program_and_the_path_has_the_comm() {
        let agent = Ancestor { comm: "MainThread".to_owned(), pid: 7, program: "gemini".to_owned() };
        assert_eq!(joined(std::slice::from_ref(&agent)), "gemini(7)");
        assert_eq!(path(&[agent]), "MainThread:7");
    }
}
