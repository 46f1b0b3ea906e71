//! What must hold of every token that is handed out, and of every grant that is called over.

use super::super::record::Record;
use super::super::state::Trouble;
use super::super::{Bearer, Grant};
use super::world::{Inner, Life, World};
use crate::secret::ExposeSecret;

/// A token on its way into a request: not older than one before (a generation never goes back), stored unless a write
/// failed (T7), and not known to be dead (T17).
pub(super) fn check_bearer(inner: &mut Inner, life: Life, bearer: &Bearer) {
    if !inner.is_alive(life) {
        return;
    }
    let generation = bearer.generation.expect("a login counts its pairs");
    let wall = inner.wall();
    let before = inner.fate(life).handed_out;
    if generation < before {
        inner.violate(format!(
            "process {life} hands out generation {generation} after {before}"
        ));
    }
    inner.fate(life).handed_out = generation;
    let stored = inner.files.lasting();
    let access_token = bearer.token();
    let is_it =
        |stored: &Record| stored.access_token.expose_secret() == access_token.expose_secret();
    // A number that is behind, after a login that found no file, is put right later.
    let is_stored = stored
        .as_ref()
        .is_some_and(|stored| is_it(stored) || stored.generation > Some(generation));
    // What an outsider did to the store is put right within a second.
    let is_ours = stored.is_some() && !inner.files.unlocked;
    if !is_stored && is_ours && !inner.fate(life).write_failed {
        inner.violate(format!(
            "T7: process {life} hands out generation {generation}, which is not stored"
        ));
    }
    if let Some(stored) = stored.filter(is_it) {
        if stored.expires_at <= wall {
            inner.violate(format!(
                "T12: process {life} hands out generation {generation}, which has expired"
            ));
        }
        let token = stored.refresh_token.expose_secret();
        if inner.fate(life).refused.as_deref() == Some(token) {
            inner.violate(format!(
                "T17: process {life} hands out generation {generation}, which it knows to be dead"
            ));
        }
    }
}

/// Looks at a process whenever it has something new, and judges whether a person is needed where it says so.
pub(super) async fn watch(world: World, life: Life, grant: Grant) {
    let mut judged = None;
    loop {
        let changed = grant.0.changed.notified();
        let trouble = grant.state().trouble().cloned();
        if trouble != judged
            && let Some(Trouble::LoginRequired(message)) = &trouble
        {
            judge(&mut world.lock(), life, message);
        }
        judged = trouble;
        changed.await;
    }
}

/// The grant is lost only when the answer to an exchange that took effect never reached the process, or the process died
/// before it could store it; and then the message says exactly that.
fn judge(inner: &mut Inner, life: Life, message: &str) {
    if !inner.is_alive(life) {
        return;
    }
    inner.note(format!("process {life}: {message}"));
    let Some(stored) = inner.files.stored() else {
        return;
    };
    if stored.logged_out.is_some() {
        return;
    }
    let token = stored.refresh_token.expose_secret().to_owned();
    let now = inner.truth();
    if stored.refusal.is_none() {
        // Refused a moment ago where the note could not be written, or overtaken by a login that it sees within a second.
        return;
    }
    if inner.lucid.is_living(&token, now) {
        return inner.violate(format!(
            "T9: process {life} calls {token} dead, which lives"
        ));
    }
    if inner.lucid.is_over(&token, now) {
        return;
    }
    let known = inner.lucid.refresh_tokens.get(&token);
    let Some(spent) = known.and_then(|known| known.spent.clone()) else {
        return inner.violate(format!("process {life} lost {token}, which nobody spent"));
    };
    if spent.delivered && inner.is_alive(spent.by) && !inner.was_restored {
        inner.violate(format!(
            "T7: {} was delivered to process {}, which lives, and is lost",
            spent.successor, spent.by
        ));
    }
    if !message.contains(" was lost: it took effect") && !inner.was_restored {
        inner.violate(format!("T11: a lost rotation is not called so: {message}"));
    }
    if let Some(known) = inner.lucid.refresh_tokens.get_mut(&token)
        && !std::mem::replace(&mut known.called_lost, true)
    {
        inner.tally.lost_rotations += 1;
    }
}
