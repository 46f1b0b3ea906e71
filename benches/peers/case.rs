//! What is asked and answered in each case.

use std::net::SocketAddr;

use crate::content::Content;

/// The token that every proxy has to send. As long as Lucid's are, about 400 characters, it would be most of the head;
/// this one has the length of a usual opaque token.
pub(crate) const TOKEN: &str = "peers-0123456789abcdef0123456789abcdef0123456789";

/// One kind of exchange.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// How it is called on the command line and in reports.
    pub(crate) name: &'static str,
    /// What it is, for the heading of its table.
    pub(crate) title: &'static str,
    method: &'static str,
    path: &'static str,
    /// What is sent; empty where the method has no content.
    pub(crate) content: Content,
    /// What is answered.
    pub(crate) answer: Content,
    /// How much of it there is.
    pub(crate) load: Load,
}

/// How often a case happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// As often as can be, for some time, on that many connections at once.
    Crowd(usize),
    /// Once.
    Single,
}

/// More than any proxy may be set up to record or to buffer.
const GIB: usize = 1 << 30;

/// What a proxy changes in a request head, and so what the client says or leaves to the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Head {
    /// The client names the proxy and knows no token.
    ForProxy(SocketAddr),
    /// The client says itself what a proxy would.
    ForUpstream(SocketAddr),
}

/// Every case, in the order in which they are measured.
pub(crate) fn all() -> Vec<Case> {
    vec![
        Case {
            name: "A",
            title: "GET, 1 KiB of JSON in the answer",
            method: "GET",
            path: "/users?pageSize=20",
            content: Content::empty(),
            answer: json(1024),
            load: Load::Crowd(64),
        },
        Case {
            name: "D",
            title: "POST of 2 KiB of JSON, 1 KiB in the answer",
            method: "POST",
            path: "/documents",
            content: json(2048),
            answer: json(1024),
            load: Load::Crowd(64),
        },
        Case {
            name: "U",
            title: "POST of 1 GiB, nothing buffered",
            method: "POST",
            path: "/files/upload",
            content: Content::noise(GIB),
            answer: json(1024),
            load: Load::Single,
        },
        Case {
            name: "V",
            title: "GET, 1 GiB in the answer, nothing buffered",
            method: "GET",
            path: "/files/download",
            content: Content::empty(),
            answer: Content::noise(GIB),
            load: Load::Single,
        },
    ]
}

impl Case {
    /// `GET /users HTTP/1.1`, without the line break.
    pub(crate) fn request_line(&self) -> String {
        format!("{} {} HTTP/1.1", self.method, self.path)
    }

    /// The request as a client writes it, up to its content.
    pub(crate) fn request_head(&self, head: Head) -> Vec<u8> {
        let mut request = format!("{}\r\n", self.request_line());
        match head {
            Head::ForProxy(address) => request.push_str(&format!("Host: {address}\r\n")),
            Head::ForUpstream(address) => request.push_str(&format!(
                "Host: {address}\r\nAuthorization: {}\r\n",
                authorization()
            )),
        }
        request.push_str("User-Agent: peers\r\nAccept: application/json\r\n");
        if self.content.length() > 0 {
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                self.content.length()
            ));
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// The response as upstream writes it, up to its content.
    pub(crate) fn response_head(&self) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 200 OK\r\n\
             Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Type: application/json;charset=utf-8\r\n\
             Content-Length: {}\r\n\
             X-Request-Id: 5f0c0f6e-6d2b-4d5c-9a51-6f6f5f1c7a90\r\n\
             \r\n",
            self.answer.length()
        );
        head.into_bytes()
    }
}

/// The value of `Authorization` that upstream expects.
pub(crate) fn authorization() -> String {
    format!("Bearer {TOKEN}")
}

/// An object of exactly `length` bytes.
fn json(length: usize) -> Content {
    let frame = r#"{"text":""}"#;
    let text = "x".repeat(length - frame.len());
    Content::from(format!(r#"{{"text":"{text}"}}"#).into_bytes())
}
