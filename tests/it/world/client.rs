//! A client that sends exactly the bytes it is given and reads answers without a library in between.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};

use super::SOON;

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case, values as bytes, in the order of arrival.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub(crate) complete: bool,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).expect("a connection"), address)
    }

    /// A connection on which the system takes little that the test has not read.
    pub(crate) fn connect_with_little_room(address: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        set_socket_recv_buffer_size(&socket, 64 << 10).expect("a size");
        rustix::net::connect(&socket, &address).expect("a connection");
        Self::on(TcpStream::from(socket), address)
    }

    fn on(stream: TcpStream, address: SocketAddr) -> Self {
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_write_timeout(Some(SOON)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream: BufReader::new(stream),
            address,
        }
    }

    /// Sends bytes; an error is the proxy's closing, which the next read shows.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Sends a request; `Host` is added.
    pub(crate) fn request(&mut self, line: &str, headers: &[&str], body: &[u8]) {
        let mut head = format!("{line} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send(&[head.as_bytes(), body].concat());
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, line: &str, headers: &[&str], body: &[u8]) -> Response {
        self.request(line, headers, body);
        if line.starts_with("HEAD ") {
            self.head()
        } else {
            self.response()
        }
    }

    /// Reads an answer, interim ones skipped.
    pub(crate) fn response(&mut self) -> Response {
        loop {
            let response = self.response_or_interim();
            if !(100..200).contains(&response.status) {
                return response;
            }
        }
    }

    /// Reads an answer, which may be an interim one.
    pub(crate) fn response_or_interim(&mut self) -> Response {
        let mut response = self.head();
        if !matches!(response.status, 100..200 | 204 | 304) {
            self.body(&mut response);
        }
        response
    }

    /// Reads the head of an answer, if the proxy does not close instead.
    pub(crate) fn head_if_any(&mut self) -> Option<Response> {
        (!self.is_closed()).then(|| self.head())
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> Response {
        let line = self.line();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.raw_line();
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                break;
            };
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
        Response {
            status,
            headers,
            body: Vec::new(),
            complete: true,
        }
    }

    fn body(&mut self, response: &mut Response) {
        if response.header("transfer-encoding") == Some("chunked") {
            response.complete = self.chunks(&mut response.body);
        } else if let Some(length) = response
            .header("content-length")
            .map(|text| text.parse().expect("a length"))
        {
            let mut limited = (&mut self.stream).take(length);
            let read = limited.read_to_end(&mut response.body);
            response.complete = read.is_ok() && response.body.len() as u64 == length;
        } else {
            response.complete = self.stream.read_to_end(&mut response.body).is_ok();
        }
    }

    /// Reads up to these bytes, and them.
    #[track_caller]
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("more bytes");
            bytes.extend(byte);
        }
        bytes
    }

    /// Reads so many bytes, or as many as come before the end; returns how many.
    pub(crate) fn take(&mut self, length: usize) -> usize {
        let mut limited = (&mut self.stream).take(length as u64);
        let read = io::copy(&mut limited, &mut io::sink());
        read.map_or(0, |read| read as usize)
    }

    /// Reads to the end of what the proxy sends; `false` when the connection breaks off instead of ending.
    pub(crate) fn rest(&mut self, bytes: &mut Vec<u8>) -> bool {
        let read = self.stream.read_to_end(bytes);
        read.is_ok()
    }

    /// Reads chunks to the last one; `false` when they end before.
    pub(crate) fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let line = self.line();
            let Ok(length) = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
            else {
                return false;
            };
            let before = body.len() as u64;
            let read = (&mut self.stream).take(length).read_to_end(body);
            if read.is_err() || body.len() as u64 != before + length {
                return false;
            }
            if length == 0 {
                while !self.line().is_empty() {}
                return true;
            }
            self.line();
        }
    }

    fn line(&mut self) -> String {
        String::from_utf8_lossy(&self.raw_line()).into_owned()
    }

    fn raw_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        // An error ends the line where the connection ended.
        let _ = self.stream.read_until(b'\n', &mut line);
        while line
            .last()
            .is_some_and(|byte| matches!(byte, b'\r' | b'\n'))
        {
            line.pop();
        }
        line
    }

    /// Whether the proxy has closed: no further byte comes, and not because nothing has come for too long.
    pub(crate) fn is_closed(&mut self) -> bool {
        // A reset is an end too.
        self.stream
            .fill_buf()
            .map_or_else(|error| !is_late(&error), <[u8]>::is_empty)
    }

    /// The same connection, to send from another thread.
    pub(crate) fn second_handle(&self) -> TcpStream {
        self.stream.get_ref().try_clone().expect("a second handle")
    }

    /// Ends the sending side.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

/// Whether nothing came for too long.
pub(crate) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Response {
    /// The first value of a field, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.iter().find(|(field, _)| field == name)?;
        std::str::from_utf8(&value.1).ok()
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.as_slice())
            .collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// `code` of Lucid's error object.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// `GET path` on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Response {
    Client::connect(address).ask(&format!("GET {path}"), &[], b"")
}
