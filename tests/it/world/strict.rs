//! A reader of requests that takes nothing but HTTP/1.1 as RFC 9112 has senders write it.

use super::table::find;

/// What the bytes of a connection are, as far as they have come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A request: its bytes, with the content in one chunk where it is chunked, and how many bytes it took.
    Whole(Vec<u8>, usize),
    /// A head whose content is still to come.
    Head(Vec<u8>),
    /// Less than a head.
    Partial,
    /// No request.
    Malformed(&'static str),
}

/// How content is framed.
enum Framing {
    Length(usize),
    Chunked,
}

/// Reads one request from the beginning of `bytes`.
pub(crate) fn request(bytes: &[u8]) -> Read {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // A bare CR or LF may be what keeps the head from ending.
        let whole = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        return match lines(whole) {
            Err(why) => Read::Malformed(why),
            Ok(_) => Read::Partial,
        };
    };
    let head = &bytes[..end + 4];
    let framing = match lines(&bytes[..end]).and_then(|lines| framing(&lines)) {
        Ok(framing) => framing,
        Err(why) => return Read::Malformed(why),
    };
    match framing {
        Framing::Length(length) if bytes.len() < head.len() + length => Read::Head(head.to_vec()),
        Framing::Length(length) => {
            let end = head.len() + length;
            Read::Whole(bytes[..end].to_vec(), end)
        }
        Framing::Chunked => match chunks(&bytes[head.len()..]) {
            Ok(Some((content, length))) => {
                Read::Whole([head, &content].concat(), head.len() + length)
            }
            Ok(None) => Read::Head(head.to_vec()),
            Err(why) => Read::Malformed(why),
        },
    }
}

/// The lines of a head, each of which ends with CR and LF; there is no other CR, LF or control character.
fn lines(mut bytes: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut lines = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        lines.push(&bytes[..end]);
        bytes = &bytes[end + 2..];
    }
    lines.push(bytes);
    let is_plain = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    match lines.iter().all(|line| line.iter().all(is_plain)) {
        true => Ok(lines),
        false => Err("a bare CR or LF, or a control character"),
    }
}

fn framing(lines: &[&[u8]]) -> Result<Framing, &'static str> {
    let (first, fields) = lines.split_first().ok_or("no line")?;
    if !is_request_line(first) {
        return Err("no request line");
    }
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for line in fields {
        let (name, value) = field(line).ok_or("no field")?;
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => {
                let digits = value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                if !digits || number.is_none() || length.is_some() {
                    return Err("no single length");
                }
                length = number;
            }
            b"transfer-encoding" if value == b"chunked" && !chunked => chunked = true,
            b"transfer-encoding" => return Err("a coding other than chunked"),
            _ => {}
        }
    }
    match (hosts, length, chunked) {
        (1, Some(_), true) => Err("both a length and chunked"),
        (1, None, true) => Ok(Framing::Chunked),
        (1, length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        _ => Err("not one Host"),
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return false;
    };
    is_token(method)
        && !target.is_empty()
        && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
        && version == b"HTTP/1.1"
}

/// Name and value of a field line (RFC 9112 section 5).
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    is_token(name).then_some((name, value))
}

fn is_token(word: &[u8]) -> bool {
    let is_in = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(is_in)
}

/// The content in one chunk with its trailers, and how many bytes it took; `None` when there is more to come.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(end) = find(rest, b"\r\n") else {
            return Ok(None);
        };
        let digits = &rest[..end];
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("no chunk size");
        }
        let size = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or("no chunk size")?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk that does not end with its size");
        }
        content.extend(&chunk[..size]);
        at += size + 2;
    }
    let Some(trailers) = trailers(&bytes[at..])? else {
        return Ok(None);
    };
    let mut whole = Vec::new();
    if !content.is_empty() {
        whole = [
            format!("{:x}\r\n", content.len()).as_bytes(),
            &content,
            b"\r\n",
        ]
        .concat();
    }
    whole.extend(b"0\r\n");
    whole.extend(&bytes[at..at + trailers]);
    Ok(Some((whole, at + trailers)))
}

/// The length of the trailer section with its empty line.
fn trailers(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    for line in lines(&bytes[..end])? {
        field(line).ok_or("no trailer")?;
    }
    Ok(Some(end + 4))
}

#[test]
fn nothing_but_plain_requests_is_taken() {
    let head = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(head), Read::Whole(head.to_vec(), head.len()));
    let two = [&head[..], head].concat();
    assert_eq!(request(&two), Read::Whole(head.to_vec(), head.len()));
    let chunked = b"PUT /x HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let sent = [&chunked[..], b"1\r\na\r\n02\r\nbc\r\n0\r\nX-T: 1\r\n\r\n"].concat();
    let one = [&chunked[..], b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"].concat();
    assert_eq!(request(&sent), Read::Whole(one, sent.len()));
    assert_eq!(
        request(&sent[..sent.len() - 1]),
        Read::Head(chunked.to_vec())
    );
    assert_eq!(request(&head[..20]), Read::Partial);
    for bad in [
        &b"GET /x HTTP/1.1\nHost: a\n\n"[..],
        b"GET /x HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n",
        b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
        b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : a\r\n\r\n",
    ] {
        let text = String::from_utf8_lossy(bad);
        assert!(matches!(request(bad), Read::Malformed(_)), "{text:?}");
    }
}
