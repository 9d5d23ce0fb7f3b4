//! From packets that the kernel programs copied to evidence of the very socket.

use rano_common::{PacketKind, PacketRecord};

use crate::bounded::Whose;
use crate::event::Moment;
use crate::names::Evidence;
use crate::names::packet::{self, Content, Link};
use crate::names::reader::{Reader, Seen, Standing};
use crate::source::Intake;

/// What must be remembered from packet to packet.
#[derive(Default)]
pub struct Names {
    reader: Reader,
    evidence: Vec<Evidence>,
    /// Packets that were none.
    malformed: u64,
}

impl Names {
    /// `content`: the packet from its IP header on, as far as it was copied.
    pub fn read(
        &mut self,
        kind: PacketKind,
        record: &PacketRecord,
        content: &[u8],
        at: Moment,
        intake: &mut dyn Intake,
    ) {
        let Some(mut segment) = packet::parse(Link::Ip, content) else {
            self.malformed += 1;
            return;
        };
        if let Content::Tcp { sequence, opens, .. } = &mut segment.content {
            *sequence = record.place;
            // The kernel counts, so that it does not matter whether the beginning was seen.
            *opens = false;
        }
        let (netns, cookie) = (record.netns, record.cookie);
        let seen = match kind {
            PacketKind::Sent => Seen::Sent { netns, cookie },
            PacketKind::Received => Seen::Received { netns, cookie },
        };
        let uid = record.uid;
        let standing = |party| Standing {
            whose: if intake.watches(party) { Whose::Watched } else { Whose::Anybodys },
            uid: Some(uid),
        };
        self.reader.read_knowing(at, seen, &segment, &standing, &mut self.evidence);
        for evidence in self.evidence.drain(..) {
            intake.evidence(evidence);
        }
    }

    /// Packets that hold names and gave none.
    pub fn unread(&self) -> u64 {
        self.reader.unread() + self.malformed
    }
}
