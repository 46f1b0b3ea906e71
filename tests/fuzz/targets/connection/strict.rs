//! A reader of requests that knows no leniency: RFC 9112 in its strictest reading, and what the proxy promises upstream.

/// What every request has exactly once.
pub(super) struct Expected {
    pub(super) host: String,
    pub(super) authorization: String,
}

/// A request that has come as a whole.
pub(super) struct Request {
    /// Bytes, head and content.
    pub(super) length: usize,
    pub(super) is_head: bool,
}

/// How the end of the content is found (RFC 9112 section 6.3).
enum Framing {
    Length(usize),
    Chunked,
}

/// The first request in `bytes`; `None` where more has to come.
///
/// # Errors
///
/// When it can be read in more than one way, or has what must not pass.
pub(super) fn request(bytes: &[u8], expected: &Expected) -> Result<Option<Request>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // What does not begin like a request never becomes one.
        return match bytes.first().is_none_or(|byte| is_token(*byte)) {
            true => Ok(None),
            false => Err(format!("no method: {}", shown(bytes))),
        };
    };
    let head = &bytes[..end];
    let mut lines = split(head);
    let method = request_line(lines.next().unwrap_or_default()).map_err(|what| told(what, head))?;
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>();
    let fields = fields.map_err(|what| told(what, head))?;
    let framing = judge(&fields, expected).map_err(|what| told(what, head))?;
    let content = end + 4;
    let length = match framing {
        Framing::Length(length) => Some(length).filter(|length| bytes.len() - content >= *length),
        Framing::Chunked => chunked(&bytes[content..]).map_err(|what| told(what, bytes))?,
    };
    Ok(length.map(|length| Request {
        length: content + length,
        is_head: method == b"HEAD",
    }))
}

fn told(what: &str, bytes: &[u8]) -> String {
    format!("{what}: {}", shown(bytes))
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Lines by CR LF alone.
fn split(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(head);
    std::iter::from_fn(move || {
        let now = rest?;
        let end = find(now, b"\r\n");
        rest = end.map(|end| &now[end + 2..]);
        Some(&now[..end.unwrap_or(now.len())])
    })
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `method SP target SP HTTP/1.1`, the target in origin-form or `*`; the method.
fn request_line(line: &[u8]) -> Result<&[u8], &'static str> {
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else {
        return Err("not three words and HTTP/1.1");
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err("no method");
    }
    let plain = target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if !plain || !(target.starts_with(b"/") || target == b"*") {
        return Err("no target in origin-form");
    }
    Ok(method)
}

/// `name: value`, the name in lower case.
fn field(line: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or("a line without a colon")?);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err("a name that is no token");
    }
    let value = &value[1..];
    match value
        .iter()
        .all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f)
    {
        true => Ok((name.to_ascii_lowercase(), value.trim_ascii())),
        false => Err("a control character in a value"),
    }
}

/// What a promise is about must be there once, or not at all.
fn judge(fields: &[(Vec<u8>, &[u8])], expected: &Expected) -> Result<Framing, &'static str> {
    let all = |name: &str| -> Vec<&[u8]> {
        let named = fields.iter().filter(|field| field.0 == name.as_bytes());
        named.map(|field| field.1).collect()
    };
    if all("host") != [expected.host.as_bytes()] {
        return Err("not our Host, once");
    }
    if all("authorization") != [expected.authorization.as_bytes()] {
        return Err("not our Authorization, once");
    }
    if !all("via")
        .last()
        .is_some_and(|via| via.ends_with(b" lucid-proxy"))
    {
        return Err("not our Via");
    }
    for gone in [
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "upgrade",
    ] {
        if !all(gone).is_empty() {
            return Err("a field about one connection");
        }
    }
    let said_anew = match all("connection")[..] {
        [] => all("te").is_empty(),
        [b"te"] => all("te") == [b"trailers"],
        _ => false,
    };
    if !said_anew {
        return Err("Connection or TE from the client");
    }
    match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([], [length]) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            let length = std::str::from_utf8(length).expect("digits").parse();
            Ok(Framing::Length(length.unwrap_or(usize::MAX)))
        }
        ([b"chunked"], []) => Ok(Framing::Chunked),
        _ => Err("ambiguous framing"),
    }
}

/// The length of chunked content (RFC 9112 section 7.1) without extensions; `None` where more has to come.
fn chunked(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = &bytes[at..at + end];
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("no chunk size");
        }
        let digits = std::str::from_utf8(digits).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("hexadecimal digits");
        at += end + 2;
        if size == 0 {
            return trailers(bytes, at);
        }
        let Some(behind) = bytes.get(at + size..at + size + 2) else {
            return Ok(None);
        };
        if behind != b"\r\n" {
            return Err("a chunk of another size");
        }
        at += size + 2;
    }
}

/// Fields behind the last chunk, to the empty line.
fn trailers(bytes: &[u8], mut at: usize) -> Result<Option<usize>, &'static str> {
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        let (name, _) = field(line)?;
        if [
            &b"authorization"[..],
            b"transfer-encoding",
            b"content-length",
            b"host",
        ]
        .contains(&&name[..])
        {
            return Err("a trailer that no trailer may be");
        }
    }
}

/// Whether a text stands there.
pub(super) fn contains(bytes: &[u8], text: &str) -> bool {
    find(bytes, text.as_bytes()).is_some()
}
