//! Names of the errnos that sockets end with.

use rustix::io::Errno;

/// `ECONNREFUSED` for 111 and so on. Errnos that no socket operation documents (connect(2), tcp(7), udp(7), ip(7))
/// have no name here.
pub fn name(errno: i32) -> Option<&'static str> {
    const NAMES: &[(Errno, &str)] = &[
        (Errno::PERM, "EPERM"),
        (Errno::INTR, "EINTR"),
        (Errno::IO, "EIO"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::ACCESS, "EACCES"),
        (Errno::INVAL, "EINVAL"),
        (Errno::PIPE, "EPIPE"),
        (Errno::PROTO, "EPROTO"),
        (Errno::MSGSIZE, "EMSGSIZE"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NETRESET, "ENETRESET"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::ISCONN, "EISCONN"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::HOSTDOWN, "EHOSTDOWN"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::ALREADY, "EALREADY"),
        (Errno::INPROGRESS, "EINPROGRESS"),
    ];
    NAMES.iter().find(|(known, _)| known.raw_os_error() == errno).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn connect_failures_have_their_names() {
        assert_eq!(name(111), Some("ECONNREFUSED"));
        assert_eq!(name(110), Some("ETIMEDOUT"));
        assert_eq!(name(113), Some("EHOSTUNREACH"));
        assert_eq!(name(0), None);
        assert_eq!(name(-1), None);
    }
}
