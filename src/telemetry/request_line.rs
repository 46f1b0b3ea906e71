//! The line of a request in the log for people: columns that stand under each other, and what has no fixed width last.
//!
//! ```text
//! GET      200     24 ms        0 B in       92 B out  gen 3   /users/me/profile  replayed
//! ```

use std::fmt::{self, Debug, Write};

use bytesize::ByteSize;
use tracing::Event;
use tracing::field::{Field, Visit};

/// The fields of a request's event, named as in the log for collectors.
#[derive(Default)]
pub(super) struct RequestLine {
    method: String,
    path: String,
    status: Option<u64>,
    milliseconds: u64,
    received: u64,
    sent: u64,
    generation: Option<u64>,
    client: Option<String>,
    note: Option<String>,
    code: Option<String>,
    reason: Option<String>,
    cut: bool,
}

impl RequestLine {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut line = Self::default();
        event.record(&mut line);
        line
    }

    /// Writes the line, without its time and its end.
    pub(super) fn write(&self, to: &mut impl Write, colours: bool) -> fmt::Result {
        write!(to, "{:<8} ", Plain(&self.method).to_string())?;
        self.write_status(to, colours)?;
        write!(
            to,
            " {:>9} {:>10} in {:>10} out  {:<7} {}",
            duration(self.milliseconds),
            size(self.received),
            size(self.sent),
            self.generation
                .map_or_else(String::new, |number| format!("gen {number}")),
            Plain(&self.path),
        )?;
        if let Some(client) = &self.client {
            write!(to, "  client {}", Plain(client))?;
        }
        if let Some(note) = &self.note {
            write!(to, "  {}", Plain(note))?;
        }
        if self.status.is_none() {
            to.write_str("  the client left before its answer")?;
        } else if self.cut {
            to.write_str("  cut off")?;
        }
        if let Some(code) = &self.code {
            write!(to, "  {}", Plain(code))?;
        }
        match &self.reason {
            // Of what stands last.
            Some(reason) => write!(to, ": {}", Plain(reason)),
            None => Ok(()),
        }
    }

    /// Green, yellow or red where there are colours.
    fn write_status(&self, to: &mut impl Write, colours: bool) -> fmt::Result {
        let Some(status) = self.status else {
            return to.write_str("---");
        };
        if !colours {
            return write!(to, "{status}");
        }
        let colour = match status {
            500.. => 31,
            400.. => 33,
            _ => 32,
        };
        write!(to, "\x1b[{colour}m{status}\x1b[0m")
    }
}

impl Visit for RequestLine {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "status" => self.status = Some(value),
            "milliseconds" => self.milliseconds = value,
            "received" => self.received = value,
            "sent" => self.sent = value,
            "generation" => self.generation = Some(value),
            _ => {}
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "cut" {
            self.cut = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value.to_owned();
        match field.name() {
            "method" => self.method = value,
            "path" => self.path = value,
            "client" => self.client = Some(value),
            "note" => self.note = Some(value),
            "code" => self.code = Some(value),
            "reason" => self.reason = Some(value),
            _ => {}
        }
    }

    /// The event's message, which is the same for every request.
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Text as it is, but for characters that could end the line, move the cursor or turn the direction of reading.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' | '\'' | '\\' => f.write_char(character),
            _ => write!(f, "{}", character.escape_debug()),
        })
    }
}

fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..100_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{} s", milliseconds / 1000),
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &RequestLine, colours: bool) -> String {
        let mut text = String::new();
        let written = line.write(&mut text, colours);
        written.expect("a string takes everything");
        text
    }

    fn line() -> RequestLine {
        RequestLine {
            method: "GET".to_owned(),
            path: "/users".to_owned(),
            status: Some(200),
            milliseconds: 24,
            received: 0,
            sent: 92,
            generation: Some(3),
            ..RequestLine::default()
        }
    }

    #[test]
    fn columns_stand_under_each_other_whatever_is_in_them() {
        let others = [
            line(),
            RequestLine {
                method: "OPTIONS".to_owned(),
                status: Some(503),
                milliseconds: 99_999,
                received: 1 << 20,
                sent: 1023 << 30,
                generation: None,
                note: Some("replayed".to_owned()),
                ..line()
            },
            RequestLine {
                status: None,
                milliseconds: 1_000_000,
                received: 123_456_789,
                generation: Some(999),
                ..line()
            },
        ];
        let at = |line: &RequestLine| written(line, false).find("/users").expect("the path");
        let first = at(&others[0]);
        for other in &others {
            assert_eq!(at(other), first, "{}", written(other, false));
        }
        assert_eq!(
            written(&others[0], false),
            "GET      200     24 ms        0 B in       92 B out  gen 3   /users"
        );
    }

    #[test]
    fn what_became_of_it_stands_at_the_end() {
        let end = |line: RequestLine| {
            let text = written(&line, false);
            let (_, end) = text.split_once("/users").expect("the path");
            end.to_owned()
        };
        assert_eq!(end(line()), "");
        let replayed = RequestLine {
            note: Some("replayed".to_owned()),
            cut: true,
            ..line()
        };
        assert_eq!(end(replayed), "  replayed  cut off");
        let known = RequestLine {
            client: Some("reports".to_owned()),
            note: Some("replayed".to_owned()),
            ..line()
        };
        assert_eq!(end(known), "  client reports  replayed");
        let silent = RequestLine {
            cut: true,
            reason: Some("upstream broke off".to_owned()),
            ..line()
        };
        assert_eq!(end(silent), "  cut off: upstream broke off");
        let lost = RequestLine {
            note: Some("not replayed".to_owned()),
            reason: Some("the disk failed".to_owned()),
            ..line()
        };
        assert_eq!(end(lost), "  not replayed: the disk failed");
        let refused = RequestLine {
            code: Some("hostNotAllowed".to_owned()),
            reason: Some("Host \"x\"".to_owned()),
            ..line()
        };
        assert_eq!(end(refused), "  hostNotAllowed: Host \"x\"");
        let left = RequestLine {
            status: None,
            cut: true,
            ..line()
        };
        assert_eq!(end(left), "  the client left before its answer");
    }

    #[test]
    fn durations_keep_three_digits() {
        for (milliseconds, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (1_250, "1.2 s"),
            (99_999, "99.9 s"),
            (100_000, "100 s"),
            (u64::MAX, "18446744073709551 s"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
    }

    #[test]
    fn s06_no_character_ends_the_line_or_moves_the_cursor() {
        let evil = "/a\n\r\u{1b}[31m\u{85}\u{202e}\u{0}é\"\\";
        let line = RequestLine {
            method: evil.to_owned(),
            path: evil.to_owned(),
            client: Some(evil.to_owned()),
            note: Some(evil.to_owned()),
            code: Some(evil.to_owned()),
            reason: Some(evil.to_owned()),
            ..line()
        };
        let text = written(&line, false);
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
        let escaped = r#"/a\n\r\u{1b}[31m\u{85}\u{202e}\0é"\"#;
        assert_eq!(text.matches(escaped).count(), 6, "{text}");
    }

    #[test]
    fn a_terminal_shows_the_status_in_colour() {
        for (status, colour) in [(200, 32), (304, 32), (404, 33), (503, 31)] {
            let line = RequestLine {
                status: Some(status),
                ..line()
            };
            let coloured = format!("\x1b[{colour}m{status}\x1b[0m");
            assert!(written(&line, true).contains(&coloured), "{status}");
            assert!(!written(&line, false).contains('\x1b'));
        }
    }
}
