//! Tables of cases: plain text that a person reads, byte for byte what goes in and what comes out.
//!
//! ```text
//! [id] section: what is demanded.
//! but: what the proxy does otherwise, and why (may be left out, as may the next)
//! peers: how others do it
//! C> what the client sends
//! U< what upstream sees
//! U> what upstream answers
//! C< what the client sees
//! ```
//!
//! The bytes of several lines with the same mark are one after the other. `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` are
//! bytes, `{name}` stands for what a run knows (see `bench`), `{a*1000}` for that many of a character. A line that begins
//! with `#` is a remark.

use std::collections::BTreeSet;

/// The marks in the order in which they must stand.
const MARKS: [&str; 4] = ["C>", "U<", "U>", "C<"];

/// One case.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) section: String,
    pub(crate) demand: String,
    pub(crate) but: Option<String>,
    pub(crate) peers: Option<String>,
    /// What stands behind each mark, in the order of [`MARKS`], as written.
    texts: [Option<String>; 4],
    /// The lines behind `C>`.
    pub(crate) lines: Vec<String>,
}

impl Row {
    /// What stands behind a mark, as it is written.
    pub(crate) fn text(&self, mark: &str) -> Option<&str> {
        let place = MARKS.iter().position(|known| *known == mark);
        self.texts[place.expect("a mark")].as_deref()
    }
}

/// Reads a table.
///
/// # Errors
///
/// When a line is not as it should be; the error says which and why.
pub(crate) fn parse(table: &str, placeholders: &[&str]) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    let mut ids = BTreeSet::new();
    for (number, line) in table.lines().enumerate() {
        let problem = |why: &str| Err(format!("line {}: {why}: {line}", number + 1));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            if let Some(why) = rows.last().and_then(unfinished) {
                return problem(why);
            }
            let Some(row) = title_row(title) else {
                return problem("expected [id] section: sentence");
            };
            if !ids.insert(row.id.clone()) {
                return problem("the id is taken");
            }
            rows.push(row);
            continue;
        }
        let Some(row) = rows.last_mut() else {
            return problem("expected [id] first");
        };
        if let Err(why) = add(row, line, placeholders) {
            return problem(&why);
        }
    }
    match rows.last().map(unfinished) {
        None => Err("no row".to_owned()),
        Some(Some(why)) => Err(format!("the end: {why}")),
        Some(None) => Ok(rows),
    }
}

fn title_row(title: &str) -> Option<Row> {
    let (id, rest) = title.split_once("] ")?;
    let (section, demand) = rest.split_once(": ")?;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let valid = !id.is_empty()
        && id.bytes().all(is_word)
        && section.bytes().any(|byte| byte.is_ascii_digit())
        && demand.ends_with('.');
    valid.then(|| Row {
        id: id.to_owned(),
        section: section.to_owned(),
        demand: demand.to_owned(),
        ..Row::default()
    })
}

/// What a row still lacks: a case expects something.
fn unfinished(row: &Row) -> Option<&'static str> {
    (row.texts[1].is_none() && row.texts[3].is_none()).then_some("the row before expects nothing")
}

fn add(row: &mut Row, line: &str, placeholders: &[&str]) -> Result<(), String> {
    let texts = row.texts.iter().any(Option::is_some);
    for (mark, remark) in [("but: ", &mut row.but), ("peers: ", &mut row.peers)] {
        if let Some(text) = line.strip_prefix(mark) {
            if texts || remark.is_some() {
                return Err(format!("{mark}stands once, below the title"));
            }
            *remark = Some(text.to_owned());
            return Ok(());
        }
    }
    let Some((mark, text)) = line.split_once(' ') else {
        return Err("expected a mark, a space and text".to_owned());
    };
    let Some(place) = MARKS.iter().position(|known| *known == mark) else {
        return Err("an unknown mark".to_owned());
    };
    if row.texts[place + 1..].iter().any(Option::is_some) {
        return Err(format!("{mark} stands behind a later mark"));
    }
    if text.ends_with(' ') {
        return Err("a space at the end is written \\x20".to_owned());
    }
    bytes(text, |name| {
        placeholders.contains(&name).then(Vec::new).ok_or(())
    })?;
    row.texts[place].get_or_insert_default().push_str(text);
    if place == 0 {
        row.lines.push(text.to_owned());
    }
    Ok(())
}

/// The bytes that a text stands for; `named` knows the placeholders.
pub(crate) fn bytes(
    text: &str,
    named: impl Fn(&str) -> Result<Vec<u8>, ()>,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => rest = escape(rest, &mut bytes)?,
            '{' => {
                let (name, behind) = rest.split_once('}').ok_or("an open brace")?;
                bytes.extend(match repeated(name) {
                    Some(many) => many,
                    None => named(name).map_err(|()| format!("an unknown name {{{name}}}"))?,
                });
                rest = behind;
            }
            ' '..='~' => bytes.push(first as u8),
            _ => return Err("a character that must be escaped".to_owned()),
        }
    }
    Ok(bytes)
}

fn escape<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let (byte, length) = match rest.as_bytes().first() {
        Some(b'r') => (b'\r', 1),
        Some(b'n') => (b'\n', 1),
        Some(b't') => (b'\t', 1),
        Some(b'0') => (0, 1),
        Some(b'\\') => (b'\\', 1),
        Some(b'x') => {
            let digits = rest.get(1..3).unwrap_or_default();
            let byte = u8::from_str_radix(digits, 16);
            (byte.map_err(|_| "\\x needs two digits")?, 3)
        }
        _ => return Err("an unknown escape".to_owned()),
    };
    bytes.push(byte);
    Ok(&rest[length..])
}

/// With `{a*1000}` written out.
pub(crate) fn expanded(text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, name, behind)) = next_name(rest) {
        whole.push_str(before);
        match repeated(name) {
            Some(many) => whole.push_str(&written(&many)),
            None => whole.push_str(&format!("{{{name}}}")),
        }
        rest = behind;
    }
    whole + rest
}

/// What stands before the first name, the name, and what stands behind it.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, behind) = rest.split_once('}')?;
    Some((before, name, behind))
}

/// `a*1000`.
fn repeated(name: &str) -> Option<Vec<u8>> {
    let (character, count) = name.split_once('*')?;
    let [byte] = character.as_bytes() else {
        return None;
    };
    Some(vec![*byte; count.parse().ok()?])
}

/// Where `part` begins.
pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Bytes as a table writes them.
pub(crate) fn written(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            0 => text.push_str("\\0"),
            b'\\' => text.push_str("\\\\"),
            b'{' | b'}' => text.push_str(&format!("\\x{byte:02x}")),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

#[test]
fn a_table_is_read_as_it_is_written() {
    let table = "# a remark\n\n[a-1] RFC 9110 7: it passes.\npeers: none\nC> GET \\x20\\r\\n\nC> {proxy}\\0\nU< {a*3}\\\\\n";
    let rows = parse(table, &["proxy"]).expect("a table");
    let [row] = &rows[..] else {
        panic!("{rows:?}");
    };
    assert_eq!(
        (row.id.as_str(), row.section.as_str()),
        ("a-1", "RFC 9110 7")
    );
    assert_eq!(row.text("C>"), Some("GET \\x20\\r\\n{proxy}\\0"));
    assert_eq!(row.text("U>"), None);
    let named = |name: &str| (name == "proxy").then(|| b"p".to_vec()).ok_or(());
    let text = row.text("C>").expect("it is there");
    assert_eq!(bytes(text, named), Ok(b"GET  \r\np\0".to_vec()));
    assert_eq!(bytes("{a*3}\\\\", named), Ok(b"aaa\\".to_vec()));
    assert_eq!(expanded("a{b*3}{c}{d*1}"), "abbb{c}d");
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(bytes(&written(&all), named), Ok(all));
}

#[test]
fn a_malformed_row_is_refused() {
    let good = "[a] RFC 9110 7: it passes.\nC> x\nU< y\n";
    assert!(parse(good, &[]).is_ok());
    for (bad, why) in [
        ("", "no row"),
        ("C> x\n", "expected [id] first"),
        ("[a] it passes.\nU< y\n", "expected [id] section"),
        ("[a] RFC 9110 7: it passes\nU< y\n", "expected [id] section"),
        (
            "[a b] RFC 9110 7: it passes.\nU< y\n",
            "expected [id] section",
        ),
        ("[a] RFC 9110 7: it passes.\nC> x\n", "expects nothing"),
        (
            "[a] RFC 9110 7: it passes.\n[b] RFC 9110 7: so.\nU< x\n",
            "expects nothing",
        ),
        (
            "[a] RFC 9110 7: it passes.\nU< y\nC> x\n",
            "behind a later mark",
        ),
        ("[a] RFC 9110 7: it passes.\nX> y\n", "an unknown mark"),
        ("[a] RFC 9110 7: it passes.\nU<\n", "expected a mark"),
        ("[a] RFC 9110 7: it passes.\nU< y\\q\n", "an unknown escape"),
        ("[a] RFC 9110 7: it passes.\nU< y\\x4\n", "two digits"),
        ("[a] RFC 9110 7: it passes.\nU< {proxy\n", "an open brace"),
        (
            "[a] RFC 9110 7: it passes.\nU< {other}\n",
            "an unknown name",
        ),
        ("[a] RFC 9110 7: it passes.\nU< \u{e9}\n", "must be escaped"),
        ("[a] RFC 9110 7: it passes.\nU< y \n", "a space at the end"),
        (
            "[a] RFC 9110 7: it passes.\nU< y\npeers: z\n",
            "below the title",
        ),
        (
            "[a] RFC 9110 7: it passes.\nU< y\n[a] RFC 9110 7: it passes.\nU< y\n",
            "the id is taken",
        ),
    ] {
        let error = parse(bad, &["proxy"]).expect_err(bad);
        assert!(error.contains(why), "{bad:?}: {error}");
    }
}
