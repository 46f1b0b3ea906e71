//! What people and the machine do: log in and out, end the access at Lucid, set the clock, send the machine to sleep, kill
//! a process, pull the plug.

use std::time::Duration;

use tokio::time::sleep;

use super::super::answer::{Answer, judge};
use super::super::handover;
use super::super::record::Record;
use super::super::succession::replacing;
use super::super::transport::Answered;
use super::super::{Bearer, Grant};
use super::process::{endpoint, store};
use super::set_faults;
use super::world::{Faults, World};
use crate::secret::{ExposeSecret, Secret};

/// How long a person waits for the lock.
const LOCK_WAIT: Duration = Duration::from_secs(150);

/// One thing that happens from outside.
pub(super) async fn event(world: &World, rng: &mut fastrand::Rng) {
    match rng.u8(0..20) {
        0 => log_in(world).await,
        1 => log_out(world, rng.bool()).await,
        2 => log_out_without_lock(world),
        3 => revoke_at_lucid(world),
        4 => {
            let error = rng.i64(-20_000_000..20_000_000);
            world.lock().set_wall_error(error);
        }
        5 => world.lock().set_wall_error(0),
        6 => {
            let time = Duration::from_secs(rng.u64(1..20_000));
            world.lock().sleep_for(time);
        }
        7 => world.lock().cut_power(),
        8 | 9 => kill_one(world, rng),
        10 => remove_the_store(world),
        11 => keep_a_backup(world),
        // Nothing else in the same moment: a login must find the store put right.
        12 => return restore_the_backup(world),
        _ => {}
    }
    if rng.u8(0..3) == 0 {
        log_in_if_need_be(world).await;
    }
}

/// A login as the command does it: approved in a browser, then put into the store.
pub(super) async fn log_in(world: &World) {
    let (life, _) = world.born();
    let record = {
        let mut inner = world.lock();
        let now = inner.truth();
        let answer = inner.lucid.approve(now);
        let answered = Answered {
            status: http::StatusCode::OK,
            retry_after: None,
            date: None,
            body: serde_json::to_vec(&answer).expect("JSON").into(),
        };
        let Answer::Issued(issued) = judge(&answered) else {
            return inner.violate(format!("no pair: {answer}"));
        };
        let at = inner.wall();
        Record {
            access_token: issued.access_token,
            expires_at: at + issued.lifetime,
            scopes: issued.scopes.unwrap_or_default(),
            user_id: issued.user_id,
            ..Record::from_refresh_token(issued.refresh_token.expect("one"), at)
        }
    };
    let put = handover::put(&store(world, life, false), LOCK_WAIT, |_| Ok(record)).await;
    let mut inner = world.lock();
    inner.tally.logins += u64::from(put.is_ok());
    inner.note(match put {
        Ok(_) => "a person has logged in".to_owned(),
        Err(error) => format!("a person could not log in: {error}"),
    });
    inner.end(life);
}

async fn log_in_if_need_be(world: &World) {
    let needed = {
        let mut inner = world.lock();
        let stored = inner.files.stored();
        stored.is_none_or(|record| record.is_over())
    };
    if needed {
        log_in(world).await;
    }
}

/// A logout as the command does it; `offline`: Lucid is not told.
async fn log_out(world: &World, offline: bool) {
    let (life, _) = world.born();
    let stored = world.lock().files.stored();
    let token = stored.filter(|stored| stored.logged_out.is_none());
    if let Some(token) = token
        .filter(|_| !offline)
        .map(|stored| stored.refresh_token)
    {
        // Whether it worked or not.
        let _ = endpoint(world, life)
            .revoke(&Secret::from(token.expose_secret()))
            .await;
    }
    let at = world.lock().wall();
    let store = store(world, life, false);
    let put = handover::put(&store, LOCK_WAIT, |_| Ok(Record::logged_out(0, at))).await;
    let mut inner = world.lock();
    inner.tally.logouts += u64::from(put.is_ok());
    inner.note(match put {
        Ok(_) => "a person has logged out".to_owned(),
        Err(error) => format!("a person could not log out: {error}"),
    });
    inner.end(life);
}

/// Whoever is in the middle of a rotation must respect it all the same.
fn log_out_without_lock(world: &World) {
    let mut inner = world.lock();
    let Some(stored) = inner.files.stored() else {
        return;
    };
    let at = inner.wall();
    let record = replacing(Some(&stored), Record::logged_out(0, at));
    inner.faults.disk_error = 0.0;
    inner.files.put_without_lock(&record);
    inner.tally.logouts += 1;
    inner.note(format!(
        "somebody logs out without the lock: generation {:?}",
        record.generation
    ));
}

/// Every process that has the pair puts it back; if none lives, the login is gone, and everybody knows why.
fn remove_the_store(world: &World) {
    let mut inner = world.lock();
    let any_has_it = inner
        .lives
        .values()
        .any(|fate| fate.alive && fate.handed_out > 0);
    let faults = &inner.faults;
    let can_be_written = faults.disk_error == 0.0 && !faults.full && !faults.read_only;
    if any_has_it && can_be_written && inner.faults.crash == 0.0 && !inner.files.unlocked {
        inner.note("somebody removes the store".to_owned());
        inner.files.remove_store();
    }
}

fn keep_a_backup(world: &World) {
    let mut inner = world.lock();
    inner.backup = inner.files.stored();
}

/// A process that has the pair puts the store right (T7), and one that knows of a logout keeps it (T18).
fn restore_the_backup(world: &World) {
    let mut inner = world.lock();
    let any_has_it = inner
        .lives
        .values()
        .any(|fate| fate.alive && fate.handed_out > 0);
    let Some(backup) = inner.backup.take() else {
        return;
    };
    if any_has_it && inner.faults.crash == 0.0 && !inner.clock_was_set {
        let generation = backup.generation;
        inner.note(format!("somebody restores generation {generation:?}"));
        inner.was_restored = true;
        set_faults(&mut inner, Faults::default());
        inner.files.put_without_lock(&backup);
    }
}

fn revoke_at_lucid(world: &World) {
    let mut inner = world.lock();
    if let Some(stored) = inner.files.stored() {
        let token = stored.refresh_token.expose_secret().to_owned();
        inner.lucid.revoke(&token);
        inner.note(format!("somebody ends the grant of {token} at Lucid"));
    }
}

fn kill_one(world: &World, rng: &mut fastrand::Rng) {
    let mut inner = world.lock();
    let alive: Vec<_> = inner
        .lives
        .iter()
        .filter(|(_, fate)| fate.alive)
        .map(|(life, _)| *life)
        .collect();
    if !alive.is_empty() {
        let life = alive[rng.usize(0..alive.len())];
        inner.kill(life, "SIGKILL");
    }
}

/// With nothing going wrong any more, a grant that lives at Lucid is served, and its refresh token is not older than it may
/// become (T14).
pub(super) async fn check_health(world: &World, idle: Duration) {
    let living = {
        let mut inner = world.lock();
        let stored = inner.files.stored();
        let stored = stored.filter(|stored| stored.logged_out.is_none());
        let token = stored.map(|stored| stored.refresh_token);
        let token = token.map(|token| token.expose_secret().to_owned());
        let truth = inner.truth();
        token.filter(|token| inner.lucid.is_living(token, truth))
    };
    let Some(token) = living else {
        return;
    };
    check_all_serve(world).await;
    let mut inner = world.lock();
    let known = inner.lucid.refresh_tokens.get(&token);
    let issued = known.and_then(|known| known.issued);
    let age = issued.and_then(|issued| inner.truth().duration_since(issued).ok());
    // A little more than the longest time between two looks at the clock.
    let allowed = idle + Duration::from_secs(240);
    if let Some(age) = age.filter(|age| *age > allowed && !inner.clock_was_set) {
        inner.violate(format!(
            "T14: {token} is {age:?} old, and {idle:?} is allowed"
        ));
    }
}

/// Every process hands out a token that Lucid takes.
pub(super) async fn check_all_serve(world: &World) {
    for (life, grant) in world.grants() {
        let served = serves(world, &grant).await;
        let mut inner = world.lock();
        if let Err(why) = served
            && inner.is_alive(life)
        {
            inner.violate(format!("T10: process {life} does not heal: {why}"));
        }
    }
}

async fn serves(world: &World, grant: &Grant) -> Result<(), String> {
    let mut bearer = grant.bearer().await;
    if bearer.is_err() {
        // One that is between two attempts gets another chance.
        sleep(Duration::from_secs(100)).await;
        bearer = grant.bearer().await;
    }
    let bearer = bearer.map_err(|error| format!("{error:?}"))?;
    if is_accepted(world, &bearer) {
        return Ok(());
    }
    // A clock that is wrong may keep a dead token; upstream's 401 cures that.
    let generation = bearer.generation.expect("a login counts its pairs");
    let newer = grant.reject(generation).await?;
    if is_accepted(world, &newer) {
        return Ok(());
    }
    Err("its newest token is dead".to_owned())
}

fn is_accepted(world: &World, bearer: &Bearer) -> bool {
    let inner = world.lock();
    let now = inner.truth();
    inner.lucid.accepts(bearer.token().expose_secret(), now)
}
