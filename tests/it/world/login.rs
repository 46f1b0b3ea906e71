//! `lucid-proxy login` under way, and a browser made of raw connections.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use http::Uri;
use rustix::process::{Pid, Signal, kill_process};

use super::{Client, Response, SOON, World};

/// A login that has asked for the approval.
pub(crate) struct Login {
    child: Option<Child>,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Standard error so far.
    pub(crate) log: String,
    /// The URL at which a person approves.
    pub(crate) url: String,
}

impl World {
    /// Lets a login use the stand-in, and come back to any free port.
    pub(crate) fn for_login(self) -> Self {
        self.redirecting("http://127.0.0.1:0/callback")
    }

    /// Lets a login use the stand-in, and come back there.
    pub(crate) fn redirecting(mut self, redirect_url: &str) -> Self {
        let origin = self.sandbox.origin();
        self.tables = format!(
            "authorize_url = \"{origin}/oauth2/authorize\"\nredirect_url = \"{redirect_url}\"\n{}",
            self.tables
        );
        self
    }

    /// Starts a login and waits until it asks for the approval.
    pub(crate) fn login(&self, arguments: &[&str]) -> Login {
        self.login_with(arguments, |_| {})
    }

    /// As `login`, after `prepare` had its way with the command.
    pub(crate) fn login_with(
        &self,
        arguments: &[&str],
        prepare: impl FnOnce(&mut std::process::Command),
    ) -> Login {
        let mut login = self.start(&[&["login"], arguments].concat(), prepare);
        login.url = login.wait_for_line("http").trim().to_owned();
        login
    }

    /// Starts another command that waits for something.
    pub(crate) fn waiting(&self, arguments: &[&str]) -> Login {
        self.start(arguments, |_| {})
    }

    fn start(&self, arguments: &[&str], prepare: impl FnOnce(&mut std::process::Command)) -> Login {
        self.configure();
        let mut command = self.command(arguments);
        prepare(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let (sender, lines) = channel();
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Login {
            input: child.stdin.take(),
            child: Some(child),
            lines,
            log: String::new(),
            url: String::new(),
        }
    }
}

impl Login {
    /// Waits for a line that has `text` in it.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON);
            let line = line.unwrap_or_else(|_| panic!("no {text:?} in {}", self.log));
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// A parameter of the authorization URL.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.url, name)
    }

    /// Presses a button on the stand-in's page; the address to which the browser is sent.
    pub(crate) fn press(&self, decision: &str) -> String {
        let uri: Uri = self.url.parse().expect("a URL");
        let query = uri.query().expect("parameters");
        let page = ask(&uri, &format!("GET {}?{query}", uri.path()), &[], b"");
        assert_eq!(page.status, 200, "{}", page.text());
        let form = format!("{query}&decision={decision}");
        let sent = ask(
            &uri,
            &format!("POST {}", uri.path()),
            &["Content-Type: application/x-www-form-urlencoded"],
            form.as_bytes(),
        );
        assert_eq!(sent.status, 302, "{}", sent.text());
        sent.header("location").expect("a place").to_owned()
    }

    /// Approves the login and lets the browser go where it is sent.
    pub(crate) fn approve(&self) -> Response {
        visit(&self.press("approve"))
    }

    /// Visits the redirect URL with this query; `STATE` in it is the state of this login.
    pub(crate) fn call_back(&self, query: &str) -> Response {
        let state = self.parameter("state").expect("a state");
        let redirect_uri = self.parameter("redirect_uri").expect("a redirect URI");
        visit(&format!(
            "{redirect_uri}?{}",
            query.replace("STATE", &state)
        ))
    }

    /// Writes to its standard input.
    pub(crate) fn paste(&mut self, text: &str) {
        let input = self.input.as_mut().expect("open");
        input.write_all(text.as_bytes()).expect("written");
    }

    /// Ends its standard input.
    pub(crate) fn end_of_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it runs");
    }

    /// Waits for its end: exit code and standard output, and all of standard error.
    pub(crate) fn end(mut self) -> Output {
        let child = self.child.take().expect("it runs");
        let mut output = child.wait_with_output().expect("it ends");
        for line in self.lines.iter() {
            self.log.push_str(&line);
            self.log.push('\n');
        }
        output.stderr = std::mem::take(&mut self.log).into_bytes();
        output
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A parameter of a URL, decoded.
pub(crate) fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(own, _)| own == name)
        .map(|(_, value)| value.into_owned())
}

/// What a browser gets at an address of this machine.
pub(crate) fn visit(url: &str) -> Response {
    let uri: Uri = url.parse().expect("a URL");
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    ask(&uri, &format!("GET {target}"), &[], b"")
}

fn ask(uri: &Uri, line: &str, headers: &[&str], body: &[u8]) -> Response {
    let authority = uri.authority().expect("a host").as_str();
    let address: SocketAddr = authority
        .replace("localhost", "127.0.0.1")
        .parse()
        .expect("an address");
    Client::connect(address).ask(line, headers, body)
}
