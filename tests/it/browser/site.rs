//! The server of a page, which may be a stranger's: it serves the page, and hands what the page reports to the test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const PAGE: &str = include_str!("../../browser/page.html");
/// How long a browser may take for a step. Far more than it does on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Site {
    pub(super) address: SocketAddr,
    steps: Receiver<Step>,
}

/// What a page has tried, and what it has seen. The page waits until the test has had a look.
pub(super) struct Step {
    pub(super) way: String,
    pub(super) outcome: String,
    waiting: TcpStream,
}

impl Step {
    /// Lets the page go on.
    pub(super) fn go_on(mut self) {
        self.release();
    }

    /// The same, for what is left to be looked at.
    pub(super) fn done(mut self) -> Self {
        self.release();
        self
    }

    fn release(&mut self) {
        answer(&mut self.waiting, "204 No Content", "", b"");
    }
}

impl Site {
    pub(super) fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), None)
    }

    /// A site at the proxy's port on another address of this machine. It passes on what is asked of the API, as if its
    /// name had begun to lead to the proxy.
    pub(super) fn rebinding_to(proxy: SocketAddr) -> Self {
        let other = IpAddr::from([127, 0, 0, 2]);
        Self::at(SocketAddr::new(other, proxy.port()), Some(proxy))
    }

    fn at(address: SocketAddr, proxy: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, steps) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let seen = seen.clone();
                // A browser opens connections that it may not use.
                std::thread::spawn(move || serve(stream, &seen, proxy));
            }
        });
        Self { address, steps }
    }

    /// The site's origin under this name.
    pub(super) fn origin(&self, name: &str) -> String {
        format!("http://{name}:{}", self.address.port())
    }

    /// What the page has tried next.
    #[track_caller]
    pub(super) fn next(&self) -> Step {
        self.steps.recv_timeout(LIMIT).expect("the page goes on")
    }
}

/// Answers one request, and closes.
fn serve(stream: TcpStream, seen: &Sender<Step>, proxy: Option<SocketAddr>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    let target = text.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    let mut stream = stream;
    match (path, proxy) {
        ("/page.html", _) => {
            let kind = "Content-Type: text/html\r\n";
            answer(&mut stream, "200 OK", kind, PAGE.as_bytes());
        }
        ("/redirect", _) => {
            let location = format!("Location: {}\r\n", value("to")?);
            answer(&mut stream, "307 Temporary Redirect", &location, b"");
        }
        ("/step", _) => {
            let step = Step {
                way: value("way")?,
                outcome: String::from_utf8_lossy(&body).into_owned(),
                waiting: stream,
            };
            // The test may be over.
            let _ = seen.send(step);
        }
        (_, Some(proxy)) if path.starts_with("/sandbox/") => {
            let _ = relay(stream, proxy, &head, &body);
        }
        _ => answer(&mut stream, "404 Not Found", "", b""),
    }
    Some(())
}

/// Passes a request on to the byte, but for a line that has the connection end with the answer.
fn relay(mut stream: TcpStream, proxy: SocketAddr, head: &[u8], body: &[u8]) -> io::Result<()> {
    let mut behind = TcpStream::connect(proxy)?;
    let lines = head.strip_suffix(b"\r\n").expect("a head");
    behind.write_all(&[lines, b"Connection: close\r\n\r\n", body].concat())?;
    io::copy(&mut behind, &mut stream)?;
    Ok(())
}

fn answer(stream: &mut TcpStream, status: &str, fields: &str, content: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nCache-Control: no-store\r\n{fields}Content-Length: {}\r\n\r\n",
        content.len()
    );
    // A browser that has left does not want it.
    let _ = stream.write_all(&[head.as_bytes(), content].concat());
}
