//! What is kept of a grant: the current pair and everything that must survive the process.
//!
//! On disk it is one JSON object. `access_token`, `refresh_token` and `expiration` are the fields of Lucid's example
//! script, so that such a script can share the file; the others are ours. A file with the script's fields alone, as
//! the script leaves it after a refresh of its own, is read as a newer pair of unknown generation.

use std::io::Write;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Datelike, Local, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use super::placeholder::Placeholder;
use crate::secret::{Buffer, ExposeSecret, Secret, Zeroizing};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// How long Lucid's access tokens live.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);

/// A refresh token that nobody uses dies after this (Lucid's documentation).
const REFRESH_TOKEN_LIFE: Duration = Duration::from_secs(180 * 24 * 3600);

/// A pair and its history.
#[derive(Clone, Debug)]
pub struct Record {
    /// The number of the pair within its grant; `None` where another program wrote the file.
    pub generation: Option<u64>,
    /// Empty where only a refresh token is known yet.
    pub access_token: Secret,
    /// Empty after a logout only.
    pub refresh_token: Secret,
    /// When the access token was issued.
    pub issued_at: SystemTime,
    /// When the access token dies.
    pub expires_at: SystemTime,
    /// When the refresh token was issued: 180 days later it dies unused.
    pub refresh_issued_at: SystemTime,
    /// What the person approved, as far as the token endpoint said.
    pub scopes: Vec<String>,
    /// The user whose grant it is (user tokens).
    pub user_id: Option<u64>,
    /// The account whose grant it is (account tokens).
    pub account_id: Option<u64>,
    /// A rotation that was begun and of which no end is known.
    pub intent: Option<Intent>,
    /// The token endpoint's final no.
    pub refusal: Option<Refusal>,
    /// The rotation that made this pair.
    pub last_rotation: Option<LastRotation>,
    /// The last rotation that failed, since this pair was issued.
    pub last_error: Option<LastError>,
    /// The last rotation of this grant or one before it whose new pair was lost.
    pub lost_rotation: Option<Intent>,
    /// When a person logged out: there is no pair, and whoever still holds an older one must not bring it back (T18).
    pub logged_out: Option<SystemTime>,
}

/// Written before the refresh token is sent: from then on its fate is open until an answer is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The generation whose refresh token was about to be sent.
    pub generation: u64,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// When it was last sent, where that was more than once.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "rfc3339_option"
    )]
    pub again: Option<SystemTime>,
}

impl Intent {
    /// When the refresh token was last on its way.
    pub fn last_sent(&self) -> SystemTime {
        self.again.unwrap_or(self.at)
    }
}

/// The token endpoint refused this generation for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The OAuth error code (RFC 6749 section 5.2).
    pub code: String,
    /// What it means and what to do.
    pub message: String,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// Which client credentials were refused with it; others may try once more.
    pub client: String,
    /// Whether it was about those and not about the token.
    #[serde(default)]
    pub about_client: bool,
}

/// How the pair came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRotation {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// Why: `first`, `expiring`, `expired`, `rejected`, `idle`, `unfinished` or `asked`.
    pub cause: String,
    /// How long the token endpoint took.
    pub milliseconds: u64,
}

/// A failure that leaves the grant alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// What happened.
    pub message: String,
}

/// Why a store's content is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Not JSON, cut off, or a field of another type; the parser's text names place and type, never the value.
    #[error("it is not a token file (line {line}, column {column})")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Written by a later version of this program.
    #[error("a newer lucid-proxy wrote it (format {0}, this one reads format {FORMAT_VERSION})")]
    FutureVersion(u32),
    /// Without one there is nothing that lasts.
    #[error("it has no refresh_token; log in with the scope offline_access, which grants one")]
    NoRefreshToken,
    /// A program that refreshes through a proxy has written down what it got.
    #[error(
        "it holds no login but placeholders, which a lucid-proxy gave to a program that refreshes by itself; give that program a file of its own"
    )]
    Placeholders,
    /// Neither of the two forms of a time.
    #[error("its field {0} is not a date and time")]
    BadTime(&'static str),
}

impl Record {
    /// Reads the JSON form.
    ///
    /// # Errors
    ///
    /// Never repeats anything that stands in `bytes`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.trim_ascii().is_empty() {
            return Err(RecordError::Empty);
        }
        let version: VersionOnly = serde_json::from_slice(bytes).map_err(not_json)?;
        if let Some(version) = version.version.filter(|version| *version > FORMAT_VERSION) {
            return Err(RecordError::FutureVersion(version));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(not_json)?;
        Self::from_stored(stored)
    }

    fn from_stored(stored: Stored) -> Result<Self, RecordError> {
        let logged_out = stored.logged_out_at.as_deref().map(parse_rfc3339);
        if let Some(at) = logged_out {
            let at = at.ok_or(RecordError::BadTime("logged_out_at"))?;
            return Ok(Self {
                lost_rotation: stored.lost_rotation,
                ..Self::logged_out(stored.generation.unwrap_or(0), at)
            });
        }
        let refresh_token = stored.refresh_token.filter(|token| !token.is_empty());
        let refresh_token = refresh_token.ok_or(RecordError::NoRefreshToken)?;
        if Placeholder::of(&refresh_token).is_some() {
            return Err(RecordError::Placeholders);
        }
        let naive = stored
            .expiration
            .as_deref()
            .map(parse_naive_local)
            .transpose()?;
        let expires_at = match stored.expires_at.as_deref() {
            Some(text) => Some(parse_rfc3339(text).ok_or(RecordError::BadTime("expires_at"))?),
            None => naive,
        };
        // A pair whose expiry nobody wrote down is rotated at its first use, and so is one without an access token that
        // could be used.
        let access_token = stored.access_token.unwrap_or_default();
        let is_placeholder = Placeholder::of(&access_token).is_some();
        let expires_at = expires_at
            .filter(|_| !is_placeholder)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let time = |text: Option<&str>| text.and_then(parse_rfc3339);
        // The example script does not write it down; Lucid's tokens live an hour.
        let usual = || {
            let issued_at = expires_at.checked_sub(USUAL_LIFETIME).unwrap_or(expires_at);
            writable(issued_at.into())
        };
        let issued_at = time(stored.issued_at.as_deref()).unwrap_or_else(usual);
        Ok(Self {
            generation: stored.generation,
            access_token: Secret::from(access_token),
            refresh_token: Secret::from(refresh_token),
            issued_at,
            expires_at,
            refresh_issued_at: time(stored.refresh_issued_at.as_deref()).unwrap_or(issued_at),
            scopes: stored.scopes,
            user_id: stored.user_id,
            account_id: stored.account_id,
            intent: stored.intent,
            refusal: stored.refusal,
            last_rotation: stored.last_rotation,
            last_error: stored.last_error,
            lost_rotation: stored.lost_rotation,
            logged_out: None,
        })
    }

    /// Writes the JSON form, with a line break at its end.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let expires_at = DateTime::<Utc>::from(self.expires_at);
        let stored = StoredRef {
            version: FORMAT_VERSION,
            generation: self.generation.unwrap_or(0),
            access_token: self.access_token.expose_secret(),
            refresh_token: self.refresh_token.expose_secret(),
            expiration: naive_local(self.expires_at),
            expires_at: expires_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            issued_at: rfc3339::format(self.issued_at),
            refresh_issued_at: rfc3339::format(self.refresh_issued_at),
            scopes: &self.scopes,
            user_id: self.user_id,
            account_id: self.account_id,
            intent: &self.intent,
            refusal: &self.refusal,
            last_rotation: &self.last_rotation,
            last_error: &self.last_error,
            lost_rotation: &self.lost_rotation,
            logged_out_at: self.logged_out.map(rfc3339::format),
        };
        let mut json = Buffer::default();
        serde_json::to_writer_pretty(&mut json, &stored)
            .expect("strings, numbers and lists always serialise");
        json.write_all(b"\n").expect("memory takes all of it");
        json.into_bytes()
    }

    /// A record that holds a refresh token and nothing else yet: its first use rotates it.
    pub fn from_refresh_token(refresh_token: Secret, now: SystemTime) -> Self {
        Self {
            generation: Some(0),
            access_token: Secret::from(String::new()),
            refresh_token,
            issued_at: now,
            expires_at: SystemTime::UNIX_EPOCH,
            refresh_issued_at: now,
            scopes: Vec::new(),
            user_id: None,
            account_id: None,
            intent: None,
            refusal: None,
            last_rotation: None,
            last_error: None,
            lost_rotation: None,
            logged_out: None,
        }
    }

    /// What is left after a logout: no pair, and a generation that is higher than that of every pair before.
    pub fn logged_out(generation: u64, at: SystemTime) -> Self {
        Self {
            generation: Some(generation),
            logged_out: Some(at),
            ..Self::from_refresh_token(Secret::from(String::new()), at)
        }
    }

    /// How long the access token was given to live.
    pub fn lifetime(&self) -> Duration {
        self.expires_at
            .duration_since(self.issued_at)
            .unwrap_or_default()
    }

    /// Whether only a login helps: it was refused, or a person logged out.
    pub fn is_over(&self) -> bool {
        self.refusal.is_some() || self.logged_out.is_some()
    }

    /// When the refresh token dies if nobody uses it; `None` where there is none.
    pub fn refresh_token_end(&self) -> Option<SystemTime> {
        let end = self.refresh_issued_at.checked_add(REFRESH_TOKEN_LIFE);
        end.filter(|_| self.logged_out.is_none())
    }

    /// Whether only a login helps the application with this fingerprint.
    pub fn is_over_for(&self, client: &str) -> bool {
        let refused = self.refusal.as_ref();
        self.logged_out.is_some() || refused.is_some_and(|refusal| refusal.client == client)
    }

    /// Whether both hold the same refresh token.
    pub fn same_tokens(&self, other: &Self) -> bool {
        self.refresh_token.expose_secret() == other.refresh_token.expose_secret()
    }
}

fn not_json(error: serde_json::Error) -> RecordError {
    RecordError::NotJson {
        line: error.line(),
        column: error.column(),
    }
}

fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(writable(time.to_utc()))
}

/// The nearest time that can be written and read again in every zone: RFC 3339 has four digits for a year.
fn writable(time: DateTime<Utc>) -> SystemTime {
    let year = time.year().clamp(1, 9998);
    if year == time.year() {
        return time.into();
    }
    let nearest = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).earliest();
    nearest.expect("UTC has every new year's midnight").into()
}

/// Reads `expiration` as Python's `datetime.isoformat()` writes a local time: without a zone.
fn parse_naive_local(text: &str) -> Result<SystemTime, RecordError> {
    let bad = RecordError::BadTime("expiration");
    if let Some(time) = parse_rfc3339(text) {
        return Ok(time);
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .map_err(|_| bad)?;
    if !(1..=9998).contains(&naive.year()) {
        return Ok(writable(naive.and_utc()));
    }
    // In the hour that a clock change repeats, the earlier reading: a token refreshed too early does no harm. An hour
    // that a clock change skips was never on the clock that wrote it; read as UTC it is near enough to be refreshed.
    let local = Local
        .from_local_datetime(&naive)
        .earliest()
        .map(|time| writable(time.to_utc()));
    Ok(local.unwrap_or_else(|| SystemTime::from(naive.and_utc())))
}

fn naive_local(time: SystemTime) -> String {
    DateTime::<Local>::from(time)
        .format("%Y-%m-%dT%H:%M:%S%.6f")
        .to_string()
}

mod rfc3339 {
    use super::{DateTime, Deserialize, SecondsFormat, SystemTime, Utc, parse_rfc3339};

    pub(super) fn format(time: SystemTime) -> String {
        DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    pub(super) fn serialize<S: serde::Serializer>(
        time: &SystemTime,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format(*time))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

mod rfc3339_option {
    use super::{Deserialize, SystemTime, rfc3339};

    #[derive(Deserialize)]
    struct Time(#[serde(with = "rfc3339")] SystemTime);

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: serde::Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => rfc3339::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(from)?.map(|time| time.0))
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: Option<u32>,
}

#[derive(Deserialize)]
struct Stored {
    generation: Option<u64>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expiration: Option<String>,
    expires_at: Option<String>,
    issued_at: Option<String>,
    refresh_issued_at: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    user_id: Option<u64>,
    account_id: Option<u64>,
    intent: Option<Intent>,
    refusal: Option<Refusal>,
    last_rotation: Option<LastRotation>,
    last_error: Option<LastError>,
    lost_rotation: Option<Intent>,
    logged_out_at: Option<String>,
}

#[derive(Serialize)]
struct StoredRef<'a> {
    version: u32,
    generation: u64,
    access_token: &'a str,
    refresh_token: &'a str,
    expiration: String,
    expires_at: String,
    issued_at: String,
    refresh_issued_at: String,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: &'a Option<Intent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: &'a Option<Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rotation: &'a Option<LastRotation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: &'a Option<LastError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_rotation: &'a Option<Intent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logged_out_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn record() -> Record {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let mut record = Record::from_refresh_token(Secret::from("oauth2-RT"), now);
        record.generation = Some(7);
        record.access_token = Secret::from("oauth2-AT");
        record.expires_at = now + Duration::from_secs(3600);
        record.scopes = vec!["offline_access".to_owned()];
        record.intent = Some(Intent {
            generation: 7,
            at: now,
            again: Some(now + Duration::from_secs(70)),
        });
        record
    }

    #[test]
    fn t18_a_logout_comes_back_as_it_was_written() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let written = Record::logged_out(8, now);
        let read = Record::from_json(&written.to_json()).expect("what we write we can read");
        assert_eq!(format!("{written:?}"), format!("{read:?}"));
        assert!(read.refresh_token.expose_secret().is_empty());
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let written = record();
        let read = Record::from_json(&written.to_json()).expect("what we write we can read");
        assert_eq!(format!("{written:?}"), format!("{read:?}"));
        assert!(written.same_tokens(&read));
        assert_eq!(read.access_token.expose_secret(), "oauth2-AT");
    }

    #[test]
    fn has_the_fields_of_the_example_script_and_its_local_time() {
        let json: serde_json::Value = serde_json::from_slice(&record().to_json()).expect("JSON");
        assert_eq!(json["access_token"], "oauth2-AT");
        assert_eq!(json["refresh_token"], "oauth2-RT");
        let expiration = json["expiration"].as_str().expect("text");
        assert_eq!(
            parse_naive_local(expiration).expect("a time"),
            record().expires_at
        );
        assert!(
            !expiration.ends_with('Z') && !expiration.contains('+'),
            "{expiration}"
        );
    }

    #[test]
    fn the_page_about_the_file_names_its_fields_and_no_others() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let full = Record {
            user_id: Some(1),
            account_id: Some(1),
            refusal: Some(Refusal {
                about_client: false,
                code: String::new(),
                message: String::new(),
                at: now,
                client: String::new(),
            }),
            last_rotation: Some(LastRotation {
                at: now,
                cause: String::new(),
                milliseconds: 0,
            }),
            last_error: Some(LastError {
                at: now,
                message: String::new(),
            }),
            lost_rotation: record().intent,
            logged_out: Some(now),
            ..record()
        };
        let json: serde_json::Value = serde_json::from_slice(&full.to_json()).expect("JSON");
        let written: BTreeSet<_> = json.as_object().expect("an object").keys().collect();
        let page = include_str!("../../docs/store.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let named: Vec<_> = rows
            .filter_map(|row| row.split('`').next())
            .map(str::to_owned)
            .collect();
        assert_eq!(written, named.iter().collect());
    }

    #[test]
    fn reads_the_example_scripts_own_file() {
        let json = br#"{"access_token":"a","refresh_token":"r","expiration":"2031-05-06T07:08:09.123456","client_id":"c"}"#;
        let record = Record::from_json(json).expect("a record");
        assert_eq!(record.generation, None, "nobody counted");
        assert_eq!(naive_local(record.expires_at), "2031-05-06T07:08:09.123456");
        let whole_second =
            br#"{"access_token":"a","refresh_token":"r","expiration":"2031-05-06T07:08:09"}"#;
        assert!(
            Record::from_json(whole_second).is_ok(),
            "isoformat leaves out a zero fraction"
        );
    }

    #[test]
    fn f11_a_placeholder_beside_a_refresh_token_is_never_sent() {
        let json = br#"{"access_token":"lucid-proxy-placeholder-access-1","refresh_token":"r","expiration":"2199-01-01T00:00:00"}"#;
        let record = Record::from_json(json).expect("a record");
        assert_eq!(record.expires_at, SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn s08_bad_content_is_an_error_that_repeats_none_of_it() {
        for (content, expected) in [
            (&b""[..], "it is empty"),
            (b" \n", "it is empty"),
            (
                b"<html>marked</html>",
                "not a token file (line 1, column 1)",
            ),
            (
                br#"{"access_token":"marked","refresh_to"#,
                "not a token file (line 1",
            ),
            (
                br#"{"access_token":5,"refresh_token":"marked"}"#,
                "not a token file",
            ),
            (
                br#"{"version":2,"refresh_token":"marked"}"#,
                "a newer lucid-proxy wrote it (format 2",
            ),
            (br#"{"access_token":"marked"}"#, "no refresh_token"),
            (br#"{"refresh_token":""}"#, "no refresh_token"),
            (
                br#"{"access_token":"marked","refresh_token":"lucid-proxy-placeholder-refresh-3","generation":3}"#,
                "no login but placeholders",
            ),
            (
                br#"{"refresh_token":"r","expiration":"marked"}"#,
                "its field expiration",
            ),
            (br#"{"logged_out_at":"marked"}"#, "its field logged_out_at"),
            (b"[1]", "not a token file"),
            (b"\xff\xfe", "not a token file"),
        ] {
            let error = Record::from_json(content)
                .expect_err("no record")
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("marked"), "{error}");
        }
    }

    #[test]
    fn s08_times_at_the_end_of_the_calendar_do_not_panic() {
        let json = br#"{"refresh_token":"r","expires_at":"9999-12-31T23:59:59Z","issued_at":"0000-01-01T00:00:00Z"}"#;
        let record = Record::from_json(json).expect("a record");
        assert!(record.lifetime() > Duration::ZERO);
        let _ = record.to_json();
    }

    #[test]
    fn s08_t08_a_time_beyond_the_calendar_is_read_again_as_it_was_written() {
        for time in [
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:59Z",
            "0000-01-01T00:00:00+23:59",
            "+262142-12-31T23:59:59.999",
            "-262143-01-01T00:00:00",
            "0001-01-01T00:00:00",
            "2026-01-02T03:04:05.678",
        ] {
            let json = format!(r#"{{"refresh_token":"r","expiration":"{time}"}}"#);
            let record = Record::from_json(json.as_bytes()).expect(time);
            let written = record.to_json();
            let again = Record::from_json(&written).expect(time);
            assert_eq!(again.to_json(), written, "{time}");
            let _ = (again.lifetime(), again.refresh_token_end());
        }
    }
}
