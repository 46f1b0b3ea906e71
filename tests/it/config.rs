//! `proxy.toml` in the repository is the reference: it loads, names every key, and names no other.

use std::collections::{BTreeMap, BTreeSet};

use lucid_proxy::config::{Config, Need};
use lucid_proxy::token::record::Record;
use proptest::prelude::*;

const REFERENCE: &str = include_str!("../../proxy.toml");

fn environment() -> BTreeMap<String, String> {
    let variables = [
        "LUCID_CLIENT_ID",
        "LUCID_CLIENT_SECRET",
        "LUCID_REFRESH_TOKEN",
    ];
    variables
        .into_iter()
        .map(|name| (name.to_owned(), "value".to_owned()))
        .collect()
}

/// The reference with every key that stands in a comment switched on. Prose has a space behind the `#`, keys have none.
fn switched_on() -> String {
    REFERENCE
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.contains(" = ") || rest.starts_with("[clients."))
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Without the table of a client: there is none by default.
fn without_clients(text: &str) -> String {
    let (before, rest) = text.split_once("[clients.").expect("a table");
    let (_, behind) = rest.split_once("\n[").expect("another table");
    format!("{before}[{behind}")
}

fn keys(text: &str) -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            table = format!("{name}.");
        } else if let Some((key, value)) = line
            .split_once(" = ")
            .filter(|_| !line.starts_with(['#', ' ']))
        {
            keys.insert(format!("{table}{key}"));
            // Those of a table in a list.
            let inner = value.strip_prefix("[{").into_iter();
            let inner = inner.flat_map(|entry| entry.split(','));
            for (name, _) in inner.filter_map(|entry| entry.split_once(" = ")) {
                keys.insert(format!("{table}{key}.{}", name.trim()));
            }
        }
    }
    keys
}

proptest! {
    #[test]
    fn s08_no_bytes_from_outside_make_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        words in proptest::collection::vec(prop_oneof![
            Just("version"), Just("refresh_token"), Just("expires_at"), Just("generation"), Just("\""), Just(":"),
            Just(","), Just("{"), Just("}"), Just("9999999999999999999"), Just("-1"), Just("null"), Just("[upstream]\n"),
            Just("url = "), Just("'http://[::1'"), Just("listen = ["), Just("]"), Just("1979-05-27"), Just("\n"),
        ], 0..30),
    ) {
        let text = words.concat();
        for content in [&bytes[..], text.as_bytes()] {
            let _ = Record::from_json(content);
            let _ = Config::parse(&String::from_utf8_lossy(content), None, &environment(), Need::Everything);
        }
    }
}

#[test]
fn the_reference_loads_as_it_stands_and_says_what_the_defaults_are() {
    let reference =
        Config::parse(REFERENCE, None, &environment(), Need::Everything).expect("it is accepted");
    let defaults =
        Config::parse("", None, &environment(), Need::Everything).expect("it is accepted");
    assert_eq!(format!("{reference:?}"), format!("{defaults:?}"));
}

#[test]
fn the_reference_names_the_keys_of_the_code_and_no_other() {
    let documented = keys(&switched_on());
    let known: BTreeSet<_> = Config::keys().into_iter().collect();
    assert_eq!(documented, known);
}

#[test]
fn every_default_that_the_reference_gives_in_a_comment_is_the_real_one() {
    let alternatives = [
        "client_secret",
        "client_secret_file",
        "client_id",
        "client_id_file",
        "refresh_token",
        "refresh_token_file",
    ];
    let text = without_clients(&switched_on());
    let text: String = text
        .lines()
        .filter(|line| {
            !alternatives
                .iter()
                .any(|key| line.starts_with(&format!("{key} = ")))
        })
        .filter(|line| {
            !line.starts_with("listen = [{")
                && !line.starts_with("public_url")
                && !line.starts_with("workers")
                && !line.starts_with("allow")
                && !line.starts_with("deny")
                && !line.starts_with("on_")
                && !line.starts_with("ca_file")
                && !line.starts_with("proxy")
                // They belong to the other kind of credential.
                && !line.starts_with("api_key")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let switched_on =
        Config::parse(&text, None, &environment(), Need::Everything).expect("it is accepted");
    let defaults =
        Config::parse("", None, &environment(), Need::Everything).expect("it is accepted");
    assert_eq!(format!("{switched_on:?}"), format!("{defaults:?}"));
}

#[test]
fn an_entry_of_listen_is_a_string_or_a_table_in_either_form() {
    let parse = |text| {
        let config = Config::parse(text, None, &environment(), Need::Everything);
        config.expect("it is accepted").listen
    };
    let inline = parse(
        r#"listen = [{ address = "127.0.0.1:0", certificate_file = "a", key_file = "b" }, { address = "unix:c", mode = "0660" }]"#,
    );
    let blocks = parse(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ncertificate_file = \"a\"\nkey_file = \"b\"\n
        [[listen]]\naddress = \"unix:c\"\nmode = \"0660\"\n",
    );
    assert_eq!(inline, blocks);
    let shown: Vec<_> = inline.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1:0 (TLS)", "unix:c"]);
    assert_eq!(inline[1].access.mode, 0o660);
    let plain = parse("listen = [\"unix:c\", \"[::1]:80\"]");
    assert_eq!(
        (plain[0].access.mode, plain[1].tls.is_some()),
        (0o600, false)
    );
}

#[test]
fn an_address_that_stands_twice_is_named() {
    let problems = |text| {
        Config::parse(text, None, &environment(), Need::Everything)
            .map_or_else(|errors| errors.to_string(), |_| String::new())
    };
    let twice = problems("listen = [\"unix:c\", \"[::1]:80\",\n { address = \"unix:c\" }]");
    assert!(
        twice.contains("line 2, column 2: listen: unix:c stands here twice; leave one out"),
        "{twice}"
    );
    let different = "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::1]:80\", \"[::1]:81\"]";
    assert_eq!(problems(different), "");
}
