//! Where clients connect: one entry of `listen`, as text or as a table.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::raw::{At, Found, Item, Source, Table};
use super::{Address, AddressError, Environment, accounts, file_name};

/// One entry of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// What a TLS listener shows; `None` for plain HTTP/1.1.
    pub tls: Option<TlsFiles>,
    /// Who may use the file of a unix socket.
    pub access: Access,
    /// Whether connections of this machine's other users are closed at once. No file says so.
    pub own_user: bool,
}

/// The files of a certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead from it to a trusted one.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who may use the file of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// The user that it belongs to, unless that is the one who runs the program.
    pub owner: Option<u32>,
    /// The group that it belongs to, unless that is the one of the program or of the directory.
    pub group: Option<u32>,
}

impl TlsFiles {
    /// Whether it is known where they are: below `$CREDENTIALS_DIRECTORY` they are for the service alone.
    pub(crate) fn are_known(&self) -> bool {
        ![&self.certificate, &self.key]
            .into_iter()
            .any(|file| file_name::is_unknown(file))
    }
}

impl Default for Access {
    /// The owner alone: whoever may write to the socket can use the token.
    fn default() -> Self {
        Self {
            mode: 0o600,
            owner: None,
            group: None,
        }
    }
}

impl Listen {
    /// Whether both cannot be had: free ports can, as often as one likes.
    fn excludes(&self, other: &Self) -> bool {
        let is_free_port = matches!(self.address, Address::Tcp(address) if address.port() == 0);
        self.address == other.address && !is_free_port
    }
}

impl From<Address> for Listen {
    fn from(address: Address) -> Self {
        Self {
            address,
            tls: None,
            access: Access::default(),
            own_user: false,
        }
    }
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse().map(Address::into)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        f.write_str(if self.tls.is_some() { " (TLS)" } else { "" })
    }
}

/// Takes `listen` out of the file. Where it is not there: what systemd passes, if it does, else a port on loopback.
pub(super) fn check<'a>(
    source: &mut Source<'a>,
    root: &mut Table<'a>,
    environment: &dyn Environment,
) -> Vec<Listen> {
    const ACCEPTED: &str = "a list of addresses with ports, such as [\"127.0.0.1:8118\", \"[::1]:8118\"], of sockets such as \"unix:/run/lucid-proxy/proxy.sock\", or of tables with such an address";
    let Some(items) = root.items(source, "listen", ACCEPTED) else {
        // So that the keys of an entry are known.
        Keys::take(source, Table::empty("listen"), environment);
        let usual = match is_activated(environment) {
            true => Address::Systemd(None),
            false => Address::Tcp(([127, 0, 0, 1], 8118).into()),
        };
        return vec![usual.into()];
    };
    let mut entries: Vec<Listen> = Vec::new();
    for item in items {
        let (entry, at) = match item {
            Item::Text(text) => (
                check_address(source, &text).map(Address::into),
                text.at.clone(),
            ),
            Item::Table(table, at) => (
                Keys::take(source, table, environment).check(source, &at),
                at,
            ),
        };
        let Some(entry) = entry else { continue };
        if entries.iter().any(|earlier| earlier.excludes(&entry)) {
            let message = format!("{} stands here twice; leave one out", entry.address);
            source.problem(Some(&at), "listen", message);
        }
        entries.push(entry);
    }
    entries
}

/// Whether systemd has passed sockets to this very process (sd_listen_fds(3)).
pub(crate) fn is_activated(environment: &dyn Environment) -> bool {
    let number = |name| environment.var(name)?.parse::<u32>().ok();
    number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS").is_some_and(|n| n > 0)
}

fn check_address(source: &mut Source<'_>, text: &Found<String>) -> Option<Address> {
    let parsed = text.value.parse();
    parsed
        .map_err(|error: AddressError| {
            source.problem(Some(&text.at), &text.key, error.to_string());
        })
        .ok()
}

/// So that an error tells where a relative path leads. What leads nowhere from here stays.
fn absolute(path: &Found<String>) -> PathBuf {
    if file_name::is_unknown(path.value.as_ref()) {
        return path.value.clone().into();
    }
    // Only where there is no working directory, or the path is empty, which was told.
    std::path::absolute(&path.value).unwrap_or_else(|_| path.value.clone().into())
}

/// The name of a file. Where it is not known, that was reported, and it stays as it was written.
fn file<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    name: &'static str,
    environment: &dyn Environment,
) -> Option<Found<String>> {
    let found = table.string(source, name)?;
    match file_name::expanded(source, &found, environment) {
        Ok(value) => Some(Found { value, ..found }),
        Err(_) => Some(found),
    }
}

/// An entry that is a table, as it was written.
struct Keys {
    address: Option<Found<String>>,
    certificate: Option<Found<String>>,
    key: Option<Found<String>>,
    mode: Option<Found<String>>,
    owner: Option<Found<String>>,
    group: Option<Found<String>>,
}

impl Keys {
    fn take<'a>(
        source: &mut Source<'a>,
        mut table: Table<'a>,
        environment: &dyn Environment,
    ) -> Self {
        let keys = Self {
            address: table.string(source, "address"),
            certificate: file(source, &mut table, "certificate_file", environment),
            key: file(source, &mut table, "key_file", environment),
            mode: table.string(source, "mode"),
            owner: table.string(source, "owner"),
            group: table.string(source, "group"),
        };
        table.finish(source);
        keys
    }

    fn check(self, source: &mut Source<'_>, at: &At) -> Option<Listen> {
        let Some(text) = &self.address else {
            let message = "missing: where to listen, such as \"127.0.0.1:8443\"";
            source.problem(Some(at), "listen.address", message);
            return None;
        };
        let address = check_address(source, text)?;
        self.refuse_useless(source, &address);
        Some(Listen {
            address,
            tls: self.tls(source),
            access: self.access(source),
            own_user: false,
        })
    }

    /// Keys that mean nothing for such an address would be believed to do something.
    fn refuse_useless(&self, source: &mut Source<'_>, address: &Address) {
        let tls = [&self.certificate, &self.key];
        let access = [&self.mode, &self.owner, &self.group];
        let (keys, message) = match address {
            Address::Unix(_) => (
                &tls[..],
                "only for addresses with a port: what goes through a unix socket stays on this machine",
            ),
            Address::Tcp(_) => (&access[..], "only for \"unix:…\" addresses"),
            Address::Systemd(_) => (
                &access[..],
                "systemd makes this socket: set SocketMode=, SocketUser= or SocketGroup= in its unit",
            ),
        };
        for key in keys.iter().copied().flatten() {
            source.problem(Some(&key.at), &key.key, message);
        }
    }

    fn tls(&self, source: &mut Source<'_>) -> Option<TlsFiles> {
        for key in [&self.certificate, &self.key].into_iter().flatten() {
            if key.value.is_empty() {
                source.problem(Some(&key.at), &key.key, "expected the path of a PEM file");
            }
        }
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: absolute(certificate),
                key: absolute(key),
            }),
            (Some(alone), None) => {
                let message = "needs key_file beside it, with the certificate's private key";
                source.problem(Some(&alone.at), &alone.key, message);
                None
            }
            (None, Some(alone)) => {
                let message = "needs certificate_file beside it, with the key's certificate";
                source.problem(Some(&alone.at), &alone.key, message);
                None
            }
            (None, None) => None,
        }
    }

    fn access(&self, source: &mut Source<'_>) -> Access {
        let owner = account(
            source,
            self.owner.as_ref(),
            accounts::user,
            "expected the name of a user in /etc/passwd, or a number",
        );
        let group = account(
            source,
            self.group.as_ref(),
            accounts::group,
            "expected the name of a group in /etc/group, or a number",
        );
        let usual = Access::default();
        Access {
            mode: self.mode.as_ref().map_or(usual.mode, |mode| {
                octal(&mode.value).unwrap_or_else(|| {
                    let message = "expected permissions in octal digits, such as \"0660\"";
                    source.problem(Some(&mode.at), &mode.key, message);
                    usual.mode
                })
            }),
            owner,
            group,
        }
    }
}

fn account(
    source: &mut Source<'_>,
    given: Option<&Found<String>>,
    find: fn(&str) -> Option<u32>,
    accepted: &str,
) -> Option<u32> {
    let given = given?;
    match find(&given.value) {
        None => source.problem(Some(&given.at), &given.key, accepted),
        Some(accounts::NOBODY_AT_ALL) => {
            let message = "the number 4294967295 means \"leave it as it is\" to the system; leave the key out for that, or name whom the socket shall belong to";
            source.problem(Some(&given.at), &given.key, message);
        }
        Some(number) => return Some(number),
    }
    None
}

/// Permission bits as chmod(1) takes them.
fn octal(text: &str) -> Option<u32> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| digits)?;
    (mode <= 0o777).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_permissions() {
        assert_eq!(octal("0660"), Some(0o660));
        assert_eq!(octal("600"), Some(0o600));
        for text in ["", "66", "0680", "+660", "1777", "rw-rw----", "06600"] {
            assert_eq!(octal(text), None, "{text}");
        }
    }
}
