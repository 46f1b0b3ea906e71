//! Rules about methods and paths as they are written, `"GET /documents/**"` (rule S5).
//!
//! What a request is compared with, and how, is the proxy's matter: [`policy`](crate::proxy::policy).

use super::raw::{Found, Source, Table};

/// The methods that a rule may name (RFC 9110 section 9, RFC 5789), but for CONNECT, which is never served.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

/// What requests may do, in the guard for all and in a client for its own.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// What is permitted; `None` for everything.
    pub allow: Option<Vec<Rule>>,
    /// What is not permitted, whatever else is.
    pub deny: Vec<Rule>,
}

/// One rule: a method and a pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As it stands in the configuration.
    pub text: String,
    /// The method; `None` for every one.
    pub method: Option<String>,
    /// What the first segments of the path must be, decoded.
    pub segments: Vec<Segment>,
    /// Whether more segments may follow, or must not.
    pub rest: bool,
}

/// One segment of a rule's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This one.
    Literal(String),
    /// Any one.
    Any,
}

impl Rules {
    /// Takes `read_only`, `allow` and `deny` out of a table.
    pub(super) fn check<'a>(source: &mut Source<'a>, table: &mut Table<'a>) -> Self {
        let read_only = table.boolean(source, "read_only");
        let allow = table.texts(source, "allow");
        let deny = table.texts(source, "deny").unwrap_or_default();
        Self {
            read_only: read_only.is_some_and(|found| found.value),
            allow: allow.map(|found| check_rules(source, &found)),
            deny: check_rules(source, &deny),
        }
    }

    /// Whether they permit everything.
    pub fn are_none(&self) -> bool {
        !self.read_only && self.allow.is_none() && self.deny.is_empty()
    }
}

fn check_rules(source: &mut Source<'_>, found: &[Found<String>]) -> Vec<Rule> {
    let rules = found.iter().filter_map(|found| {
        let parsed = Rule::parse(&found.value);
        parsed
            .map_err(|problem| source.problem(Some(&found.at), &found.key, problem))
            .ok()
    });
    rules.collect()
}

impl Rule {
    /// Reads a rule: a method or `*`, a space, and a path of literal segments, `*` for any one, and last maybe `**` for
    /// any rest, also none.
    ///
    /// # Errors
    ///
    /// With what would be accepted. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((method, path)) = text.split_once(' ') else {
            return Err("expected a method, a space and a path, such as \"GET /documents/**\"; the method * stands for all".to_owned());
        };
        let Some(path) = path.strip_prefix('/') else {
            return Err("expected one space and a path that begins with / behind the method, such as \"GET /documents/**\"".to_owned());
        };
        let mut segments: Vec<_> = match path {
            "" => Vec::new(),
            _ => path.split('/').collect(),
        };
        let rest = segments.last() == Some(&"**");
        if rest {
            segments.pop();
        }
        Ok(Self {
            text: text.to_owned(),
            method: parse_method(method)?,
            segments: segments
                .into_iter()
                .map(Segment::parse)
                .collect::<Result<_, _>>()?,
            rest,
        })
    }
}

fn parse_method(method: &str) -> Result<Option<String>, String> {
    match method {
        "*" => Ok(None),
        _ if METHODS.contains(&method) => Ok(Some(method.to_owned())),
        _ => Err(format!(
            "expected a method in capitals before the path: {}, or * for all",
            METHODS.join(", ")
        )),
    }
}

impl Segment {
    fn parse(segment: &str) -> Result<Self, &'static str> {
        match segment {
            "*" => Ok(Self::Any),
            "**" => Err("** is accepted as the last segment alone; * stands for one segment"),
            "" => Err(
                "expected no empty segment: no // in the path and no / at its end; /** stands for everything below",
            ),
            "." | ".." => {
                Err("no request with a segment . or .. is permitted where rules are; leave it out")
            }
            _ if segment.contains('*') => {
                Err("* and ** stand for whole segments; a part of one cannot be left open")
            }
            _ if segment.contains('%') => Err(
                "expected the path as it reads decoded, without percent signs: a space is a space",
            ),
            _ if segment.trim() != segment || segment.contains(is_refused) => Err(
                "expected segments without \\, ;, ?, #, control characters and spaces at their ends, since no request with them is permitted where rules are",
            ),
            _ => Ok(Self::Literal(segment.to_owned())),
        }
    }
}

/// Whether a character in a decoded segment could make another path of it somewhere: a separator of segments or of their
/// parameters, an escape that is still one, the end of the path, or what is not seen.
pub fn is_refused(character: char) -> bool {
    matches!(character, '/' | '\\' | ';' | '%' | '?' | '#') || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s05_a_rule_is_a_method_and_a_path() {
        let rule = |text: &str| Rule::parse(text).expect("it is accepted");
        let literal = |text: &str| Segment::Literal(text.to_owned());
        assert_eq!(
            rule("GET /documents/*/a b/**"),
            Rule {
                text: "GET /documents/*/a b/**".to_owned(),
                method: Some("GET".to_owned()),
                segments: vec![literal("documents"), Segment::Any, literal("a b")],
                rest: true,
            }
        );
        for (text, segments, rest) in [("* /", 0, false), ("* /**", 0, true), ("* /*", 1, false)] {
            let rule = rule(text);
            assert_eq!(
                (rule.method, rule.segments.len(), rule.rest),
                (None, segments, rest)
            );
        }
    }

    #[test]
    fn s05_what_is_no_rule_is_told_what_would_be_one() {
        for (text, expected) in [
            ("", "a method, a space and a path"),
            ("GET", "a method, a space and a path"),
            ("/documents", "a method, a space and a path"),
            ("GET documents", "begins with /"),
            ("GET  /documents", "begins with /"),
            ("GET https://api.lucid.co/users", "begins with /"),
            ("get /documents", "in capitals"),
            ("FETCH /documents", "in capitals"),
            ("CONNECT /documents", "in capitals"),
            ("GET,POST /documents", "in capitals"),
            ("GET /documents/**/contents", "the last segment alone"),
            ("GET /**/", "the last segment alone"),
            ("GET //documents", "empty segment"),
            ("GET /documents/", "empty segment"),
            ("GET /documents/../users", ". or .."),
            ("GET /doc*", "whole segments"),
            ("GET /documents/***", "whole segments"),
            ("GET /a%20b", "percent signs"),
            ("GET /documents ", "spaces at their ends"),
            ("GET /a;b", "without \\"),
            ("GET /a\\b", "without \\"),
            ("GET /a?b", "without \\"),
            ("GET /a\tb", "without \\"),
        ] {
            let problem = Rule::parse(text).expect_err(text);
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
