//! Signals that reach this process and are meant for the program that it runs.
//!
//! Both are in one process group, so that the terminal reaches both by itself. What is sent to this process alone is
//! passed on. The two look alike, but for where this process stands: in the terminal's foreground it is the terminal, most
//! likely, that sends what a key is for. Whoever signals the group from elsewhere has the program see it twice, which
//! signals that are sent twice at once are seen as once.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

use super::super::is_ignored;

/// What the terminal sends by itself, to its whole foreground.
const OF_TERMINALS: [Signal; 4] = [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::WINCH];
const OTHERS: [Signal; 6] = [
    Signal::TERM,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::CONT,
];

/// What asks a process to end.
const TO_END: [Signal; 4] = [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP];

/// What is to be passed on, as it comes.
#[derive(Debug)]
pub(super) struct PassedOn {
    arrivals: Vec<(Signal, Arrivals)>,
    children: Arrivals,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum News {
    /// This signal is for the program.
    PassOn(Signal),
    /// Something has become of a child.
    Child,
}

impl PassedOn {
    /// From now on signals do nothing to this process. Those that it was started to ignore are left so, and the program
    /// ignores them too.
    pub(super) fn new() -> io::Result<Self> {
        let mut arrivals = Vec::new();
        for number in OF_TERMINALS.into_iter().chain(OTHERS) {
            if !is_ignored(number) {
                arrivals.push((number, signal(SignalKind::from_raw(number.as_raw()))?));
            }
        }
        Ok(Self {
            arrivals,
            children: signal(SignalKind::child())?,
        })
    }

    /// The next one that matters.
    pub(super) async fn next(&mut self) -> News {
        poll_fn(|cx| {
            if self.children.poll_recv(cx).is_ready() {
                return Poll::Ready(News::Child);
            }
            for (number, arrivals) in &mut self.arrivals {
                while arrivals.poll_recv(cx).is_ready() {
                    if !OF_TERMINALS.contains(number) || !is_in_foreground() {
                        return Poll::Ready(News::PassOn(*number));
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Completes when a signal asks for the end, whoever sends it: there is no program any more that it could be for.
    pub(super) async fn asked_to_end(&mut self) {
        poll_fn(|cx| {
            let came = self.arrivals.iter_mut().any(|(number, arrivals)| {
                TO_END.contains(number) && arrivals.poll_recv(cx).is_ready()
            });
            match came {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Whether this process group is the one that the terminal sends to.
fn is_in_foreground() -> bool {
    terminal().is_some_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

/// The terminal of this session, if it has one.
pub(super) fn terminal() -> Option<File> {
    File::open("/dev/tty").ok()
}
