//! The local certificate authority: made on first use, kept in the state directory, renewed in time.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub use super::certificate::Validity;
use super::certificate::{Chain, Signer};
use super::files::{Files, Mark};
use super::key::Key;
use super::leaf::{LeafError, Leaves};
use super::pem;
use crate::clock;
use crate::secret::Zeroizing;
use crate::token::disk::Lock;

/// Whom intercepted programs trust, and who vouches for the hosts that are intercepted.
pub struct Authority {
    chain: Chain,
    pem: String,
    files: Files,
    path: PathBuf,
    signer: Signer,
    leaves: Mutex<Leaves>,
    /// Which file of the key was looked at last.
    seen: Mutex<Option<Mark>>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The system refused to read it.
    #[error("cannot read the certificate authority's key {path}; check its owner and mode")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Replacing it would replace the link and leave its target.
    #[error(
        "the certificate authority's key {path} is a symbolic link, which is not followed; remove it, and a new key is made"
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Not a file at all.
    #[error(
        "the certificate authority's key {path} is not a regular file; move it away, and a new key is made"
    )]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// Whoever put it there could speak for Lucid.
    #[error(
        "the certificate authority's key {path} belongs to another user ({owner}, and this is {user}); remove it, and a new key is made, or run lucid-proxy as that user"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who this process is.
        user: u32,
    },
    /// Whoever read it can speak for Lucid to the programs that trust it.
    #[error(
        "the certificate authority's key {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}, or if somebody may have read it: lucid-proxy ca renew"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused to write it.
    #[error("cannot write {path}; its directory must be writable and have free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused to lock.
    #[error(
        "cannot lock {path}; its directory must be writable and its file system must have locks"
    )]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process does not let go.
    #[error(
        "another process has held {path} for 10 s; end the lucid-proxy that hangs, or try again"
    )]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// No certificate can say what time it is.
    #[error("this machine's clock is far off; set it, since certificates are made for a time")]
    Clock,
    /// The library refused.
    #[error("no certificate authority can be made")]
    Make(#[source] rcgen::Error),
    /// The system gives no random numbers.
    #[error("no key can be made: the system gave no random bytes")]
    Random,
}

/// Why an authority does not do any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is for other hosts than those that are intercepted.
    OtherHosts,
    /// Its time is over.
    Expired,
    /// Its time has not come: the clock was ahead when it was made, or is behind now.
    NotYetValid,
    /// Less than a third of its time is left.
    Old,
}

impl Renewal {
    /// Whether one for these hosts and this time does not do, and why.
    pub fn needed(
        has: &[String],
        validity: Validity,
        wanted: &[String],
        now: SystemTime,
    ) -> Option<Self> {
        let left = validity.end.duration_since(now).unwrap_or_default();
        let life = validity
            .end
            .duration_since(validity.begin)
            .unwrap_or_default();
        let sorted = |hosts: &[String]| {
            let mut hosts = hosts.to_vec();
            hosts.sort_unstable();
            hosts
        };
        if now < validity.begin {
            Some(Self::NotYetValid)
        } else if left.is_zero() {
            Some(Self::Expired)
        } else if sorted(has) != sorted(wanted) {
            Some(Self::OtherHosts)
        } else if left < life / 3 {
            Some(Self::Old)
        } else {
            None
        }
    }
}

impl Renewal {
    /// The same of one that is still in its place.
    pub fn now(self) -> &'static str {
        match self {
            Self::OtherHosts => "other hosts are intercepted now",
            Self::Expired => "its time is over",
            Self::NotYetValid => "its time has not come by this machine's clock",
            Self::Old => "less than a third of its time is left",
        }
    }
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherHosts => "it was for other hosts than those that are intercepted",
            Self::Expired => "its time was over",
            Self::NotYetValid => "its time had not come by this machine's clock",
            Self::Old => "less than a third of its time was left",
        })
    }
}

/// What the state directory holds.
#[derive(Debug)]
pub enum Kept {
    /// Nothing yet.
    Nothing,
    /// What is no authority, or not one of this program's.
    Damaged,
    /// An authority, of whatever time and hosts.
    Whole(Box<Authority>),
}

impl Authority {
    /// The authority in this directory, for these hosts. Where there is none, or none that does, one is made.
    ///
    /// # Errors
    ///
    /// When what is there is not this user's alone, or nothing can be written.
    pub fn open(
        directory: &Path,
        hosts: &[String],
        now: SystemTime,
    ) -> Result<Arc<Self>, AuthorityError> {
        let files = Files::of(directory, hosts);
        if let Kept::Whole(kept) = Self::kept(directory, hosts)?
            && kept.renewal(hosts, now).is_none()
            && files.has_certificate(kept.pem.as_bytes())
        {
            return Ok(Arc::from(kept));
        }
        let lock = files.lock()?;
        // Another process may have been quicker.
        let authority = match Self::kept(directory, hosts)? {
            Kept::Whole(kept) => match kept.renewal(hosts, now) {
                None => kept,
                Some(why) => {
                    tracing::warn!(
                        "the local certificate authority is made anew: {why}; where the old one was installed or handed out, replace it by {}",
                        files.certificate().display()
                    );
                    Box::new(Self::make(&files, &lock, hosts, now)?)
                }
            },
            Kept::Damaged => {
                let aside = files.set_aside()?;
                tracing::warn!(
                    "{} was damaged and is kept as {}; the local certificate authority is made anew",
                    files.key().display(),
                    aside.display()
                );
                Box::new(Self::make(&files, &lock, hosts, now)?)
            }
            Kept::Nothing => Box::new(Self::make(&files, &lock, hosts, now)?),
        };
        if !files.has_certificate(authority.pem.as_bytes()) {
            files.write(&authority.path, authority.pem.as_bytes())?;
        }
        Ok(Arc::from(authority))
    }

    /// Makes a new one, whatever is there, unless that is another user's.
    ///
    /// # Errors
    ///
    /// When what is there is not this user's, or nothing can be written.
    pub fn renew(
        directory: &Path,
        hosts: &[String],
        now: SystemTime,
    ) -> Result<Arc<Self>, AuthorityError> {
        let files = Files::of(directory, hosts);
        let lock = files.lock()?;
        match Self::kept(directory, hosts) {
            Ok(Kept::Damaged) => drop(files.set_aside()?),
            // What others may have read is worth nothing any more.
            Ok(_) | Err(AuthorityError::Exposed { .. }) => {}
            Err(error) => return Err(error),
        }
        let authority = Self::make(&files, &lock, hosts, now)?;
        files.write(&authority.path, authority.pem.as_bytes())?;
        Ok(Arc::new(authority))
    }

    /// What is there for these hosts, without changing anything.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is not this user's alone.
    pub fn kept(directory: &Path, hosts: &[String]) -> Result<Kept, AuthorityError> {
        Self::read(&Files::of(directory, hosts))
    }

    fn read(files: &Files) -> Result<Kept, AuthorityError> {
        // Before the content: what replaces it meanwhile is seen the next time.
        let mark = files.mark();
        let Some(content) = files.read_key()? else {
            return Ok(Kept::Nothing);
        };
        Ok(match parse(&content) {
            Some((key, chain)) => Kept::Whole(Box::new(Self::of(files, key, chain, mark))),
            None => Kept::Damaged,
        })
    }

    fn make(
        files: &Files,
        _lock: &Lock,
        hosts: &[String],
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let validity = Validity::from_now(now).ok_or(AuthorityError::Clock)?;
        let generate = || Key::generate().map_err(|_| AuthorityError::Random);
        let (root, key) = (generate()?, generate()?);
        let chain = Chain::make(&root, &key, hosts, validity).map_err(|error| match error {
            rcgen::Error::Time => AuthorityError::Clock,
            error => AuthorityError::Make(error),
        })?;
        // What this key could do is done.
        drop(root);
        let pkcs8 = key.to_pkcs8().map_err(|_| AuthorityError::Random)?;
        let secret = pem::block(pem::PRIVATE_KEY, pkcs8.as_ref());
        let public = [&chain.signer, &chain.root].map(|it| pem::block(pem::CERTIFICATE, it));
        let all = [
            secret.as_bytes(),
            public[0].as_bytes(),
            public[1].as_bytes(),
        ];
        let all = Zeroizing::new(all.concat());
        files.write(&files.key(), &all)?;
        Ok(Self::of(files, key, chain, files.mark()))
    }

    fn of(files: &Files, key: Key, chain: Chain, mark: Option<Mark>) -> Self {
        Self {
            pem: pem::block(pem::CERTIFICATE, &chain.root).to_string(),
            files: files.clone(),
            path: files.certificate(),
            signer: Signer::new(key, &chain),
            leaves: Mutex::default(),
            seen: Mutex::new(mark),
            chain,
        }
    }

    /// The one that another process has put in its place since, if that can be used. What is there is read once only.
    pub fn successor(&self, now: SystemTime) -> Option<Arc<Self>> {
        let found = self.files.mark()?;
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if seen.replace(found) == Some(found) {
            return None;
        }
        drop(seen);
        let next = match Self::read(&self.files) {
            Ok(Kept::Whole(next)) => next,
            Ok(_) => return None,
            Err(error) => {
                tracing::warn!("a new certificate authority is not taken over: {error}");
                return None;
            }
        };
        let is_another = next.chain.root != self.chain.root;
        let is_usable = matches!(
            next.renewal(&self.chain.hosts, now),
            None | Some(Renewal::Old)
        );
        (is_another && is_usable).then(|| Arc::from(next))
    }

    /// Whether it does not do for these hosts and this time, and why.
    pub fn renewal(&self, hosts: &[String], now: SystemTime) -> Option<Renewal> {
        Renewal::needed(&self.chain.hosts, self.chain.validity, hosts, now)
    }

    /// The certificate that programs have to trust, as a file holds it (RFC 7468).
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The same in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain.root
    }

    /// The file that holds [`Authority::certificate_pem`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that holds its private key.
    pub fn key(&self) -> PathBuf {
        self.files.key()
    }

    /// The file in this directory that holds the private key for these hosts, if there is one.
    pub fn key_path(directory: &Path, hosts: &[String]) -> PathBuf {
        Files::of(directory, hosts).key()
    }

    /// The certificate's SHA-256 in hexadecimal digits, as other programs print it.
    pub fn fingerprint(&self) -> String {
        let digest = digest(&SHA256, &self.chain.root);
        let bytes = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
        bytes.collect::<Vec<_>>().join(":")
    }

    /// Who it is, in the form of RFC 4514.
    pub fn subject(&self) -> &str {
        &self.chain.subject
    }

    /// The hosts that it may vouch for, with all names below theirs.
    pub fn hosts(&self) -> &[String] {
        &self.chain.hosts
    }

    /// Its time.
    pub fn validity(&self) -> Validity {
        self.chain.validity
    }

    /// How a TLS connection is accepted that an intercepted client believes to be to `host`.
    ///
    /// The certificate is made for that and lasts a week; the next one is made in time. Whoever asks for another host in
    /// the handshake (RFC 6066 section 3) is refused, and the log says so; whoever names none is served.
    ///
    /// # Errors
    ///
    /// When it may not vouch for that host, or not at this time.
    pub fn acceptor(&self, host: &str) -> Result<Arc<ServerConfig>, LeafError> {
        self.acceptor_at(host, SystemTime::now())
    }

    fn acceptor_at(&self, host: &str, now: SystemTime) -> Result<Arc<ServerConfig>, LeafError> {
        let host = self
            .chain
            .hosts
            .iter()
            .find(|known| known.eq_ignore_ascii_case(host));
        let host = host.ok_or(LeafError::NotOurs)?;
        let mut leaves = self
            .leaves
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        leaves.for_host(host, &self.signer, now)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.chain.subject)
            .field("hosts", &self.chain.hosts)
            .field("until", &clock::utc(self.chain.validity.end))
            .finish_non_exhaustive()
    }
}

/// A key and the certificates that were made for it; `None` for everything else.
fn parse(content: &[u8]) -> Option<(Key, Chain)> {
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(content).ok()?;
    let pkcs8 = Zeroizing::new(pkcs8);
    let key = Key::from_pkcs8(pkcs8.secret_pkcs8_der()).ok()?;
    let certificates = CertificateDer::pem_slice_iter(content);
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().ok()?;
    let [signer, root] = <[_; 2]>::try_from(certificates).ok()?;
    let chain = Chain::read(root, signer, &key)?;
    Some((key, chain))
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
