//! The way to the token endpoint: requests get lost, answers are cut, and something in between speaks up.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::super::keeper::ON_ITS_WAY;
use super::super::transport::{ANSWER, Answered, CONNECT, Content, Delivery, Posting, Transport};
use super::disk::check_before_post;
use super::lucid::Post;
use super::world::{Fate, Inner, Life, World};

/// The network as one process has it.
#[derive(Clone, Debug)]
pub(super) struct SimulatedNetwork {
    pub(super) world: World,
    pub(super) life: Life,
}

#[derive(Clone, Debug)]
enum Question {
    Refresh(String),
    Introspect(String),
    Revoke(String),
}

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
struct Journey {
    unreachable: bool,
    lost: bool,
    intercepted: bool,
    there: Duration,
    back: Duration,
    answer_replaced: bool,
    answer_lost: bool,
    cut: bool,
}

impl Journey {
    fn draw(inner: &mut Inner, question: &Question) -> Self {
        let faults = inner.faults.clone();
        let aside = match question {
            Question::Introspect(_) => inner.happens(faults.introspection),
            _ => false,
        };
        let slow = inner.happens(faults.slow);
        let mut delay = |longest: u64| {
            let longest = if slow { longest } else { 400 };
            Duration::from_millis(inner.rng.u64(1..=longest))
        };
        // Nothing arrives after its sender has given up; an answer may.
        let (there, back) = (delay(55_000), delay(90_000));
        Self {
            unreachable: inner.happens(faults.unreachable),
            lost: inner.happens(faults.lost),
            intercepted: aside || inner.happens(faults.intercepted),
            there,
            back,
            answer_replaced: inner.happens(faults.answer_replaced),
            answer_lost: inner.happens(faults.answer_lost),
            cut: inner.rng.bool(),
        }
    }
}

impl Transport for SimulatedNetwork {
    fn post<'a>(&'a self, url: &'a Uri, content: Content) -> Posting<'a> {
        Box::pin(self.send(url, content))
    }
}

impl SimulatedNetwork {
    async fn send(&self, url: &Uri, content: Content) -> Delivery {
        let question = understand(url, &content);
        if self.dies("before a request") {
            return std::future::pending().await;
        }
        let journey = Journey::draw(&mut self.world.lock(), &question);
        self.note_sent(&question);
        let limit = CONNECT + ANSWER;
        let delivery = timeout(limit, self.travel(question.clone(), journey)).await;
        let delivery =
            delivery.unwrap_or_else(|_| Delivery::Unknown("could not be asked: timed out".into()));
        self.note_delivered(&question, &delivery);
        if self.dies("after an answer") {
            return std::future::pending().await;
        }
        delivery
    }

    async fn travel(&self, question: Question, journey: Journey) -> Delivery {
        if journey.unreachable {
            sleep(journey.there.min(CONNECT)).await;
            return Delivery::NotSent("could not be asked: no connection".into());
        }
        let (arrived, answer) = oneshot::channel();
        let (world, life) = (self.world.clone(), self.life);
        // What is on its way goes on when its sender dies.
        tokio::task::spawn_local(async move {
            sleep(journey.there).await;
            if journey.lost {
                return;
            }
            let answered = if journey.intercepted {
                between(&mut world.lock())
            } else {
                let truth = process(&mut world.lock(), &question, life);
                match journey.answer_replaced {
                    true => bad_gateway(),
                    false => truth,
                }
            };
            let _ = arrived.send(answered);
        });
        let Ok(answered) = answer.await else {
            // Lost: the connection is reset at some time, or nothing ever comes.
            if journey.cut {
                sleep(journey.back).await;
                return Delivery::Unknown("could not be asked: connection reset".into());
            }
            return std::future::pending().await;
        };
        sleep(journey.back).await;
        match (journey.answer_lost, journey.cut) {
            (false, _) => Delivery::Answered(answered),
            (true, true) => Delivery::Unknown("sent an answer that was cut off".into()),
            (true, false) => std::future::pending().await,
        }
    }

    fn dies(&self, when: &str) -> bool {
        let mut inner = self.world.lock();
        let chance = inner.faults.crash;
        if inner.is_alive(self.life) && inner.happens(chance) {
            inner.kill(self.life, when);
        }
        !inner.is_alive(self.life)
    }

    /// What must be so when something is sent.
    fn note_sent(&self, question: &Question) {
        let mut inner = self.world.lock();
        let inner = &mut *inner;
        let life = self.life;
        match question {
            Question::Refresh(token) => {
                inner.tally.posts += 1;
                inner.note(format!("process {life} sends {token}"));
                check_before_post(inner, life, token);
                check_repetition(inner, life, token);
                check_alone(inner, life, token);
                let post = Post {
                    at: Instant::now(),
                    wall: inner.wall(),
                    harmless: false,
                };
                if let Some(known) = inner.lucid.refresh_tokens.get_mut(token) {
                    known.posts.push(post);
                }
                inner.fate(life).posting = Some(token.clone());
            }
            Question::Introspect(token) => {
                inner.tally.introspections += 1;
                inner.note(format!("process {life} asks about {token}"));
                inner.fate(life).asking = true;
            }
            Question::Revoke(token) => inner.note(format!("process {life} revokes {token}")),
        }
    }

    fn note_delivered(&self, question: &Question, delivery: &Delivery) {
        let mut inner = self.world.lock();
        let inner = &mut *inner;
        let life = self.life;
        if !inner.is_alive(life) {
            return;
        }
        let status = match delivery {
            Delivery::Answered(answered) => answered.status.to_string(),
            Delivery::NotSent(message) | Delivery::Unknown(message) => message.clone(),
        };
        inner.note(format!("process {life} gets: {status}"));
        let fate = inner.fate(life);
        (fate.posting, fate.asking) = (None, false);
        match question {
            Question::Refresh(token) => learn_of_refresh(inner, life, token, delivery),
            Question::Introspect(token) => {
                let said = matches!(delivery, Delivery::Answered(a) if a.status == StatusCode::OK);
                let known = inner.lucid.refresh_tokens.get_mut(token);
                if let Some(known) = known.filter(|_| said) {
                    known.introspected = Some(Instant::now());
                }
            }
            Question::Revoke(_) => {}
        }
    }
}

/// What the sender of a refresh token knows from here on.
fn learn_of_refresh(inner: &mut Inner, life: Life, token: &str, delivery: &Delivery) {
    let Some(known) = inner.lucid.refresh_tokens.get_mut(token) else {
        return;
    };
    let harmless = match delivery {
        Delivery::NotSent(_) => true,
        Delivery::Answered(answered) if is_refusal(answered) => false,
        Delivery::Answered(answered) => {
            answered.status.is_client_error() || answered.status.is_redirection()
        }
        Delivery::Unknown(_) => false,
    };
    if let Some(post) = known.posts.last_mut() {
        post.harmless = harmless;
    }
    let (mut failed, mut refused) = (true, false);
    if let Delivery::Answered(answered) = delivery {
        if answered.status == StatusCode::OK && answered.body.starts_with(b"{\"access") {
            failed = false;
            if let Some(spent) = known.spent.as_mut().filter(|spent| spent.by == life) {
                spent.delivered = true;
            }
        }
        refused = is_refusal(answered);
    }
    let fate = inner.fate(life);
    fate.failed = failed.then(|| (token.to_owned(), Instant::now()));
    if refused {
        fate.refused = Some(token.to_owned());
    }
}

fn is_refusal(answered: &Answered) -> bool {
    answered.body.starts_with(b"{\"error\":\"invalid_grant")
}

/// A refresh token is sent a second time only when it is known that it lives or that there is nothing to lose, or when it
/// cannot be on its way any more (T9, T11).
fn check_repetition(inner: &mut Inner, life: Life, token: &str) {
    if inner.was_restored {
        return;
    }
    if inner.fate(life).refused.as_deref() == Some(token) {
        return inner.violate(format!(
            "T9: process {life} posts {token}, which was refused"
        ));
    }
    let knows =
        |fate: &Fate| fate.alive && !fate.write_failed && fate.refused.as_deref() == Some(token);
    if let Some((other, _)) = inner.lives.iter().find(|(_, fate)| knows(fate)) {
        let text = format!("T9: process {life} posts {token}, which process {other} was refused");
        return inner.violate(text);
    }
    let (now, wall) = (Instant::now(), inner.wall());
    let Some(known) = inner.lucid.refresh_tokens.get(token) else {
        return inner.violate(format!("process {life} posts {token}, which nobody issued"));
    };
    let Some(open) = known.posts.iter().rev().find(|post| !post.harmless) else {
        return;
    };
    let asked = known.introspected.is_some_and(|at| at >= open.at);
    // By either clock: the wall clock may have been set, and the other stands still while the machine sleeps.
    let by_wall = wall.duration_since(open.wall).unwrap_or_default() + Duration::from_secs(1);
    // A process that starts while the clock is wrong cannot know.
    let can_know = !inner.clock_was_set;
    if can_know && !asked && now < open.at + ON_ITS_WAY && by_wall < ON_ITS_WAY {
        inner.violate(format!(
            "T11: process {life} posts {token} again, and it may still be on its way"
        ));
    }
}

/// One rotation at a time (T2), and none right after another that failed (T10).
fn check_alone(inner: &mut Inner, life: Life, token: &str) {
    let others = inner.lives.iter();
    let other = others
        .filter(|(other, fate)| **other != life && fate.alive)
        .find(|(_, fate)| fate.posting.is_some());
    if let Some((other, _)) = other {
        let text = format!("T2: processes {other} and {life} post at once");
        inner.violate(text);
    }
    if let Some((failed, at)) = inner.fate(life).failed.clone()
        && failed == token
        && at.elapsed() < Duration::from_millis(700)
    {
        let soon = at.elapsed();
        inner.violate(format!(
            "T10: process {life} posts {soon:?} after a failure"
        ));
    }
}

fn understand(url: &Uri, content: &Content) -> Question {
    let text = String::from_utf8_lossy(&content.body);
    if let Ok(json) = serde_json::from_str::<Value>(&text) {
        let token = json["refresh_token"].as_str().unwrap_or_default();
        return Question::Refresh(token.to_owned());
    }
    let token = form_urlencoded::parse(&content.body)
        .find(|(name, _)| name == "token")
        .map(|(_, value)| value.into_owned());
    let token = token.unwrap_or_default();
    if url.path().ends_with("/revoke") {
        Question::Revoke(token)
    } else {
        Question::Introspect(token)
    }
}

fn process(inner: &mut Inner, question: &Question, life: Life) -> Answered {
    let now = inner.truth();
    match question {
        Question::Refresh(token) => match inner.lucid.refresh(token, life, now) {
            Ok(answer) => {
                inner.tally.rotations += 1;
                inner.note(format!("Lucid rotates {token}"));
                answered(200, &answer)
            }
            Err(answer) => answered(400, &answer),
        },
        Question::Introspect(token) => {
            let active = inner.lucid.is_living(token, now);
            answered(200, &json!({ "active": active }))
        }
        Question::Revoke(token) => {
            inner.lucid.revoke(token);
            answered(200, &Value::Null)
        }
    }
}

/// What firewalls, load balancers and maintenance pages say, without asking the server.
fn between(inner: &mut Inner) -> Answered {
    let page = |status| Answered {
        body: b"<html>blocked</html>".to_vec().into(),
        ..answered(status, &Value::Null)
    };
    match inner.rng.u8(0..6) {
        0 => page(200),
        1 => page(403),
        2 => Answered {
            retry_after: Some(Duration::from_secs(inner.rng.u64(0..200))),
            ..answered(429, &json!({}))
        },
        3 => answered(503, &json!({})),
        4 => page(400),
        _ => page(302),
    }
}

fn bad_gateway() -> Answered {
    answered(502, &json!({}))
}

fn answered(status: u16, body: &Value) -> Answered {
    Answered {
        status: StatusCode::from_u16(status).unwrap_or_default(),
        retry_after: None,
        date: None,
        body: serde_json::to_vec(body).unwrap_or_default().into(),
    }
}
