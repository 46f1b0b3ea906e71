//! The proxies that are compared: how each is started for the same job, and ended.

mod haproxy;
mod lucid;
mod nginx;
mod process;
mod relay;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::case::Head;
use process::Process;

/// In the order of the tables.
pub(crate) const KINDS: [Kind; 4] = [Kind::LucidProxy, Kind::Nginx, Kind::Haproxy, Kind::Relay];

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    LucidProxy,
    Nginx,
    Haproxy,
    /// Copies bytes: what is left when a proxy does nothing.
    Relay,
}

/// What a proxy is started for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    /// Where requests go.
    pub(crate) upstream: SocketAddr,
    /// Where the proxies' files are.
    pub(crate) directory: &'a Path,
    /// Our own program.
    pub(crate) lucid_proxy: &'a Path,
}

/// A proxy at work. Dropped, its process is ended.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    /// As it says itself.
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    /// What a request to it must look like to arrive at upstream as it should.
    pub(crate) head: Head,
    process: Process,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LucidProxy => "lucid-proxy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Relay => "relay",
        }
    }

    /// Starts the proxy, with files in a directory of its own; `None` where it is not installed.
    pub(crate) fn start(self, job: &Job<'_>) -> anyhow::Result<Option<Peer>> {
        let upstream = job.upstream;
        let directory = job.directory.join(self.name());
        std::fs::create_dir(&directory)?;
        match self {
            Self::LucidProxy => lucid::start(job.lucid_proxy, upstream, &directory).map(Some),
            Self::Nginx => nginx::start(upstream, &directory),
            Self::Haproxy => haproxy::start(upstream, &directory),
            Self::Relay => relay::start(upstream, &directory).map(Some),
        }
    }
}

impl Peer {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// A program that may not be installed.
struct Installed {
    path: PathBuf,
    /// The first line of what it says about its version.
    version: String,
}

impl Installed {
    /// Finds a program; where a distribution keeps servers is often not in a user's `PATH`.
    fn find(name: &str) -> Option<Self> {
        let places = ["", "/usr/sbin", "/usr/local/sbin"];
        places.iter().find_map(|place| {
            let path = Path::new(place).join(name);
            let output = Command::new(&path).arg("-v").output().ok()?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let version = said.lines().next().unwrap_or_default().to_owned();
            Some(Self { path, version })
        })
    }
}

/// An address for a proxy that cannot choose one itself and say which. Another process could take it in between; the
/// proxy then fails to start, and says so.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
