//! Fields of kernel structures whose places differ between kernels. User space finds them in the running kernel's BTF
//! and sets the global `OFFSETS`, one word each.

macro_rules! offsets {
    ($($variant:ident = $structure:literal $(, $field:literal)+;)+) => {
        /// Index of a field's place, in bytes from the start of its structure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Offset {
            $(
                #[doc = concat!("`", $structure, $(".", $field,)+ "`")]
                $variant,
            )+
        }

        impl Offset {
            pub const ALL: [Self; OFFSET_COUNT] = [$(Self::$variant),+];

            /// The structure and the way through it: each further field lies in the structure that the one before is.
            pub const fn path(self) -> (&'static str, &'static [&'static str]) {
                match self {
                    $(Self::$variant => ($structure, &[$($field),+])),+
                }
            }
        }

        /// How many there are.
        pub const OFFSET_COUNT: usize = [$(stringify!($variant)),+].len();
    };
}

/// Name of the global that holds them. It carries [`ABI_VERSION`](crate::ABI_VERSION), so that an object of another
/// layout does not load.
pub const OFFSETS_GLOBAL: &str = "RANO_OFFSETS_9";

offsets! {
    TaskLeader = "task_struct", "group_leader";
    TaskPid = "task_struct", "pid";
    TaskTgid = "task_struct", "tgid";
    TaskParent = "task_struct", "real_parent";
    TaskStart = "task_struct", "start_boottime";
    TaskExecId = "task_struct", "self_exec_id";
    TaskComm = "task_struct", "comm";
    TaskMm = "task_struct", "mm";
    TaskFlags = "task_struct", "flags";
    TaskCred = "task_struct", "cred";
    TaskSignal = "task_struct", "signal";
    TaskNumbers = "task_struct", "thread_pid";
    PidLevel = "pid", "level";
    PidNumbers = "pid", "numbers";
    NumberNamespace = "upid", "ns";
    PidNamespaceInode = "pid_namespace", "ns", "inum";
    SignalLive = "signal_struct", "live";
    CredEuid = "cred", "euid";
    MmArgStart = "mm_struct", "arg_start";
    MmArgEnd = "mm_struct", "arg_end";
    BprmInterp = "linux_binprm", "interp";
    SockFamily = "sock_common", "skc_family";
    SockRemotePort = "sock_common", "skc_dport";
    SockLocalPort = "sock_common", "skc_num";
    SockRemote4 = "sock_common", "skc_daddr";
    SockLocal4 = "sock_common", "skc_rcv_saddr";
    SockRemote6 = "sock_common", "skc_v6_daddr";
    SockLocal6 = "sock_common", "skc_v6_rcv_saddr";
    SockNet = "sock_common", "skc_net";
    NetInode = "net", "ns", "inum";
    SockCookie = "sock_common", "skc_cookie";
    SockFlags = "sock_common", "skc_flags";
    SockState = "sock_common", "skc_state";
    SockInterface = "sock_common", "skc_bound_dev_if";
    SockError = "sock", "sk_err";
    SockProtocol = "sock", "sk_protocol";
    SockUid = "sock", "sk_uid";
    SockSocket = "sock", "sk_socket";
    SocketInode = "socket_alloc", "vfs_inode", "i_ino";
    MessageName = "msghdr", "msg_name";
    TcpBytesSent = "tcp_sock", "bytes_sent";
    TcpBytesRetransmitted = "tcp_sock", "bytes_retrans";
    TcpBytesReceived = "tcp_sock", "bytes_received";
    TcpBytesAcknowledged = "tcp_sock", "bytes_acked";
    TcpSendNext = "tcp_sock", "snd_nxt";
    TcpSendFirst = "tcp_sock", "snd_una";
    SubflowOps = "inet_connection_sock", "icsk_ulp_ops";
    SubflowData = "inet_connection_sock", "icsk_ulp_data";
    SubflowOpsName = "tcp_ulp_ops", "name";
    SubflowParent = "mptcp_subflow_context", "conn";
    MultipathFirst = "mptcp_sock", "first";
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn the_global_carries_the_version() {
        assert_eq!(OFFSETS_GLOBAL, std::format!("RANO_OFFSETS_{}", crate::ABI_VERSION));
    }
}
