use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use super::*;

const HOSTS: [&str; 2] = ["api.lucid.co", "api.lucid.app"];
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The user without any rights on Linux.
const NOBODY: u32 = 65534;

fn hosts() -> Vec<String> {
    HOSTS.map(str::to_owned).to_vec()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

fn state() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(directory: &Path, now: SystemTime) -> Arc<Authority> {
    Authority::open(directory, &hosts(), now).expect("an authority")
}

fn refused(directory: &Path) -> String {
    let error = Authority::open(directory, &hosts(), now()).expect_err("refused");
    error.to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn it_is_made_on_first_use_private_and_found_again() {
    let directory = state();
    let state = directory.path().join("below/state");
    let made = open(&state, now());
    let files = Files::of(&state, &hosts());
    for path in [files.key(), files.certificate()] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&state), 0o700);
    assert_eq!(names(&state), ["ca-key.pem", "ca.lock", "ca.pem"]);
    let written = fs::read_to_string(made.path()).expect("there");
    assert_eq!(written, made.certificate_pem());
    assert!(!written.contains("PRIVATE KEY"));
    let again = open(&state, now() + DAY);
    assert_eq!(again.certificate(), made.certificate());
    assert_eq!(again.hosts(), HOSTS);
    assert_eq!(again.validity(), made.validity());
    assert_eq!(again.subject(), made.subject());
    let Validity { begin, end } = made.validity();
    assert_eq!(now().duration_since(begin).expect("before"), HOUR);
    assert_eq!(end.duration_since(now()).expect("after"), 365 * DAY);
}

#[test]
fn one_that_is_there_is_used_where_nothing_can_be_written() {
    let directory = state();
    let made = open(directory.path(), now());
    fs::remove_file(directory.path().join("ca.lock")).expect("removed");
    let again = open(directory.path(), now());
    assert_eq!(again.certificate(), made.certificate());
    let names = names(directory.path());
    assert_eq!(names, ["ca-key.pem", "ca.pem"], "nothing was locked");
}

#[test]
fn when_a_new_one_is_needed_is_decided_by_time_and_hosts() {
    let begin = now();
    let validity = Validity {
        begin,
        end: begin + 300 * DAY,
    };
    let second = Duration::from_secs(1);
    let needed = |wanted: &[&str], now| {
        let wanted: Vec<_> = wanted.iter().map(|host| (*host).to_owned()).collect();
        Renewal::needed(&hosts(), validity, &wanted, now)
    };
    for (wanted, now, expected) in [
        (&HOSTS[..], begin, None),
        (&["api.lucid.app", "api.lucid.co"], begin, None),
        (&HOSTS, begin + 200 * DAY, None),
        (&HOSTS, begin + 200 * DAY + second, Some(Renewal::Old)),
        (&HOSTS, begin + 300 * DAY - second, Some(Renewal::Old)),
        (&HOSTS, begin + 300 * DAY, Some(Renewal::Expired)),
        (&HOSTS, begin + 9999 * DAY, Some(Renewal::Expired)),
        (&HOSTS, begin - second, Some(Renewal::NotYetValid)),
        (&HOSTS[..1], begin, Some(Renewal::OtherHosts)),
        (
            &["api.lucid.co", "other.example"],
            begin,
            Some(Renewal::OtherHosts),
        ),
        (
            &["api.lucid.co", "api.lucid.app", "other.example"],
            begin,
            Some(Renewal::OtherHosts),
        ),
    ] {
        assert_eq!(needed(wanted, now), expected, "{wanted:?} {now:?}");
    }
}

#[test]
fn one_that_does_not_do_any_more_gives_way_to_another_key() {
    let directory = state();
    let mut last = open(directory.path(), now());
    let third = (365 * DAY + HOUR) / 3;
    let old = last.validity().end - third + Duration::from_secs(1);
    for (hosts, at) in [
        (hosts(), old),
        (hosts(), old + 9999 * DAY),
        (hosts(), now()),
        (vec!["other.example".to_owned()], now()),
    ] {
        let next = Authority::open(directory.path(), &hosts, at).expect("another");
        assert_ne!(next.certificate(), last.certificate());
        assert_ne!(next.subject(), last.subject());
        assert_eq!(next.hosts(), hosts);
        let written = fs::read_to_string(next.path()).expect("there");
        assert_eq!(written, next.certificate_pem());
        last = next;
    }
    let again = Authority::open(directory.path(), last.hosts(), now()).expect("the same");
    assert_eq!(
        again.certificate(),
        last.certificate(),
        "a positive control"
    );
}

#[test]
fn a_damaged_one_is_kept_beside_and_another_made() {
    let directory = state();
    let files = Files::of(directory.path(), &hosts());
    let whole = |authority: &Authority| {
        open(directory.path(), now()).certificate() == authority.certificate()
    };
    let made = open(directory.path(), now());
    let content = fs::read(files.key()).expect("there");
    let other = state();
    open(other.path(), now());
    let of_another = fs::read(Files::of(other.path(), &hosts()).key()).expect("there");
    let at = content
        .windows(11)
        .position(|it| it == b"-----BEGIN ")
        .expect("PEM");
    let second = content[at + 1..]
        .windows(11)
        .position(|it| it == b"-----BEGIN ");
    let second = second.expect("two blocks") + at + 1;
    let mixed = [&of_another[..second], &content[second..]].concat();
    for damaged in [
        &b""[..],
        b"x",
        &content[..content.len() / 2],
        &content[..second],
        &content[second..],
        &mixed,
    ] {
        fs::write(files.key(), damaged).expect("written");
        let next = open(directory.path(), now());
        assert_ne!(next.certificate(), made.certificate());
        assert_eq!(fs::read(files.damaged()).expect("kept"), damaged);
        assert_eq!(mode(&files.damaged()), 0o600);
        assert!(whole(&next));
    }
    fs::remove_file(files.certificate()).expect("removed");
    let again = open(directory.path(), now());
    let written = fs::read_to_string(files.certificate()).expect("written again");
    assert_eq!(written, again.certificate_pem());
}

#[test]
fn s08_no_byte_that_changes_makes_a_panic_or_another_certificate() {
    let directory = state();
    let made = open(directory.path(), now());
    let content = fs::read(Files::of(directory.path(), &hosts()).key()).expect("there");
    let (mut whole, mut damaged) = (0, 0);
    for at in 0..content.len() {
        for bit in [1, 0x20] {
            let mut content = content.clone();
            content[at] ^= bit;
            match parse(&content) {
                Some((_, chain)) => {
                    assert_eq!(&chain.root, made.certificate(), "{at}");
                    whole += 1;
                }
                None => damaged += 1,
            }
        }
    }
    assert!(damaged > content.len(), "{damaged} of {}", whole + damaged);
}

#[test]
fn what_is_not_this_users_alone_is_refused_with_what_to_do() {
    let directory = state();
    let files = Files::of(directory.path(), &hosts());
    let made = open(directory.path(), now());
    let key = files.key();
    for mode in [0o640, 0o604, 0o620, 0o660] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("chmod");
        let error = refused(directory.path());
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
    }
    let kept = Authority::kept(directory.path(), &hosts()).expect_err("exposed");
    assert!(matches!(kept, AuthorityError::Exposed { .. }), "{kept:?}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let again = open(directory.path(), now());
    assert_eq!(
        again.certificate(),
        made.certificate(),
        "a positive control"
    );

    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&key, &elsewhere).expect("moved");
    symlink(&elsewhere, &key).expect("a link");
    assert!(refused(directory.path()).contains("symbolic link"));
    fs::remove_file(&key).expect("removed");
    fs::create_dir(&key).expect("a directory");
    assert!(refused(directory.path()).contains("not a regular file"));
    fs::remove_dir(&key).expect("removed");
    let made = Command::new("mkfifo").arg(&key).status().expect("mkfifo");
    assert!(made.success());
    assert!(refused(directory.path()).contains("not a regular file"));
    fs::remove_file(&key).expect("removed");
    fs::rename(&elsewhere, &key).expect("moved back");

    match chown(&key, Some(NOBODY), None) {
        Ok(()) => {
            let error = refused(directory.path());
            assert!(
                error.contains("another user (65534, and this is 0)"),
                "{error}"
            );
            let error = Authority::renew(directory.path(), &hosts(), now()).expect_err("another's");
            assert!(matches!(error, AuthorityError::Foreign { .. }), "{error}");
        }
        // Only root gives files away.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_told() {
    let directory = state();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let error = Authority::open(&file.join("state"), &hosts(), now()).expect_err("no directory");
    assert!(error.to_string().starts_with("cannot "), "{error}");
}

#[test]
fn s08_no_clock_makes_a_panic() {
    let directory = state();
    for far in [
        0,
        1,
        3599,
        253_402_300_799,
        253_402_300_800,
        1 << 40,
        i64::MAX as u64,
    ] {
        let Some(now) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(far)) else {
            continue;
        };
        let opened = Authority::open(directory.path(), &hosts(), now);
        let error = opened.expect_err("no certificate has this time");
        assert!(matches!(error, AuthorityError::Clock), "{far}: {error:?}");
    }
    let before = SystemTime::UNIX_EPOCH - DAY;
    Authority::open(directory.path(), &hosts(), before).expect_err("before all time");
    open(directory.path(), now());
}

#[test]
fn all_who_start_at_once_have_the_same() {
    let directory = state();
    let opened: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| open(directory.path(), now())))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    for one in &opened {
        assert_eq!(one.certificate(), opened[0].certificate());
    }
    let written = fs::read_to_string(opened[0].path()).expect("there");
    assert_eq!(written, opened[0].certificate_pem());
}

#[test]
fn what_a_killed_process_left_half_written_is_removed() {
    let directory = state();
    let [draft, other] = [".ca-x1y2z3.tmp", "another.tmp"].map(|it| directory.path().join(it));
    for path in [&draft, &other] {
        fs::write(path, "half").expect("written");
    }
    open(directory.path(), now());
    assert!(!draft.exists() && other.exists());
}

#[test]
fn a_renewal_makes_another_whatever_is_there() {
    let directory = state();
    let renew = || Authority::renew(directory.path(), &hosts(), now()).expect("a new one");
    let first = renew();
    let second = renew();
    assert_ne!(second.certificate(), first.certificate());
    let key = Files::of(directory.path(), &hosts()).key();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let third = renew();
    assert_ne!(third.certificate(), second.certificate());
    assert_eq!(mode(&key), 0o600);
    fs::write(&key, "damaged").expect("written");
    let fourth = renew();
    assert_eq!(
        open(directory.path(), now()).certificate(),
        fourth.certificate()
    );
    let written = fs::read_to_string(fourth.path()).expect("there");
    assert_eq!(written, fourth.certificate_pem());
}

#[test]
fn each_set_of_hosts_has_one_of_its_own() {
    let directory = state();
    let lucids = open(directory.path(), now());
    let of = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Authority::open(directory.path(), &names, now()).expect("one")
    };
    let one = of(&["api.lucid.co"]);
    let other = of(&["api.lucid.co", "gateway.example"]);
    let turned = of(&["gateway.example", "api.lucid.co"]);
    assert_eq!(turned.certificate(), other.certificate());
    for (a, b) in [(&lucids, &one), (&lucids, &other), (&one, &other)] {
        assert_ne!(a.certificate(), b.certificate());
        assert_ne!(a.path(), b.path());
    }
    let again = open(directory.path(), now());
    assert_eq!(again.certificate(), lucids.certificate(), "untouched");
    assert_eq!(names(directory.path()).len(), 7, "a lock for all of them");
}

#[test]
fn what_another_process_makes_is_taken_over_once_and_only_if_it_does() {
    let directory = state();
    let running = open(directory.path(), now());
    assert!(running.successor(now()).is_none(), "nothing has changed");
    let next = Authority::renew(directory.path(), &hosts(), now()).expect("a new one");
    let taken = running.successor(now()).expect("taken over");
    assert_eq!(taken.certificate(), next.certificate());
    assert!(taken.successor(now()).is_none());

    let key = next.key();
    let whole = fs::read(&key).expect("there");
    let replaced = |content: &[u8]| {
        let draft = directory.path().join("draft");
        fs::write(&draft, content).expect("written");
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(draft, &key).expect("in its place");
        running.successor(now())
    };
    assert!(replaced(b"damaged").is_none());
    assert!(replaced(&whole).is_some(), "a positive control");
    fs::remove_file(&key).expect("removed");
    assert!(running.successor(now()).is_none());
    let late = now() + 2000 * DAY;
    replaced(&whole);
    Authority::renew(directory.path(), &hosts(), now()).expect("a new one");
    assert!(running.successor(late).is_none(), "its time is over");
}

/// Shakes hands in memory; what the client has then, or why it has not.
fn shake_hands(
    server: Arc<ServerConfig>,
    trusted: &Authority,
    name: &str,
    offers_name: bool,
    alpn: &[&[u8]],
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate().clone()).expect("an anchor");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_sni = offers_name;
    client.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).expect("memory");
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    Ok((client, server))
}

#[test]
fn a_client_that_trusts_it_is_served_by_http_2_and_1_and_no_other_is() {
    let (directory, another) = (state(), state());
    // What judges certificates goes by the machine's clock.
    let now = SystemTime::now();
    let authority = open(directory.path(), now);
    let stranger = open(another.path(), now);
    let acceptor = || authority.acceptor("api.lucid.co").expect("an acceptor");
    for (alpn, expected) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let done = shake_hands(acceptor(), &authority, "api.lucid.co", true, alpn);
        let (client, _) = done.expect("trusted");
        assert_eq!(client.alpn_protocol(), expected);
    }
    let error = shake_hands(acceptor(), &stranger, "api.lucid.co", true, &[]).expect_err("unknown");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[test]
fn another_name_in_the_handshake_is_refused_and_none_is_served() {
    let directory = state();
    let authority = open(directory.path(), SystemTime::now());
    let shake = |name, offers_name| {
        let acceptor = authority.acceptor("api.lucid.co").expect("an acceptor");
        shake_hands(acceptor, &authority, name, offers_name, &[])
    };
    shake("api.lucid.co", true).expect("its own");
    shake("API.LUCID.CO", true).expect("its own in other letters");
    shake("api.lucid.co", false).expect("no name");
    for other in ["api.lucid.app", "other.example", "x.api.lucid.co"] {
        let error = shake(other, true).expect_err(other).to_string();
        assert!(
            error.contains("no server certificate chain resolved"),
            "{other}: {error}"
        );
        // Without the name there is a certificate, and it is not for another.
        let error = shake(other, false).expect_err(other).to_string();
        assert!(error.contains("not valid for name"), "{other}: {error}");
    }
}

#[test]
fn certificates_of_hosts_are_made_anew_after_half_their_week() {
    let directory = state();
    let authority = open(directory.path(), now());
    let at = |host: &str, now| authority.acceptor_at(host, now).expect("an acceptor");
    let first = at("api.lucid.co", now());
    let half = 7 * DAY / 2;
    let second = Duration::from_secs(1);
    assert!(Arc::ptr_eq(
        &first,
        &at("API.lucid.co", now() + half - second)
    ));
    assert!(!Arc::ptr_eq(&first, &at("api.lucid.app", now())));
    let next = at("api.lucid.co", now() + half);
    assert!(!Arc::ptr_eq(&first, &next));
    assert!(Arc::ptr_eq(&next, &at("api.lucid.co", now() + half)));
    // A clock that was put back.
    assert!(!Arc::ptr_eq(&next, &at("api.lucid.co", now())));
    for other in [
        "other.example",
        "x.api.lucid.co",
        "lucid.co",
        "",
        "127.0.0.1",
    ] {
        let refused = authority.acceptor_at(other, now()).expect_err(other);
        assert!(matches!(refused, LeafError::NotOurs), "{other}: {refused}");
    }
    let end = authority.validity().end;
    at("api.lucid.co", end - second);
    for outside in [end, end + 9999 * DAY, authority.validity().begin - second] {
        let refused = authority
            .acceptor_at("api.lucid.co", outside)
            .expect_err("over");
        assert!(matches!(refused, LeafError::Expired), "{refused}");
    }
}

#[test]
fn no_certificate_of_a_host_outlives_the_authority() {
    let directory = state();
    let validity = open(directory.path(), now()).validity();
    let Validity { begin, end } = validity;
    let leaf = |at| validity.of_leaf(at).expect("within");
    assert_eq!(leaf(now()).begin, begin);
    assert_eq!(leaf(now()).end, now() + 7 * DAY);
    assert_eq!(leaf(now() + DAY).begin, now() + DAY - HOUR);
    assert_eq!(leaf(end - DAY).end, end);
    assert_eq!(validity.of_leaf(end), None);
}

#[test]
fn each_host_has_a_key_and_a_certificate_of_its_own() {
    let directory = state();
    let authority = open(directory.path(), SystemTime::now());
    let shown = |host: &str| {
        let acceptor = authority.acceptor(host).expect("an acceptor");
        let (client, _) = shake_hands(acceptor, &authority, host, true, &[]).expect("trusted");
        let chain = client.peer_certificates().expect("shown").to_vec();
        assert_eq!(chain.len(), 2, "the root is known to whom it matters");
        CertificateInner::<Raw>::from_der(&chain[0]).expect("DER")
    };
    let [one, other] = HOSTS.map(shown);
    let key = |certificate: &CertificateInner<Raw>| {
        certificate
            .tbs_certificate()
            .subject_public_key_info()
            .clone()
    };
    assert_ne!(key(&one), key(&other));
    let signer = one.tbs_certificate().issuer().to_string();
    assert!(signer.starts_with("CN=lucid-proxy signer "), "{signer}");
    assert_eq!(
        one.tbs_certificate().subject().to_string(),
        "CN=api.lucid.co"
    );
}

#[test]
fn s06_no_key_shows_under_debug() {
    let directory = state();
    let authority = open(directory.path(), now());
    let content = fs::read_to_string(Files::of(directory.path(), &hosts()).key()).expect("there");
    let key = content.lines().nth(1).expect("base64");
    let acceptor = authority.acceptor_at("api.lucid.co", now()).expect("one");
    let kept = Authority::kept(directory.path(), &hosts()).expect("there");
    let printed = format!("{authority:?} {acceptor:?} {kept:?}");
    assert!(
        printed.contains("api.lucid.co"),
        "a positive control: {printed}"
    );
    assert!(
        !printed.contains(key) && !printed.contains("PRIVATE"),
        "{printed}"
    );
}
