//! Sockets that change hands.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::{GIVEN, LINK, Part, Said, Trick, fork, hold, pid, program, say, socket, use_it};

/// A connected socket of the agent's that somebody else uses. The agent's own descriptor is closed.
pub(super) fn share(trick: Trick, to: SocketAddr) -> Result<()> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
    let child = match trick {
        Trick::PassToChild => fork(0, || use_it(&TcpStream::from(receive(theirs.as_fd())?)))?,
        _ => 0,
    };
    let socket = socket()?;
    rustix::net::connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    say(&Said::Connected { pid: pid()?, port: stream.local_addr()?.port() });
    let user = match trick {
        Trick::PassToChild => {
            pass(&ours, stream.as_fd())?;
            child
        }
        Trick::InheritOverExec => {
            let fd = stream.as_raw_fd().to_string();
            drop(program("curl", Part::Use, to)?.env(GIVEN, fd).spawn()?);
            0
        }
        Trick::Taken => {
            // Where only ancestors may look (Yama), this allows a child.
            // SAFETY: it takes numbers.
            unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
            let (agent, fd) = (rustix::process::getpid(), stream.as_raw_fd());
            fork(0, move || {
                let agent = rustix::process::pidfd_open(agent, rustix::process::PidfdFlags::empty())?;
                let flags = rustix::process::PidfdGetfdFlags::empty();
                match rustix::process::pidfd_getfd(&agent, fd, flags) {
                    Ok(socket) => use_it(&TcpStream::from(socket))?,
                    Err(errno) => say(&Said::Refused(format!("pidfd_getfd: {errno}"))),
                }
                rustix::io::write(&theirs, b"t")?;
                Ok(())
            })?
        }
        _ => {
            let other = stream.try_clone()?;
            drop(stream);
            use_it(&other)?;
            say(&Said::Done);
            return hold();
        }
    };
    if trick == Trick::Taken {
        rustix::io::read(&ours, &mut [0_u8; 1])?;
    }
    drop(stream);
    if let Some(user) = rustix::process::Pid::from_raw(user.cast_signed()) {
        let user = Some(user);
        rustix::process::waitpid(user, rustix::process::WaitOptions::empty())?;
    }
    say(&Said::Done);
    Ok(())
}

pub(super) fn pass(through: &OwnedFd, descriptor: BorrowedFd<'_>) -> Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room");
    sendmsg(through, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn receive(through: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(through, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::empty())?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return descriptors.next().context("a descriptor");
        }
    }
    bail!("no descriptor came")
}

/// From the runner.
pub(super) fn given() -> Result<OwnedFd> {
    let fd: RawFd = std::env::var(LINK)?.parse()?;
    // SAFETY: the runner left it open for this process, in which nobody else has it.
    receive(unsafe { OwnedFd::from_raw_fd(fd) }.as_fd())
}
