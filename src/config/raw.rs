//! `proxy.toml` as it was written: keys are asked for by name and type, and what nobody asked for is a problem.
//!
//! Reading key by key instead of deserialising into a struct has two reasons: every problem is reported, not only
//! the first, and no message ever repeats a value, which may be a secret on the wrong line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{KEY_PREFIX, Need, misspelt};

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
        let entries = if errors.is_empty() {
            entries(root.into_inner())
        } else {
            BTreeMap::new()
        };
        (source, Table::new("", entries))
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
    fn unknown(&self, name: &str, accepted: &[&str]) -> String {
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
pub(super) struct At(Range<usize>);

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

/// One table of the file, from which keys are taken by name.
#[derive(Debug)]
pub(super) struct Table<'a> {
    path: String,
    entries: BTreeMap<String, Entry<'a>>,
    asked: Vec<&'static str>,
    /// Of these, what means nothing here.
    refused: Vec<&'static str>,
}

#[derive(Debug)]
struct Entry<'a> {
    key_at: At,
    value: Spanned<DeValue<'a>>,
}

fn entries<'a>(table: DeTable<'a>) -> BTreeMap<String, Entry<'a>> {
    table
        .into_iter()
        .map(|(key, value)| {
            let key_at = At(key.span());
            (key.into_inner().into_owned(), Entry { key_at, value })
        })
        .collect()
}

impl<'a> Table<'a> {
    fn new(path: &str, entries: BTreeMap<String, Entry<'a>>) -> Self {
        Self {
            path: path.to_owned(),
            entries,
            asked: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// A table without any key, where the file has none.
    pub(super) fn empty(path: &str) -> Self {
        Self::new(path, BTreeMap::new())
    }

    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn take<T>(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
        accepted: &str,
        read: impl FnOnce(DeValue<'a>) -> Option<T>,
    ) -> Option<Found<T>> {
        let key = self.key(name);
        self.asked.push(name);
        source.known.push(key.clone());
        let entry = self.entries.remove(name)?;
        let at = At(entry.value.span());
        match read(entry.value.into_inner()) {
            Some(value) => Some(Found { value, key, at }),
            None => {
                source.problem(Some(&at), &key, format!("expected {accepted}"));
                None
            }
        }
    }

    pub(super) fn string(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Found<String>> {
        self.take(source, name, "a string in quotes", string)
    }

    pub(super) fn boolean(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Found<bool>> {
        self.take(source, name, "true or false", |value| value.as_bool())
    }

    /// A whole number within `range`.
    pub(super) fn count(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
        range: Range<usize>,
    ) -> Option<Found<usize>> {
        let accepted = format!("a whole number from {} to {}", range.start, range.end - 1);
        self.take(source, name, &accepted, |value| {
            let integer = value.as_integer()?;
            let number = usize::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// A duration such as `"10s"`, `"5m"` or `"1h 30m"`, above zero.
    pub(super) fn duration(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Found<Duration>> {
        const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
        self.take(
            source,
            name,
            "a duration above zero and up to a year, such as \"10s\", \"5m\" or \"1h 30m\"",
            |value| {
                let duration = humantime::parse_duration(&string(value)?).ok()?;
                (!duration.is_zero() && duration <= LONGEST).then_some(duration)
            },
        )
    }

    /// A size in bytes such as `"64 KiB"`.
    pub(super) fn size(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Found<u64>> {
        self.take(
            source,
            name,
            "a size such as \"64 KiB\" or \"1 MiB\"",
            |value| {
                string(value)?
                    .parse::<bytesize::ByteSize>()
                    .ok()
                    .map(|size| size.as_u64())
            },
        )
    }

    pub(super) fn strings(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Found<Vec<String>>> {
        self.take(
            source,
            name,
            "a list of strings, such as [\"one\", \"two\"]",
            |value| match value {
                DeValue::Array(array) => array
                    .into_iter()
                    .map(|item| string(item.into_inner()))
                    .collect(),
                _ => None,
            },
        )
    }

    /// A list of strings, each with its place.
    pub(super) fn texts(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Vec<Found<String>>> {
        let key = self.key(name);
        let text = |value: Spanned<DeValue<'a>>| match Item::read(&key, value) {
            Some(Item::Text(found)) => Some(found),
            _ => None,
        };
        let read = |value| match value {
            DeValue::Array(array) => array.into_iter().map(text).collect(),
            _ => None,
        };
        self.take(
            source,
            name,
            "a list of strings, such as [\"one\", \"two\"]",
            read,
        )
        .map(|found| found.value)
    }

    /// A list with at least one entry, each a string or a table.
    pub(super) fn items(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
        accepted: &str,
    ) -> Option<Vec<Item<'a>>> {
        let key = self.key(name);
        let read = |value| match value {
            DeValue::Array(array) if !array.is_empty() => array
                .into_iter()
                .map(|value| Item::read(&key, value))
                .collect(),
            _ => None,
        };
        self.take(source, name, accepted, read)
            .map(|found| found.value)
    }

    /// A table below this one; an empty one where the file has none.
    pub(super) fn table(&mut self, source: &mut Source<'a>, name: &'static str) -> Table<'a> {
        let path = self.key(name);
        self.asked.push(name);
        let mut below = BTreeMap::new();
        if let Some(entry) = self.entries.remove(name) {
            match entry.value.into_inner() {
                DeValue::Table(table) => below = entries(table),
                _ => source.problem(
                    Some(&entry.key_at),
                    &path,
                    format!("expected a table: [{path}]"),
                ),
            }
        }
        Table::new(&path, below)
    }

    /// The first of these keys that the file has here, and its place.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &At)> {
        let place = |name: &&'n str| Some((*name, &self.entries.get(*name)?.key_at));
        names.iter().find_map(place)
    }

    /// Whether the file has one of these keys here.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.entries.contains_key(*name))
    }

    /// Reports each of these keys that the file has here, and takes it: they are known, and mean nothing beside others.
    pub(super) fn refuse(
        &mut self,
        source: &mut Source<'a>,
        names: &[&'static str],
        message: &str,
    ) {
        self.refused.extend(names);
        for name in names {
            let key = self.key(name);
            if let Some(entry) = self.entries.remove(*name) {
                source.problem(Some(&entry.key_at), &key, message);
            }
            source.known.push(key);
        }
    }

    /// The tables below one that have names of the file's own choice, each with its name and the place of that; `None`
    /// where the file has no such table.
    pub(super) fn tables(
        &mut self,
        source: &mut Source<'a>,
        name: &'static str,
    ) -> Option<Found<Vec<(String, At, Table<'a>)>>> {
        let key = self.key(name);
        self.asked.push(name);
        let Entry { key_at, value } = self.entries.remove(name)?;
        let mut tables = Vec::new();
        if let DeValue::Table(named) = value.into_inner() {
            for (name, entry) in entries(named) {
                let path = format!("{key}.{}", shown(&name));
                match entry.value.into_inner() {
                    DeValue::Table(table) => {
                        tables.push((name, entry.key_at, Table::new(&path, entries(table))));
                    }
                    _ => source.problem(
                        Some(&entry.key_at),
                        &path,
                        format!("expected a table: [{path}]"),
                    ),
                }
            }
        }
        Some(Found {
            value: tables,
            key,
            at: key_at,
        })
    }

    /// Reports every key that nobody asked for; whether there were any.
    pub(super) fn finish(self, source: &mut Source<'a>) -> bool {
        for (name, entry) in &self.entries {
            let mut accepted = self.asked.clone();
            accepted.retain(|name| !self.refused.contains(name));
            accepted.sort_unstable();
            let message = source.unknown(name, &accepted);
            source.problem(Some(&entry.key_at), &self.key(shown(name)), message);
        }
        !self.entries.is_empty()
    }
}

/// A name that somebody chose, for a message: a client's key that stands in its place is not repeated.
fn shown(name: &str) -> &str {
    match name.contains(KEY_PREFIX) {
        true => "(a key)",
        false => name,
    }
}

/// An entry of a list.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Text(Found<String>),
    Table(Table<'a>, At),
}

impl<'a> Item<'a> {
    fn read(key: &str, value: Spanned<DeValue<'a>>) -> Option<Self> {
        let at = At(value.span());
        match value.into_inner() {
            DeValue::String(text) => Some(Self::Text(Found {
                value: text.into_owned(),
                key: key.to_owned(),
                at,
            })),
            DeValue::Table(table) => Some(Self::Table(Table::new(key, entries(table)), at)),
            _ => None,
        }
    }
}

fn string(value: DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(Cow::into_owned(text)),
        _ => None,
    }
}
