//! Tells the service manager how far the program is (sd_notify(3)): a line of text to the socket that it names.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::{Environment, ProcessEnvironment};

/// Work is accepted.
pub(super) const READY: &str = "READY=1";
/// The end has begun.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Tells the service manager, if there is one that wants to know.
pub(super) fn tell(state: &str) {
    let Some(socket) = ProcessEnvironment.var("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(
            "the service manager cannot be told {state} at {socket} (NOTIFY_SOCKET): {error}"
        );
    }
}

fn send(socket: &str, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read must not stop us.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn address(socket: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    }
}

#[cfg(not(target_os = "linux"))]
fn address(socket: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(socket)
}
