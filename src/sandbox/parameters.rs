//! The parameters of a request to the OAuth endpoints: a query, or a body in either of the two forms that Lucid takes.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::intake::{has_essence, is_json};

/// Names and values in their order, duplicates kept.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a body; the error says what is wrong with it, without its text.
    pub(super) fn parse(content_type: &str, body: &[u8]) -> Result<Parameters, &'static str> {
        if has_essence(content_type, "application/x-www-form-urlencoded") {
            return Ok(Parameters(
                form_urlencoded::parse(body).into_owned().collect(),
            ));
        }
        if !is_json(content_type) {
            return Err("the content type is neither JSON nor a form");
        }
        let members: Members =
            serde_json::from_slice(body).map_err(|_| "the body is not a JSON object")?;
        let strings = members.0.into_iter().map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => Err("a parameter is not a string"),
        });
        Ok(Parameters(strings.collect::<Result<_, _>>()?))
    }

    /// Reads the query of a request.
    pub(super) fn of_query(query: &str) -> Parameters {
        Parameters(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// Names and values, duplicates kept.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How often a name is there.
    pub(super) fn count(&self, name: &str) -> usize {
        self.names().filter(|found| *found == name).count()
    }

    /// The names, duplicates kept.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The first value of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that is known to be there; else nothing matches it.
    pub(super) fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
}

/// A JSON object with its duplicates, which `serde_json::Map` would drop in silence.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_alike() {
        let json = Parameters::parse(
            "application/json; charset=utf-8",
            br#"{"client_id":"a b","token":"t="}"#,
        );
        let form = Parameters::parse(
            "application/x-www-form-urlencoded",
            b"client_id=a+b&token=t%3D",
        );
        assert_eq!(json.expect("an object").0, form.expect("a form").0);
    }

    #[test]
    fn duplicates_are_kept() {
        let parameters = Parameters::parse("application/json", br#"{"token":"a","token":"b"}"#)
            .expect("an object");
        assert_eq!(parameters.names().collect::<Vec<_>>(), ["token", "token"]);
    }

    #[test]
    fn everything_else_is_refused() {
        for (content_type, body) in [
            ("text/plain", "{}"),
            ("", "{}"),
            ("application/json", "[]"),
            ("application/json", "{"),
            ("application/json", r#"{"token":1}"#),
        ] {
            assert!(
                Parameters::parse(content_type, body.as_bytes()).is_err(),
                "{content_type} {body}"
            );
        }
    }
}
