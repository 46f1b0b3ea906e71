//! One file of the configuration while it is read: where things stand in it, and what is to be said of them.

use std::fmt;
use std::ops::Range;

use toml::de::DeTable;

use super::raw::Table;
use super::{Need, misspelt};

/// One thing wrong with the configuration: where, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column in the file, both counted from 1; `None` for what is missing or comes from elsewhere.
    pub position: Option<(usize, usize)>,
    /// The full key, `upstream.url`.
    pub key: String,
    /// What is wrong and what would be accepted.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// What all tables share while one file is read.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    pub(super) problems: Vec<Problem>,
    /// Files of which it is not known from here what they hold, and that may be so.
    pub(super) unread: Vec<Problem>,
    /// What is accepted, and should not stay so.
    pub(super) warnings: Vec<Problem>,
    need: Need,
    /// Every key that was asked for, whether or not the file has it.
    pub(super) known: Vec<String>,
}

impl<'a> Source<'a> {
    /// Parses `text`; a file that is not TOML leaves an empty table and one problem per syntax error.
    pub(super) fn parse(text: &'a str, need: Need) -> (Self, Table<'a>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut source = Source {
            text,
            problems: Vec::new(),
            unread: Vec::new(),
            warnings: Vec::new(),
            need,
            known: Vec::new(),
        };
        for error in &errors {
            let problem = match error.span() {
                Some(span) => Problem {
                    position: Some(source.position(span.start)),
                    key: String::new(),
                    message: error.message().to_owned(),
                },
                None => source.too_deep(error.message()),
            };
            source.problems.push(problem);
        }
        let root = if errors.is_empty() {
            Table::root(root.into_inner())
        } else {
            Table::empty("")
        };
        (source, root)
    }

    pub(super) fn problem(&mut self, at: Option<&At>, key: &str, message: impl Into<String>) {
        let problem = self.told(at, key, message.into());
        self.problems.push(problem);
    }

    /// Reports a file that gives nothing; `is_elsewhere` where it may well give something to the one who serves.
    pub(super) fn unread(&mut self, at: &At, key: &str, message: String, is_elsewhere: bool) {
        let told = self.told(Some(at), key, message);
        match self.need {
            Need::Store => self.unread.push(told),
            Need::Check if is_elsewhere => self.unread.push(told),
            Need::Check | Need::Everything => self.problems.push(told),
        }
    }

    /// Reports what is accepted all the same.
    pub(super) fn warn(&mut self, at: &At, key: &str, message: String) {
        let told = self.told(Some(at), key, message);
        self.warnings.push(told);
    }

    /// What is said of a key that nobody has asked for, where these are `accepted`.
    pub(super) fn unknown(&self, name: &str, accepted: &[&str]) -> String {
        // Of those at the top none has a dot, and they are asked for first.
        if self.known.iter().any(|known| known == name) {
            return "this is a top-level key: put it above the first [table]".to_owned();
        }
        let meant = misspelt::meant(name, accepted);
        let meant = meant.map_or_else(String::new, |meant| format!(" did you mean {meant}?"));
        format!("unknown key;{meant} accepted here: {}", accepted.join(", "))
    }

    fn told(&self, at: Option<&At>, key: &str, message: String) -> Problem {
        Problem {
            position: at.map(|at| self.position(at.0.start)),
            key: key.to_owned(),
            message,
        }
    }

    /// The parser does not tell the place of one error: a key with more parts than it follows.
    fn too_deep(&self, message: &str) -> Problem {
        let dots = |(_, line): &(usize, &str)| line.matches('.').count();
        let deepest = self.text.split('\n').enumerate().max_by_key(dots);
        let line = deepest.map_or(1, |(number, _)| number + 1);
        Problem {
            position: Some((line, 1)),
            key: String::new(),
            message: format!("a key has too many parts ({message})"),
        }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

/// Where in the file something stands.
#[derive(Clone, Debug)]
pub(super) struct At(pub(super) Range<usize>);

/// A value with its full key and its place.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) key: String,
    pub(super) at: At,
}

impl<T> Found<T> {
    /// A value that the file does not have; its place is the file's beginning.
    pub(super) fn implied(key: &str, value: T) -> Self {
        Self {
            value,
            key: key.to_owned(),
            at: At(0..0),
        }
    }
}
