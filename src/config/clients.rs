//! `[clients.NAME]`: who may use the proxy, by which key, and for what (rules S1, S4, S5).

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::Need;
use super::raw::{At, Found, Source, Table};
use super::rules::Rules;
use super::secrets::{CLIENT_KEY, Given, Secrets};
use crate::secret::{ExposeSecret, Secret, is_one_word};

/// Characters that a key has at least. Those that `key new` makes have 47; this keeps words out that can be guessed.
const SHORTEST_KEY: usize = 16;

/// What keys begin with that `key new` makes, so that a search for what was published by mistake finds them.
pub const KEY_PREFIX: &str = "lpk_";

/// A client that may use the proxy.
#[derive(Clone, Debug)]
pub struct KnownClient {
    /// The name behind `clients.`.
    pub name: String,
    /// What its key is known by; `None` only where [`Need`] does not ask for it.
    pub key: Option<KeyHash>,
    /// What its requests may do, within what the guard permits to all.
    pub rules: Rules,
}

/// The SHA-256 of a key. Of random bytes it tells nothing, and no key is kept: what is sent is hashed and compared.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; SHA256_OUTPUT_LEN]);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        let digits = text.as_bytes();
        if digits.len() != 2 * hash.len() {
            return None;
        }
        let digit = |digit: u8| char::from(digit).to_digit(16);
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Self(hash))
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it is the other, in a time that does not depend on how much of it is.
    pub fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a weak key it could be guessed from.
        f.write_str("KeyHash(..)")
    }
}

/// Whether a client may be called so: what TOML takes for a key without quotes, and a log for a word. A key is no name.
pub fn is_client_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.contains(KEY_PREFIX)
}

/// What [`is_client_name`] asks for.
pub const CLIENT_NAME: &str = "up to 64 letters of ASCII, digits, - and _";

/// Takes all clients out of the file. What variables hold must be there unless the command is about the store alone.
pub(super) fn check<'a>(
    source: &mut Source<'a>,
    root: &mut Table<'a>,
    secrets: &mut Secrets<'_>,
) -> Vec<KnownClient> {
    // What a client may have is known where the file has none, too.
    Written::take(source, Table::empty("clients.NAME"), secrets);
    let Some(tables) = root.tables(source, "clients") else {
        return Vec::new();
    };
    if tables.value.is_empty() {
        let message = "expected a table for each client, [clients.NAME] with its key; leave [clients] out for none";
        source.problem(Some(&tables.at), &tables.key, message);
    }
    let mut clients: Vec<KnownClient> = Vec::new();
    for (name, at, table) in tables.value {
        if !is_client_name(&name) {
            let message = match name.contains(KEY_PREFIX) {
                true => "this is a client's key and not its name: write [clients.NAME], and below it key_sha256 as lucid-proxy key new NAME prints it".to_owned(),
                false => format!("expected a name of {CLIENT_NAME}"),
            };
            source.problem(Some(&at), "clients", message);
            continue;
        }
        let written = Written::take(source, table, secrets);
        let rules = written.rules.clone();
        let Ok(key) = written.key(source, &name, &at, secrets) else {
            continue;
        };
        if let Some(key) = &key {
            refuse_shared(source, &name, key, &clients);
        }
        let key = key.map(|key| key.value);
        clients.push(KnownClient { name, key, rules });
    }
    clients
}

/// With a key that two have, nobody could tell who asks.
fn refuse_shared(
    source: &mut Source<'_>,
    name: &str,
    key: &Found<KeyHash>,
    clients: &[KnownClient],
) {
    let has_it = |other: &&KnownClient| other.key.is_some_and(|other| other.is(&key.value));
    if let Some(other) = clients.iter().find(has_it) {
        let message = format!(
            "clients.{} has the same key; give each client its own: lucid-proxy key new {name}",
            other.name
        );
        source.problem(Some(&key.at), &key.key, message);
    }
}

/// What the table of one client says.
struct Written {
    given: Given,
    hash: Option<Found<String>>,
    rules: Rules,
    /// Whether there is a key that nobody knows, which may be meant for one of these.
    has_unknown: bool,
}

impl Written {
    fn take<'a>(source: &mut Source<'a>, mut table: Table<'a>, secrets: &mut Secrets<'_>) -> Self {
        Self {
            given: secrets.given(source, &mut table, &CLIENT_KEY),
            hash: table.string(source, "key_sha256"),
            rules: Rules::check(source, &mut table),
            has_unknown: table.finish(source),
        }
    }

    /// The hash of the key, from whichever key of the table gives it; `None` where it is not known and need not be.
    ///
    /// # Errors
    ///
    /// Where there is none, which was reported.
    fn key(
        self,
        source: &mut Source<'_>,
        name: &str,
        at: &At,
        secrets: &Secrets<'_>,
    ) -> Result<Option<Found<KeyHash>>, ()> {
        let known = match (self.given, self.hash) {
            (Given::Nothing, None) if self.has_unknown => None,
            (Given::Nothing, None) => {
                let message = format!(
                    "missing: give key_sha256, key_file or key_env; lucid-proxy key new {name} makes a key and prints its key_sha256"
                );
                source.problem(Some(at), &format!("clients.{name}"), message);
                None
            }
            (Given::Nothing, Some(hash)) => read_hash(source, hash),
            (_, Some(hash)) => {
                let message = "only one of key, key_env, key_file and key_sha256 is accepted";
                source.problem(Some(&hash.at), &hash.key, message);
                None
            }
            (Given::Wrong, None) => None,
            (Given::Unread(_), None) => return Ok(None),
            (Given::Unset(_), None) if secrets.need() == Need::Store => return Ok(None),
            (Given::Unset(variable), None) => {
                source.problem(
                    Some(&variable.at),
                    &variable.key,
                    secrets.unset(&variable.value),
                );
                None
            }
            (Given::Value(key), None) => hash_of(source, key),
        };
        known.map(Some).ok_or(())
    }
}

fn read_hash(source: &mut Source<'_>, found: Found<String>) -> Option<Found<KeyHash>> {
    let hash = KeyHash::from_hex(&found.value);
    if hash.is_none() {
        let message = "expected the SHA-256 of a key, 64 hexadecimal digits as lucid-proxy key new prints them";
        source.problem(Some(&found.at), &found.key, message);
    }
    Some(Found {
        value: hash?,
        key: found.key,
        at: found.at,
    })
}

/// The key itself is wiped with this.
fn hash_of(source: &mut Source<'_>, found: Found<Secret>) -> Option<Found<KeyHash>> {
    let key = found.value.expose_secret();
    if !is_one_word(&found.value) || key.len() < SHORTEST_KEY {
        let message = format!(
            "the key is too weak or has characters that cannot be sent: at least {SHORTEST_KEY} of visible ASCII are accepted, better what lucid-proxy key new makes"
        );
        source.problem(Some(&found.at), &found.key, message);
        return None;
    }
    Some(Found {
        value: KeyHash::of(key.as_bytes()),
        key: found.key,
        at: found.at,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    const KEY: &str = "sixteen-letters!";

    fn parse(text: &str) -> Result<Vec<KnownClient>, String> {
        let environment = [
            ("LUCID_CLIENT_ID", "id"),
            ("LUCID_CLIENT_SECRET", "secret"),
            ("KEY", KEY),
            ("WEAK", "too-short"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = BTreeMap::from(environment);
        let config = Config::parse(text, None, &environment, Need::Everything);
        config
            .map(|config| config.clients)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn s04_a_hash_is_64_digits_and_the_sha_256_of_its_key() {
        // FIPS 180-2, appendix B.1.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of(b"abc").to_hex(), hex);
        for text in [hex, &hex.to_uppercase()] {
            let hash = KeyHash::from_hex(text).expect("digits");
            assert!(hash.is(&KeyHash::of(b"abc")) && !hash.is(&KeyHash::of(b"abd")));
        }
        // To the last bit.
        let mut other = KeyHash::of(b"abc");
        other.0[SHA256_OUTPUT_LEN - 1] ^= 1;
        assert!(!other.is(&KeyHash::of(b"abc")));
        for bad in [
            "",
            &hex[1..],
            &hex.replace('b', "g"),
            &format!("{hex}0"),
            "é",
        ] {
            assert!(KeyHash::from_hex(bad).is_none(), "{bad}");
        }
        assert!(KeyHash::from_hex(&"é".repeat(32)).is_none());
        assert!(!format!("{:?}", KeyHash::of(b"abc")).contains("ba"));
    }

    #[test]
    fn s04_a_key_comes_from_a_variable_or_stands_here_or_is_a_hash() {
        let hash = KeyHash::of(KEY.as_bytes());
        for line in [
            "key_env = \"KEY\"".to_owned(),
            format!("key = \"{KEY}\""),
            format!("key_sha256 = \"{}\"", hash.to_hex()),
        ] {
            let text = format!("[clients.one-1_A]\n{line}\nread_only = true\n");
            let clients = parse(&text).expect("it is accepted");
            assert_eq!((clients.len(), clients[0].name.as_str()), (1, "one-1_A"));
            assert!(clients[0].key.is_some_and(|key| key.is(&hash)) && clients[0].rules.read_only);
        }
        assert_eq!(parse("").map(|clients| clients.len()), Ok(0));
    }

    #[test]
    fn s06_programs_that_are_run_do_not_get_the_variable_of_a_key() {
        let text = "[clients.a]\nkey_env = \"KEY\"";
        let config = Config::parse(text, None, &BTreeMap::new(), Need::Store);
        let config = config.expect("what only the store is needed for asks for no key");
        let variables = config.credential.secret_variables;
        assert!(variables.contains(&"KEY".to_owned()), "{variables:?}");
        // Whatever kind of credential there is.
        for variable in ["LUCID_API_KEY", "LUCID_CLIENT_SECRET"] {
            assert!(variables.contains(&variable.to_owned()), "{variables:?}");
        }
    }

    #[test]
    fn s06_a_key_in_a_wrong_place_is_not_repeated_and_told_where_it_belongs() {
        for (text, expected) in [
            (
                "[clients.lpk_marked]\nread_only = true",
                "line 1, column 10: clients: this is a client's key and not its name: write [clients.NAME]",
            ),
            (
                "[clients]\nlpk_marked = 1",
                "line 2, column 1: clients.(a key): expected a table",
            ),
            (
                "[clients]\nci = \"lpk_marked\"",
                "line 2, column 1: clients.ci: expected a table: [clients.ci]",
            ),
            (
                "[clients.ci]\nlpk_marked = 1\nkey_env = \"KEY\"",
                "line 2, column 1: clients.ci.(a key): unknown key",
            ),
            (
                "[clients.ci]\nkey_file = \"lpk_marked\"",
                "line 2, column 12: clients.ci.key_file: what is given is a key and not the name of a file",
            ),
            (
                "[clients.ci]\nkey_env = \"lpk_marked\"",
                "clients.ci.key_env: the name of a variable is accepted",
            ),
            (
                "[clients.ci]\nkey_sha256 = \"lpk_marked\"",
                "clients.ci.key_sha256: expected the SHA-256",
            ),
            ("lpk_marked = 1", "(a key): unknown key"),
            (
                "[credentials.default]\nclient_secret_file = \"Marked0123456789abcdef\"",
                "client_secret_file: cannot read the file with this name: No such file",
            ),
        ] {
            let problems = parse(text).expect_err(text);
            assert!(problems.contains(expected), "{text}: {problems}");
            let lower = problems.to_lowercase();
            assert!(!lower.contains("marked"), "no key in {problems}");
        }
        // What is plainly a path is worth reading.
        let named = parse("[clients.ci]\nkey_file = \"/run/secrets/client-key-of-ci\"");
        assert!(
            named
                .expect_err("no file")
                .contains("/run/secrets/client-key-of-ci:")
        );
    }

    #[test]
    fn s04_what_is_no_client_is_told_with_its_place() {
        let hash = KeyHash::of(KEY.as_bytes()).to_hex();
        let both = format!("[clients.a]\nkey_sha256 = \"{hash}\"\nkey_env = \"KEY\"");
        let twice = format!("[clients.a]\nkey_sha256 = \"{hash}\"\n[clients.b]\nkey = \"{KEY}\"");
        let open = format!("[clients.a]\nkey = \"{KEY}\"\n[guard]\nallow_unauthenticated = true");
        for (text, expected) in [
            (
                "[clients]",
                "line 1, column 2: clients: expected a table for each client",
            ),
            (
                "clients = 1",
                "line 1, column 1: clients: expected a table for each",
            ),
            (
                "[clients]\na = 1",
                "line 2, column 1: clients.a: expected a table: [clients.a]",
            ),
            (
                "[clients.a]",
                "line 1, column 10: clients.a: missing: give key_sha256",
            ),
            (
                "[clients.\"a b\"]\nkey_env = \"KEY\"",
                "line 1, column 10: clients: expected a name",
            ),
            (
                "[clients.\"\"]\nkey_env = \"KEY\"",
                "clients: expected a name",
            ),
            (
                "[clients.a]\nkey_env = \"NONE\"",
                "clients.a.key_env: the variable NONE is not set",
            ),
            (
                "[clients.a]\nkey_env = \"WEAK\"",
                "line 2, column 11: clients.a.key_env: the key is too weak",
            ),
            (
                "[clients.a]\nkey = \"fifteen-letters\"",
                "clients.a.key: the key is too weak",
            ),
            (
                "[clients.a]\nkey = \"sixteen letters!\"",
                "clients.a.key: the key is too weak",
            ),
            (
                "[clients.a]\nkey = \"sixteen-letterß\"",
                "clients.a.key: the key is too weak",
            ),
            (
                "[clients.a]\nkey_sha256 = \"12\"",
                "line 2, column 14: clients.a.key_sha256: expected the SHA-256",
            ),
            (
                "[clients.a]\nkye = 1",
                "incomplete:\n  line 2, column 1: clients.a.kye: unknown key; did you mean key? accepted here: allow, deny, key,",
            ),
            (
                &both,
                "line 2, column 14: clients.a.key_sha256: only one of",
            ),
            (
                &twice,
                "line 4, column 7: clients.b.key: clients.a has the same key",
            ),
            (&open, "line 4, column 25: guard.allow_unauthenticated: "),
        ] {
            let problems = parse(text).expect_err(text);
            assert!(problems.contains(expected), "{text}: {problems}");
            assert!(!problems.contains("letters!"), "no key in {problems}");
        }
    }
}
