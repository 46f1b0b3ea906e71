//! `proxy.toml` as it was written: keys are asked for by name and type, and what nobody asked for is a problem.
//!
//! Reading key by key instead of deserialising into a struct has two reasons: every problem is reported, not only
//! the first, and no message ever repeats a value, which may be a secret on the wrong line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::KEY_PREFIX;
pub(super) use super::source::{At, Found, Source};

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

    /// The whole file.
    pub(super) fn root(table: DeTable<'a>) -> Self {
        Self::new("", entries(table))
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
