//! `lucid-proxy login`: a person approves once in a browser, and the proxy has a grant to keep alive.
//!
//! What could keep the pair from being stored is tried before the browser opens (T19). From then on nothing is changed
//! before the whole pair is there and known to be usable; every way out before that leaves the store as it was.

mod browser;
mod exchange;
mod listener;
mod owner;
mod page;
mod paste;

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use tokio::sync::{mpsc, oneshot};

use self::exchange::Exchange;
use self::listener::{Door, Listener};
use self::owner::Before;
use self::page::Page;
use super::times::day;
use super::{ConfigOption, Failure, Signals, chain, load_login, print, start_logging};
use crate::config::{Config, Credential, LogFormat, Need, ProcessEnvironment, RedirectUrl};
use crate::token::answer::Owner;
use crate::token::endpoint::Code;
use crate::token::login::{Attempt, CallbackError, account_endpoint};
use crate::token::record::Record;
use crate::token::refresher::Refresher;
use crate::token::store::Store;

/// How long a person may take to approve: to find a password, and a second factor.
const APPROVAL: Duration = Duration::from_secs(10 * 60);

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Paste the code, or the address that the browser shows in the end: for a browser on another machine
    #[arg(long)]
    paste: bool,
    /// Print the address to approve the login at, but open no browser
    #[arg(long)]
    no_browser: bool,
    /// Log in on behalf of the whole account, which some endpoints for administrators need
    #[arg(long)]
    account: bool,
    /// Replace the login of another user or account
    #[arg(long)]
    replace: bool,
    /// Take a login that does not get every scope of the configuration
    #[arg(long)]
    accept_fewer_scopes: bool,
}

pub(super) fn run(option: &ConfigOption, options: Options) -> Result<(), Failure> {
    let mut config = load_login(option, Need::Everything, "make")?;
    config.log.format = LogFormat::Text;
    start_logging(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (record, store) = runtime.block_on(log_in(&config, &options))?;
    print(&summary(&record, &store))
}

async fn log_in(config: &Config, options: &Options) -> Result<(Record, Store), Failure> {
    let mut signals = Signals::new()?;
    let prepared = prepare(config, options);
    let (exchange, way) = unless_stopped(&mut signals, prepared).await?;
    let mut way = way;
    let mut browser = None;
    let code = unless_stopped(&mut signals, way.code(&mut browser)).await;
    let done = match code {
        Ok(code) => unless_stopped_twice(&mut signals, exchange.complete(code)).await,
        Err(failure) => Err(failure),
    };
    let done = done.map_err(nothing_stored);
    if let Some(browser) = browser {
        let shown = match &done {
            Ok(record) => Page::done(&Owner::of(record)),
            Err(failure) => Page::failed(&chain(&failure.error)),
        };
        // The person may have closed it.
        let _ = browser.send(shown);
    }
    way.close().await;
    Ok((done?, exchange.into_store()))
}

async fn unless_stopped<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => done,
        name = signals.next() => Err(anyhow!("{name}: stopped").into()),
    }
}

/// The pair that a code is exchanged for is in no other place: one signal does not end that.
async fn unless_stopped_twice<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = work.as_mut() => return done,
        name = signals.next() => say(&format!(
            "{name}: finishing the login that was just approved; to give it up, do that once more"
        )),
    }
    unless_stopped(signals, work).await
}

fn nothing_stored(failure: Failure) -> Failure {
    let message = format!("{}; nothing was stored", chain(&failure.error));
    Failure {
        code: failure.code,
        error: anyhow::Error::msg(message),
    }
}

/// Everything that must be so before a person is asked (T19), and then the question.
async fn prepare<'a>(
    config: &'a Config,
    options: &'a Options,
) -> Result<(Exchange<'a>, Way), Failure> {
    let credential = &config.credential;
    let endpoint = Refresher::endpoint(credential)?;
    let authorize_url = authorize_url(credential, options)?;
    let store = Store::new(credential.store.clone());
    let present = store.read()?;
    store.probe()?;
    // Whoever holds it now lets go of it; what matters is that there can be a lock.
    drop(store.try_lock()?);
    let before = Before::find_out(&store, present.as_ref(), &endpoint, options.replace).await;
    let before = before.map_err(anyhow::Error::msg)?;
    let client_id = endpoint.client().id.clone();
    let exchange = Exchange {
        endpoint,
        store,
        before,
        scopes: &credential.scopes,
        accept_fewer_scopes: options.accept_fewer_scopes,
    };
    let listener = listener(&credential.redirect_url, options).await?;
    let port = listener.as_ref().map_or(0, Listener::port);
    let redirect_uri = credential.redirect_url.at(port);
    let attempt = Arc::new(Attempt::new(redirect_uri, credential.pkce));
    let url = attempt.authorization_url(&authorize_url, &client_id, &credential.scopes);
    let door = listener.map(|listener| listener.open(&credential.redirect_url, attempt.clone()));
    let way = Way::new(attempt, door);
    Ok((exchange, way.ask(&url, credential, options)))
}

fn authorize_url(credential: &Credential, options: &Options) -> Result<String, Failure> {
    let url = &credential.authorize_url;
    if !options.account {
        return Ok(url.to_string());
    }
    account_endpoint(url).ok_or_else(|| {
        let key = format!("credentials.{}.authorize_url", credential.name);
        anyhow!("--account needs {key} to end in /authorize, /authorizeUser or /authorizeAccount; it is {url}").into()
    })
}

/// The listener for the browser, unless the person pastes what it shows.
async fn listener(url: &RedirectUrl, options: &Options) -> Result<Option<Listener>, Failure> {
    if !options.paste && !url.listen().is_empty() {
        return Ok(Some(Listener::bind(url).await?));
    }
    if url.origin().port == 0 {
        let message = "redirect_url has port 0, any free one, which a login without a listener cannot take; leave out --paste, or give it a port";
        return Err(anyhow!(message).into());
    }
    Ok(None)
}

/// The ways in which an answer can come.
struct Way {
    attempt: Arc<Attempt>,
    door: Option<Door>,
    lines: Option<mpsc::Receiver<String>>,
}

/// Shows a page to a person whose browser waits for it.
type WaitingBrowser = oneshot::Sender<Page>;

impl Way {
    fn new(attempt: Arc<Attempt>, door: Option<Door>) -> Self {
        Self {
            attempt,
            door,
            lines: None,
        }
    }

    /// Asks the person, and tells what happens next.
    fn ask(mut self, url: &str, credential: &Credential, options: &Options) -> Self {
        say(&format!(
            "to log in, approve this in a browser:\n\n  {url}\n"
        ));
        let opened = !options.paste && !options.no_browser && open(url, credential);
        let minutes = APPROVAL.as_secs() / 60;
        let redirect_uri = self.attempt.redirect_uri();
        if self.door.is_some() {
            say(&format!(
                "waiting for the browser to come back to {redirect_uri} (at most {minutes} minutes, Ctrl-C to stop)"
            ));
        }
        match (&self.door, opened) {
            (None, _) => {
                if !options.paste {
                    say(&format!(
                        "redirect_url is not an http:// address of this machine, so the code has to be pasted: {redirect_uri}"
                    ));
                }
                say(
                    "then paste here the code, or the address that the browser shows in the end, even if that page cannot be reached, and press Enter:",
                );
                self.lines = Some(paste::lines());
            }
            // In the background a terminal cannot be read, and there it is not needed.
            (Some(_), false) if std::io::stdin().is_terminal() => {
                say(
                    "if the browser is on another machine, it cannot reach this one in the end: paste its address here then, and press Enter:",
                );
                self.lines = Some(paste::lines());
            }
            (Some(_), _) => {}
        }
        self
    }

    /// Waits for the code; where the browser brought it, or bad news, that waits for a page to show.
    async fn code(&mut self, browser: &mut Option<WaitingBrowser>) -> Result<Code, Failure> {
        let answer = tokio::time::timeout(APPROVAL, self.answer(browser));
        let minutes = APPROVAL.as_secs() / 60;
        answer.await.unwrap_or_else(|_| {
            Err(anyhow!("nobody approved the login within {minutes} minutes").into())
        })
    }

    async fn answer(&mut self, browser: &mut Option<WaitingBrowser>) -> Result<Code, Failure> {
        loop {
            tokio::select! {
                decision = decision(&mut self.door) => {
                    *browser = Some(decision.page);
                    return decision.outcome.map_err(|error| unusable(&error));
                }
                line = line(&mut self.lines) => match line {
                    Some(line) => {
                        if let Some(answer) = self.pasted(&line) {
                            return answer;
                        }
                    }
                    None if self.door.is_none() => {
                        return Err(anyhow!("standard input ended without a code").into());
                    }
                    None => self.lines = None,
                }
            }
        }
    }

    /// What a line means; `None` where the person may try again.
    fn pasted(&self, line: &str) -> Option<Result<Code, Failure>> {
        let answer = match self.attempt.pasted(line) {
            Ok(code) => Ok(code),
            Err(error @ CallbackError::Refused { .. }) => Err(unusable(&error)),
            Err(error) => {
                if !line.trim().is_empty() {
                    say(&format!(
                        "that was not used: {error}; paste the code, or the whole address:"
                    ));
                }
                return None;
            }
        };
        let first = self.door.as_ref().is_none_or(Door::decide);
        first.then_some(answer)
    }

    async fn close(self) {
        if let Some(door) = self.door {
            door.close().await;
        }
    }
}

fn unusable(error: &CallbackError) -> Failure {
    match error {
        CallbackError::Refused { .. } => anyhow!("{error}").into(),
        error => anyhow!("the answer to the login cannot be used: {error}; log in again").into(),
    }
}

async fn decision(door: &mut Option<Door>) -> listener::Decision {
    match door {
        Some(door) => door.decision().await,
        None => std::future::pending().await,
    }
}

async fn line(lines: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

/// Opens a browser if there is one; whether it did.
fn open(url: &str, credential: &Credential) -> bool {
    let Some(opener) = browser::find(&ProcessEnvironment) else {
        return false;
    };
    match opener.open(url, &credential.secret_variables) {
        Ok(()) => true,
        Err(error) => {
            say(&format!(
                "no browser could be opened ({opener}: {error}); open the address by hand"
            ));
            false
        }
    }
}

/// Tells the person, on standard error: standard output is for the result. One that is closed ends nothing.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn summary(record: &Record, store: &Store) -> String {
    let owner = Owner::of(record);
    let whose = match owner.is_known() {
        true => format!("logged in as {owner}"),
        false => "logged in".to_owned(),
    };
    let lasts = record.refresh_token_end();
    let lasts = lasts.map_or_else(String::new, |end| {
        let day = day(end);
        format!("\nrefresh token  lasts until {day} if it is not used before")
    });
    let next = match store.is_in_use() {
        Ok(true) => "the running proxy takes it over now",
        _ => "to use it: lucid-proxy serve",
    };
    format!(
        "{whose}\nscopes         {}\nstore          {} (generation {}){lasts}\n{next}",
        record.scopes.join(" "),
        store.path().display(),
        record.generation.unwrap_or(1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_an_approval_has_an_end() {
        let attempt = Attempt::new("http://localhost:8117/callback".to_owned(), true);
        let (_open, lines) = mpsc::channel(1);
        let mut way = Way::new(Arc::new(attempt), None);
        way.lines = Some(lines);
        let began = tokio::time::Instant::now();
        let error = way.code(&mut None).await.expect_err("nobody came");
        assert!(error.error.to_string().contains("10 minutes"));
        assert_eq!(began.elapsed(), APPROVAL);
    }

    #[tokio::test]
    async fn a_wrong_line_may_be_followed_by_a_right_one() {
        let attempt = Attempt::new("http://localhost:8117/callback".to_owned(), true);
        let (sender, lines) = mpsc::channel(4);
        let mut way = Way::new(Arc::new(attempt), None);
        way.lines = Some(lines);
        for line in ["\n", "two words\n", "?code=c&state=old\n", "the-code\n"] {
            sender.try_send(line.to_owned()).expect("room");
        }
        let code = way.code(&mut None).await.expect("a code");
        assert_eq!(
            crate::secret::ExposeSecret::expose_secret(&code.code),
            "the-code"
        );
        drop(sender);
        let error = way.code(&mut None).await.expect_err("the end");
        assert!(error.error.to_string().contains("standard input ended"));
    }
}
