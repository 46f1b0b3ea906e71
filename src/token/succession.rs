//! Which record follows which: what may begin a grant, what is newer, what a rotation makes of the old one, and what is
//! said when there is no next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::answer::{Introspection, Issued, Owner};
use super::placeholder::Placeholder;
use super::record::{Intent, LastRotation, Record};
use super::state::{self, Margins, Pair, Trouble};
use super::store::Store;
use super::{Bearer, Terms};
use crate::clock;
use crate::config::Client;
use crate::secret::{ExposeSecret, Secret};

/// A configured refresh token counts while the store is empty, or holds nothing but an earlier one that was refused. What
/// this program gave to another in the place of one never does.
pub(super) fn may_seed(stored: Option<&Record>, seed: &Secret) -> bool {
    let gives_way = stored.is_none_or(|record| {
        record.generation == Some(0)
            && record.refusal.is_some()
            && record.refresh_token.expose_secret() != seed.expose_secret()
    });
    gives_way && Placeholder::of(seed.expose_secret()).is_none()
}

/// What a record means for the requests that ask: a pair to use, or why there is none.
pub(super) fn meaning(
    record: &Record,
    client: &Client,
    margins: Margins,
) -> (Option<Pair>, Option<Trouble>, Option<Arc<Bearer>>) {
    if let Some(at) = record.logged_out {
        return (None, Some(Trouble::LoginRequired(logged_out(at))), None);
    }
    let (pair, bearer) = pair_and_bearer(record, margins);
    // A refused generation is never posted again by the same application (T9). Where that one itself was refused, it may
    // have been enabled since: then introspection is asked before anything else.
    let refusal = record.refusal.as_ref();
    let refusal =
        refusal.filter(|refusal| !refusal.about_client && refusal.client == fingerprint(client));
    let trouble = refusal.map(|refusal| Trouble::LoginRequired(refusal.message.clone()));
    (Some(pair), trouble, bearer)
}

pub(super) fn pair_and_bearer(record: &Record, margins: Margins) -> (Pair, Option<Arc<Bearer>>) {
    let generation = record.generation.unwrap_or(1);
    let (refresh_at, rotate_by) = state::early(
        record.expires_at,
        record.lifetime(),
        margins.refresh,
        fastrand::f64(),
    );
    // A server that does not replace refresh tokens was shown this one with each pair.
    let last_used = record.refresh_issued_at.max(record.issued_at);
    let idle_at = last_used.checked_add(margins.idle);
    let pair = Pair {
        generation,
        refresh_at,
        rotate_by,
        expires_at: record.expires_at,
        idle_at: idle_at.unwrap_or(last_used),
        cause: None,
    };
    let token = Some(&record.access_token).filter(|token| !token.expose_secret().is_empty());
    let bearer = token.and_then(|token| Bearer::new(token, Some(generation), terms(record)).ok());
    (pair, bearer.map(Arc::new))
}

fn terms(record: &Record) -> Terms {
    Terms {
        expires_at: Some(record.expires_at),
        refresh_token_end: record.refresh_token_end(),
        scopes: record.scopes.clone(),
        owner: Owner::of(record),
    }
}

/// The stored record where it is newer than the one in memory, with its generation known. `client` is the fingerprint of
/// whoever asks.
pub(super) fn newer(
    memory: Option<&Record>,
    stored: Option<Record>,
    client: &str,
) -> Option<Record> {
    let stored = stored?;
    let Some(memory) = memory else {
        return Some(Record {
            generation: Some(stored.generation.unwrap_or(1)),
            ..stored
        });
    };
    // What memory holds was configured to take its place.
    if may_seed(Some(&stored), &memory.refresh_token) {
        return None;
    }
    let ours = memory.generation.unwrap_or(0);
    let next = ours.saturating_add(1);
    if stored.generation > Some(ours) {
        return Some(stored);
    }
    if memory.same_tokens(&stored) {
        return None;
    }
    // Written by a program that was given it here, beside a refresh token from before: no pair that was ever issued.
    if Placeholder::of(stored.access_token.expose_secret()).is_some() {
        return None;
    }
    let is_level = stored.generation.is_none_or(|theirs| theirs == ours);
    match (stored.logged_out, memory.logged_out) {
        // Not counted from ours: somebody had restored an older file, or did not wait for the lock. It holds all the same.
        (Some(at), _) => (is_level || at > memory.refresh_issued_at).then(|| Record {
            generation: Some(next),
            ..stored
        }),
        // Nothing that is older than a logout comes back (T18).
        (None, Some(at)) if stored.refresh_issued_at <= at => None,
        // Another grant, written by a program that does not count, or while ours is over.
        _ => (is_level || memory.is_over_for(client)).then(|| Record {
            generation: Some(next),
            ..stored
        }),
    }
}

pub(super) fn renewed(
    old: &Record,
    issued: Issued,
    rotation: LastRotation,
    received: SystemTime,
) -> Record {
    let issued_at = issued_at(rotation.at, received, issued.lifetime);
    let refresh_issued_at = if issued.refresh_token.is_some() {
        issued_at
    } else {
        old.refresh_issued_at
    };
    Record {
        generation: Some(old.generation.unwrap_or(0).saturating_add(1)),
        access_token: issued.access_token,
        refresh_token: issued
            .refresh_token
            .unwrap_or_else(|| old.refresh_token.clone()),
        issued_at,
        expires_at: issued_at.checked_add(issued.lifetime).unwrap_or(issued_at),
        refresh_issued_at,
        scopes: issued.scopes.unwrap_or_else(|| old.scopes.clone()),
        user_id: issued.user_id.or(old.user_id),
        account_id: issued.account_id.or(old.account_id),
        intent: None,
        refusal: None,
        last_rotation: Some(rotation),
        last_error: None,
        lost_rotation: old.lost_rotation.clone(),
        logged_out: None,
    }
}

/// When a token was issued that lives for `lifetime`: at some moment of the exchange, of which the beginning is on the
/// safe side. But an exchange that took much of the token's life must not make it look dead on arrival: it would be
/// rotated again at once.
pub(super) fn issued_at(sent: SystemTime, received: SystemTime, lifetime: Duration) -> SystemTime {
    let took = received.duration_since(sent).unwrap_or_default();
    if took > lifetime / 10 { received } else { sent }
}

/// The record that takes another's place when a person logs in, imports or logs out: its generation is higher than any
/// before, so that every process that holds an older one gives way (T18).
pub fn replacing(present: Option<&Record>, record: Record) -> Record {
    let Some(present) = present else {
        return Record {
            generation: Some(record.generation.unwrap_or(1).max(1)),
            ..record
        };
    };
    let before = present.generation.unwrap_or(1);
    let highest = before.max(record.generation.unwrap_or(0));
    Record {
        generation: Some(highest.saturating_add(1)),
        lost_rotation: present.lost_rotation.clone(),
        ..record
    }
}

/// What a person is told when there has never been a pair.
pub fn never_logged_in(store: &Store) -> String {
    format!(
        "no login yet ({} does not exist); run: lucid-proxy login",
        store.path().display()
    )
}

/// What a person is told after a logout.
pub fn logged_out(at: SystemTime) -> String {
    let at = clock::utc(at);
    format!("logged out at {at}; run: lucid-proxy login")
}

/// What a person is told when the token endpoint does not know the application.
pub(super) fn bad_client() -> String {
    "the client id or secret is wrong, or the application was disabled; correct them, or enable it in Lucid's developer portal, and restart"
        .to_owned()
}

/// What a person is told when the token endpoint refused the refresh token, and `introspection` was asked why.
pub(super) fn refusal_message(
    code: &str,
    description: &str,
    unanswered: Option<&Intent>,
    introspection: &Introspection,
) -> String {
    let cause = match (introspection, unanswered) {
        (Introspection::BadClient, _) => bad_client(),
        (Introspection::Active(_), _) => {
            "introspection still calls it alive; log in again: lucid-proxy login".to_owned()
        }
        (Introspection::Inactive, Some(intent)) => {
            format!("{}; log in again: lucid-proxy login", lost(intent))
        }
        (Introspection::Unknown(_), Some(intent)) => format!(
            "{}, or the client id or secret is wrong; log in again: lucid-proxy login",
            lost(intent)
        ),
        (Introspection::Inactive, None) => {
            "it was used elsewhere, revoked or not used for 180 days; log in again: lucid-proxy login".to_owned()
        }
        (Introspection::Unknown(_), None) => {
            "it was used elsewhere, revoked or not used for 180 days, or the client id or secret is wrong; log in again: lucid-proxy login".to_owned()
        }
    };
    let description = if description.is_empty() {
        String::new()
    } else {
        format!(" \"{description}\"")
    };
    format!("the token endpoint refused the refresh token ({code}{description}): {cause}")
}

/// Says in so many words that a rotation was lost, and when.
pub fn lost(intent: &Intent) -> String {
    let shown = clock::utc;
    let again = intent.again.map_or_else(String::new, |again| {
        format!(" (or the second attempt at {})", shown(again))
    });
    format!(
        "the rotation begun at {}{again} was lost: it took effect, and its answer never arrived here or could not be stored",
        shown(intent.at)
    )
}

/// Tells one application's credentials from another's without keeping them: 64 bits of SHA-256.
pub fn fingerprint(client: &Client) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(client.id.as_bytes());
    context.update(&[0]);
    context.update(client.secret.expose_secret().as_bytes());
    context
        .finish()
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::record::Refusal;

    const CLIENT: &str = "fingerprint";

    fn record(generation: Option<u64>, refresh_token: &str) -> Record {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        Record {
            generation,
            ..Record::from_refresh_token(Secret::from(refresh_token), now)
        }
    }

    #[test]
    fn t02_t07_only_a_newer_record_is_taken_over() {
        let taken = |memory: &Record, stored: Record| {
            newer(Some(memory), Some(stored), CLIENT).and_then(|record| record.generation)
        };
        let ours = record(Some(5), "five");
        assert_eq!(taken(&ours, record(Some(6), "six")), Some(6));
        assert_eq!(taken(&ours, record(Some(5), "five")), None, "the same");
        assert_eq!(
            taken(&ours, record(Some(4), "four")),
            None,
            "a restored backup"
        );
        assert_eq!(
            taken(&ours, record(None, "five")),
            None,
            "the same, as the example script writes it"
        );
        assert_eq!(
            taken(&ours, record(None, "other")),
            Some(6),
            "the example script refreshed"
        );
        let half = Record {
            access_token: Secret::from(Placeholder::Access.token(5)),
            ..record(None, "four")
        };
        assert_eq!(
            taken(&ours, half),
            None,
            "a script that keeps its refresh token and has stored what it was given here"
        );
        let refusal = Refusal {
            about_client: false,
            code: "invalid_grant".to_owned(),
            message: String::new(),
            at: SystemTime::UNIX_EPOCH,
            client: CLIENT.to_owned(),
        };
        let refused = Record {
            refusal: Some(refusal),
            ..record(Some(5), "five")
        };
        assert_eq!(
            taken(&refused, record(Some(1), "new")),
            Some(6),
            "a login after the file was moved away"
        );
        assert_eq!(taken(&refused, record(Some(5), "five")), None);
        let mut refused_to_others = refused.clone();
        if let Some(refusal) = &mut refused_to_others.refusal {
            refusal.client = "another".to_owned();
        }
        assert_eq!(
            taken(&refused_to_others, record(Some(1), "old")),
            None,
            "another application's refusal is none of ours"
        );
        let refused_seed = Record {
            generation: Some(0),
            ..refused.clone()
        };
        let seed = record(Some(0), "seed");
        assert_eq!(taken(&seed, refused_seed), None, "an earlier seed");
        assert_eq!(taken(&seed, record(Some(1), "one")), Some(1));
        let at =
            |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + seconds);
        let logout = |generation, seconds| Record::logged_out(generation, at(seconds));
        assert_eq!(taken(&ours, logout(6, 0)), Some(6), "a logout");
        assert_eq!(taken(&ours, logout(5, 0)), Some(6), "at the same moment");
        assert_eq!(
            taken(&ours, logout(3, 1)),
            Some(6),
            "counted from a restored backup"
        );
        assert_eq!(
            taken(&ours, logout(3, 0)),
            None,
            "the backup of an earlier logout"
        );
        assert_eq!(
            taken(&logout(6, 1), record(Some(4), "four")),
            None,
            "a backup does not undo a logout"
        );
        assert_eq!(
            taken(&logout(6, 1), record(None, "five")),
            None,
            "nor does a program that does not count, with an older pair"
        );
        let later = Record {
            refresh_issued_at: at(2),
            ..record(Some(1), "later")
        };
        assert_eq!(
            taken(&logout(6, 1), later),
            Some(7),
            "a login after the file was moved away"
        );
        assert!(newer(None, None, CLIENT).is_none());
        assert_eq!(
            newer(None, Some(record(None, "r")), CLIENT).and_then(|record| record.generation),
            Some(1)
        );
    }
}
