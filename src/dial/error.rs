//! Why there is no connection, and how far it came.

use std::fmt;
use std::io;
use std::time::Duration;

use super::race::Attempts;
use crate::config::Origin;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name is unknown.
    #[error("cannot find the address of {0}: {1}")]
    LookUp(Origin, io::Error),
    /// Nobody answers there.
    #[error("cannot connect to {0}: {1}")]
    Connect(Origin, Attempts),
    /// The TLS handshake failed.
    #[error("no trusted TLS connection to {0}: {1}")]
    Tls(Origin, io::Error),
    /// It took too long, and this was under way.
    #[error("{step} within {1:?}{tried}", step = .0.step, tried = .0.tried())]
    TimedOut(Progress, Duration),
}

/// How far a connection has come.
#[derive(Debug)]
pub struct Progress {
    /// What it is waiting for.
    pub step: Step,
    /// The addresses that were tried last.
    pub attempts: Attempts,
}

/// What a connection is waiting for.
#[derive(Debug)]
pub enum Step {
    /// The addresses of a name.
    LookUp(Origin),
    /// One of them to accept.
    Connect(Origin),
    /// The end of the TLS handshake.
    Tls(Origin),
}

impl Progress {
    pub(super) fn begin(origin: &Origin) -> Self {
        Self {
            step: Step::LookUp(origin.clone()),
            attempts: Attempts::default(),
        }
    }

    fn tried(&self) -> String {
        match self.step {
            Step::Connect(_) => format!(" ({})", self.attempts),
            Step::LookUp(_) | Step::Tls(_) => String::new(),
        }
    }
}

impl fmt::Display for Step {
    /// What has not happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookUp(origin) => write!(f, "the address of {origin} was not found"),
            Self::Connect(origin) => write!(f, "{origin} did not accept a connection"),
            Self::Tls(origin) => write!(f, "the TLS handshake with {origin} did not end"),
        }
    }
}
