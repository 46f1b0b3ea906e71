//! An upstream that a test writes byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::SOON;

/// Accepts connections and hands each to the test, which says what happens on it.
pub(crate) struct RawUpstream {
    listener: TcpListener,
}

/// One connection from the proxy.
pub(crate) struct Connection(TcpStream);

impl RawUpstream {
    pub(crate) fn start() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
        }
    }

    /// On whose connections the system takes little that the test has not read.
    pub(crate) fn start_with_little_room() -> Self {
        let upstream = Self::start();
        // Connections have it from the socket that listens.
        set_socket_recv_buffer_size(&upstream.listener, 64 << 10).expect("a size");
        upstream
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("an address"))
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Connection {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_write_timeout(Some(SOON)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Connection(stream)
    }

    /// Answers every request on every connection with `answer`, and sends what arrived through the channel.
    pub(crate) fn answering(self, answer: &'static [u8]) -> Receiver<Vec<u8>> {
        let (seen, requests) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = self.listener.accept() {
                let seen: Sender<_> = seen.clone();
                std::thread::spawn(move || {
                    let mut connection = Connection(stream);
                    while let Some(request) = connection.try_request() {
                        let _ = seen.send(request);
                        connection.send(answer);
                    }
                });
            }
        });
        requests
    }
}

impl Connection {
    /// Reads a request: the head and as much as `Content-Length` or the last chunk says.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Vec<u8> {
        self.try_request().expect("a request")
    }

    fn try_request(&mut self) -> Option<Vec<u8>> {
        let mut request = self.head()?;
        let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some(length) = head.split("content-length: ").nth(1) {
            let length = length
                .split('\r')
                .next()
                .and_then(|length| length.parse().ok())
                .expect("a length");
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).ok()?;
            request.extend(body);
        } else if head.contains("transfer-encoding: chunked") {
            while !request.ends_with(b"\r\n0\r\n\r\n") {
                request.push(self.byte()?);
            }
        }
        Some(request)
    }

    /// Reads the head of a request.
    pub(crate) fn head(&mut self) -> Option<Vec<u8>> {
        self.try_until(b"\r\n\r\n")
    }

    /// Reads up to these bytes, and them.
    #[track_caller]
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        self.try_until(end).expect("more bytes")
    }

    fn try_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            bytes.push(self.byte()?);
        }
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    /// Reads exactly so many bytes.
    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("that many bytes");
        bytes
    }

    /// Reads to the end of what the proxy sends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("an end");
        bytes
    }

    /// Whether bytes are there, or the end is, right now.
    pub(crate) fn has_more(&self) -> bool {
        self.0.set_nonblocking(true).expect("a socket");
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).expect("a socket");
        peeked.is_ok()
    }

    /// The same connection, to send from another thread.
    pub(crate) fn second_handle(&self) -> TcpStream {
        self.0.try_clone().expect("a second handle")
    }

    /// Sends bytes; a proxy that has closed shows in what it tells its client.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Ends the sending side.
    pub(crate) fn finish(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Whether the proxy has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(length) => length == 0,
            // A reset is an end too, and silence is none.
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}
