//! The local certificate authority, as users and other programs see it.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::SystemTime;

use lucid_proxy::intercept::Authority;
use lucid_proxy::intercept::trust::Trust;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::world::{World, errors, is_there, missing, printed};

const HOSTS: [&str; 2] = ["api.lucid.co", "api.lucid.app"];

/// The path that `ca path` prints.
fn path(world: &World) -> PathBuf {
    let output = world.run(&["ca", "path"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(errors(&output), "");
    PathBuf::from(printed(&output).trim_end())
}

fn shown(world: &World) -> String {
    let output = world.run(&["ca", "show"]);
    assert!(output.status.success(), "{}", errors(&output));
    printed(&output)
}

/// What stands behind this word at the beginning of a line.
fn fact(shown: &str, name: &str) -> String {
    let line = shown.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {shown}"))
        .trim()
        .to_owned()
}

fn openssl(arguments: &[&str]) -> Output {
    let output = Command::new("openssl").args(arguments).output();
    output.expect("openssl runs")
}

fn has(program: &str, arguments: &[&str]) -> bool {
    let is_there = is_there(program, arguments);
    if !is_there {
        missing(program);
    }
    is_there
}

/// What a thief of the key makes of it: a certificate for these names.
struct Forged {
    directory: tempfile::TempDir,
}

impl Forged {
    fn by(world: &World, change: impl FnOnce(&mut CertificateParams), names: &[&str]) -> Self {
        let stolen = fs::read_to_string(world.state().join("ca-key.pem")).expect("a key");
        let key = KeyPair::from_pem(&stolen).expect("the key");
        let signer = stolen.split_inclusive("-----END CERTIFICATE-----\n").next();
        let (_, signer) = signer
            .expect("a block")
            .split_once("PRIVATE KEY-----\n-----B")
            .expect("two");
        let signer = format!("-----B{signer}");
        let read = CertificateDer::from_pem_slice(signer.as_bytes()).expect("PEM");
        let read = Certificate::from_der(&read).expect("the signer's certificate");
        let subject = read.tbs_certificate().subject().to_string();
        let common_name = subject.strip_prefix("CN=").expect("a common name");
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = Default::default();
        issuer
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let issuer = Issuer::new(issuer, key);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).expect("names");
        leaf.use_authority_key_identifier_extension = true;
        change(&mut leaf);
        let leaf_key = KeyPair::generate().expect("a key");
        let leaf = leaf.signed_by(&leaf_key, &issuer).expect("signed").pem();
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, content: String| {
            fs::write(directory.path().join(name), content).expect("written");
        };
        write("chain.pem", format!("{leaf}{signer}"));
        write("leaf.pem", leaf);
        write("signer.pem", signer);
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn path_prints_the_path_alone_and_show_says_what_is_there() {
    let world = World::new();
    let output = world.run(&["ca", "show"]);
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert!(
        said.contains("there is no certificate authority for these hosts in")
            && said.contains("ca path"),
        "{said}"
    );
    assert!(!world.state().exists(), "a look makes nothing");

    let path = path(&world);
    assert_eq!(path, world.state().join("ca.pem"));
    for name in ["ca.pem", "ca-key.pem"] {
        let metadata = fs::metadata(world.state().join(name)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let shown = shown(&world);
    assert!(
        fact(&shown, "subject").starts_with("CN=lucid-proxy on this machine "),
        "{shown}"
    );
    assert_eq!(
        fact(&shown, "hosts"),
        "api.lucid.co, api.lucid.app, and names below"
    );
    assert_eq!(fact(&shown, "state"), "in use");
    assert_eq!(fact(&shown, "certificate"), path.display().to_string());
    assert!(fact(&shown, "until").contains("(364 days left)"), "{shown}");
    if has("openssl", &["version"]) {
        let path = path.to_str().expect("text");
        let output = openssl(&["x509", "-in", path, "-noout", "-fingerprint", "-sha256"]);
        let expected = fact(&shown, "fingerprint");
        let expected = expected.strip_prefix("SHA-256 ").expect("its kind");
        assert!(
            printed(&output).trim_end().ends_with(expected),
            "{}",
            printed(&output)
        );
    }
}

#[test]
fn renew_makes_another_and_says_what_it_does_not_do() {
    let world = World::new();
    let path = path(&world);
    let before = fs::read(&path).expect("there");
    let output = world.run(&["ca", "renew"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(
        errors(&output).contains("a running serve takes it over"),
        "{}",
        errors(&output)
    );
    assert_eq!(printed(&output), shown(&world));
    assert_ne!(fs::read(&path).expect("there"), before);
}

#[test]
fn what_is_wrong_with_the_files_is_told_with_what_to_do() {
    let mut world = World::new();
    let path_before = path(&world);
    let key = world.state().join("ca-key.pem");
    let whole = fs::read(&key).expect("there");
    let certificate = fs::read(&path_before).expect("there");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    for command in ["path", "show"] {
        let output = world.run(&["ca", command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            errors(&output).contains("run: chmod 600"),
            "{}",
            errors(&output)
        );
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");

    // Other hosts have another one.
    world.tables = "[intercept]\nhosts = [\"other.example\"]".to_owned();
    let output = world.run(&["ca", "show"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("no certificate authority for these hosts"),
        "{}",
        errors(&output)
    );
    assert_ne!(path(&world), path_before);
    world.tables.clear();
    assert_eq!(
        fact(&shown(&world), "state"),
        "in use",
        "a positive control"
    );

    fs::write(&key, &whole[..whole.len() / 2]).expect("written");
    let output = world.run(&["ca", "show"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("is damaged"),
        "{}",
        errors(&output)
    );
    let output = world.run(&["ca", "path"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(
        errors(&output).contains("ca-key.pem.damaged"),
        "{}",
        errors(&output)
    );
    assert!(printed(&output).ends_with("ca.pem\n"));
    let kept = fs::read(world.state().join("ca-key.pem.damaged")).expect("kept");
    assert_eq!(kept, &whole[..whole.len() / 2]);
    assert_ne!(fs::read(&path_before).expect("there"), certificate);
}

#[test]
fn processes_that_start_at_once_print_the_same() {
    let world = World::new();
    world.configure();
    let start = || {
        let mut command = world.command(&["ca", "path"]);
        command.stdout(std::process::Stdio::null());
        command.spawn().expect("it runs")
    };
    let started: Vec<_> = (0..6).map(|_| start()).collect();
    for mut child in started {
        assert!(child.wait().expect("it ends").success());
    }
    let subjects: BTreeSet<_> = (0..2).map(|_| fact(&shown(&world), "subject")).collect();
    assert_eq!(subjects.len(), 1);
    let pem = fs::read_to_string(world.state().join("ca.pem")).expect("there");
    let key = fs::read_to_string(world.state().join("ca-key.pem")).expect("there");
    assert!(key.ends_with(&pem), "the certificate is that of the key");
    let left = fs::read_dir(world.state()).expect("a directory").count();
    assert_eq!(left, 3, "no drafts");
}

/// Whether OpenSSL takes this certificate for a web server's of this name.
fn openssl_verifies(authority: &Path, forged: &Forged, purpose: &str) -> Result<(), String> {
    let output = Command::new("openssl")
        .args([
            "verify",
            "-no-CApath",
            "-no-CAstore",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
        ])
        .arg(authority)
        .arg("-untrusted")
        .args([forged.path("signer.pem"), forged.path("leaf.pem")])
        .output()
        .expect("openssl runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}{}", printed(&output), errors(&output))),
    }
}

/// Whether GnuTLS takes it for one that the authority vouches for.
fn gnutls_verifies(authority: &Path, forged: &Forged, purpose: &str) -> bool {
    let output = Command::new("certtool")
        .args([
            "--verify",
            "--verify-purpose",
            purpose,
            "--load-ca-certificate",
        ])
        .arg(authority)
        .arg("--infile")
        .arg(forged.path("chain.pem"))
        .output()
        .expect("certtool runs");
    output.status.success()
}

const CODE: &str = "1.3.6.1.5.5.7.3.3";
const SERVER: &str = "1.3.6.1.5.5.7.3.1";

fn for_servers(leaf: &mut CertificateParams) {
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
}

#[test]
fn s09_even_with_the_stolen_key_no_other_host_can_be_vouched_for() {
    if !has("openssl", &["version"]) {
        return;
    }
    let world = World::new();
    let authority = path(&world);
    let gnutls = has("certtool", &["--version"]);
    for good in [&HOSTS[..1], &HOSTS[1..], &HOSTS] {
        let forged = Forged::by(&world, for_servers, good);
        openssl_verifies(&authority, &forged, "sslserver").expect("a positive control");
        assert!(
            !gnutls || gnutls_verifies(&authority, &forged, SERVER),
            "{good:?}"
        );
    }
    for bad in [
        &["lucid.co"][..],
        &["example.com"],
        &["notapi.lucid.co"],
        &["api.lucid.co", "example.com"],
        &["127.0.0.1"],
        &["::1"],
        &["api.lucid.co", "10.0.0.1"],
    ] {
        let forged = Forged::by(&world, for_servers, bad);
        let verified = openssl_verifies(&authority, &forged, "sslserver");
        let error = verified.expect_err("another host");
        let violated = error.contains("permitted subtree violation")
            || error.contains("excluded subtree violation");
        assert!(violated, "{bad:?}: {error}");
        assert!(
            !gnutls || !gnutls_verifies(&authority, &forged, SERVER),
            "{bad:?}"
        );
    }
}

#[test]
fn s09_even_with_the_stolen_key_nothing_but_a_web_server_can_be_vouched_for() {
    if !has("openssl", &["version"]) {
        return;
    }
    let world = World::new();
    let authority = path(&world);
    let for_code = |leaf: &mut CertificateParams| {
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
        leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    };
    let forged = Forged::by(&world, for_code, &[]);
    let error = openssl_verifies(&authority, &forged, "codesign").expect_err("a program");
    assert!(error.contains("purpose"), "{error}");
    openssl_verifies(&authority, &forged, "any").expect("a positive control");
    if has("certtool", &["--version"]) {
        assert!(!gnutls_verifies(&authority, &forged, CODE));
    }
    let text = openssl(&[
        "x509",
        "-in",
        authority.to_str().expect("text"),
        "-noout",
        "-text",
    ]);
    let text = printed(&text);
    for expected in [
        "CA:TRUE, pathlen:1",
        "X509v3 Name Constraints: critical",
        "X509v3 Basic Constraints: critical",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// Serves TLS for one host with certificates of this authority, as often as somebody connects, and answers nothing.
fn tls_server(authority: &Arc<Authority>, host: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let authority = authority.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let acceptor = authority.acceptor(host).expect("an acceptor");
            let mut connection = rustls::ServerConnection::new(acceptor).expect("a connection");
            let mut stream = stream.expect("accepted");
            // Whoever does not like what it sees has left.
            let _ = connection.complete_io(&mut stream);
            connection.send_close_notify();
            let _ = connection.complete_io(&mut stream);
        }
    });
    port
}

#[test]
fn openssl_and_gnutls_trust_what_a_host_shows_and_no_other_name_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let hosts = HOSTS.map(str::to_owned);
    let authority = Authority::open(directory.path(), &hosts, SystemTime::now()).expect("one");
    let port = tls_server(&authority, "api.lucid.co");
    let address = format!("127.0.0.1:{port}");
    let file = authority.path().to_str().expect("text");
    let asks_openssl = |server: &str, name: &str| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", server])
            .args([
                "-verify_hostname",
                name,
                "-verify_return_error",
                "-CAfile",
                file,
            ])
            .args(["-no-CApath", "-no-CAstore", "-brief"])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl runs");
        let said = format!("{}{}", printed(&output), errors(&output));
        said.contains("Verification: OK")
    };
    if has("openssl", &["version"]) {
        assert!(asks_openssl("api.lucid.co", "api.lucid.co"));
        assert!(!asks_openssl("api.lucid.co", "api.lucid.app"));
        assert!(!asks_openssl("api.lucid.app", "api.lucid.app"));
    }
    if has("gnutls-cli", &["--version"]) {
        let asks = |name: &str| {
            let output = Command::new("gnutls-cli")
                .args(["--x509cafile", file, "--port", &port.to_string()])
                .args([
                    "--sni-hostname",
                    "api.lucid.co",
                    "--verify-hostname",
                    name,
                    "127.0.0.1",
                ])
                .stdin(std::process::Stdio::null())
                .output()
                .expect("gnutls-cli runs");
            printed(&output).contains("The certificate is trusted")
        };
        assert!(asks("api.lucid.co"));
        assert!(!asks("api.lucid.app"));
    }
}

/// The certificates of a bundle, each as it stands there.
fn blocks(pem: &str) -> BTreeSet<String> {
    let blocks = pem.split("-----END CERTIFICATE-----");
    let blocks = blocks.filter_map(|block| block.split_once("-----BEGIN CERTIFICATE-----"));
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    blocks.map(|(_, base64)| plain(base64)).collect()
}

#[test]
fn what_programs_are_given_has_the_systems_certificates_and_ours() {
    let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let Ok(system) = fs::read_to_string(system) else {
        return missing("/etc/ssl/certs/ca-certificates.crt");
    };
    let directory = tempfile::tempdir().expect("a directory");
    let hosts = HOSTS.map(str::to_owned);
    let authority = Authority::open(directory.path(), &hosts, SystemTime::now()).expect("one");
    let mut trust = Trust::system_and(&authority);
    let bundle = String::from_utf8(trust.bundle()).expect("text");
    assert!(
        bundle.starts_with(authority.certificate_pem()),
        "ours is the first"
    );
    let (system, all) = (blocks(&system), blocks(&bundle));
    assert!(system.len() > 50, "{}", system.len());
    assert!(system.is_subset(&all));
    assert!(blocks(authority.certificate_pem()).is_subset(&all));
    assert_eq!(all.len(), trust.count());

    let company = KeyPair::generate().expect("a key");
    let mut named = CertificateParams::new(vec![]).expect("no names");
    named.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let company = named.self_signed(&company).expect("signed").pem();
    let file = directory.path().join("company.pem");
    fs::write(&file, format!("{company}{}", authority.certificate_pem())).expect("written");
    assert_eq!(trust.add_file(&file).expect("PEM"), 2);
    assert_eq!(trust.count(), all.len() + 1, "each once");
    let bundle = String::from_utf8(trust.bundle()).expect("text");
    assert!(blocks(&company).is_subset(&blocks(&bundle)));
    fs::write(
        &file,
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    trust.add_file(&file).expect_err("no PEM");
    trust
        .add_file(&directory.path().join("missing"))
        .expect_err("no file");
}

#[test]
fn java_takes_every_certificate_of_its_store_for_a_trusted_one() {
    if !has("keytool", &["-help"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hosts = HOSTS.map(str::to_owned);
    let authority = Authority::open(directory.path(), &hosts, SystemTime::now()).expect("one");
    let trust = Trust::system_and(&authority);
    let store = directory.path().join("trust.p12");
    fs::write(&store, trust.java()).expect("written");
    let list = |password: &[&str]| {
        let mut command = Command::new("keytool");
        command.args([
            "-J-Duser.language=en",
            "-list",
            "-storetype",
            "PKCS12",
            "-keystore",
        ]);
        let output = command
            .arg(&store)
            .args(password)
            .output()
            .expect("keytool runs");
        assert!(
            output.status.success(),
            "{}{}",
            printed(&output),
            errors(&output)
        );
        printed(&output)
    };
    for password in [&["-storepass", "changeit"][..], &["-storepass", "another"]] {
        let listed = list(password);
        let trusted = listed
            .lines()
            .filter(|line| line.contains("trustedCertEntry"));
        assert_eq!(trusted.count(), trust.count(), "{listed}");
        assert!(listed.contains("lucid-proxy, "), "{listed}");
        assert!(listed.contains(&authority.fingerprint()), "{listed}");
    }
}

/// A client that trusts what Java was told to trust, and says what came of it.
const JAVA: &str = r#"
import java.net.Socket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

public class Shake {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        for (int i = 1; i < arguments.length; i++) {
            var factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
            var tcp = new Socket("127.0.0.1", port);
            try (var socket = (SSLSocket) factory.createSocket(tcp, arguments[i], 443, true)) {
                var parameters = socket.getSSLParameters();
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                socket.setSSLParameters(parameters);
                socket.startHandshake();
                System.out.println(arguments[i] + " trusted");
            } catch (javax.net.ssl.SSLException error) {
                System.out.println(arguments[i] + " refused");
            }
        }
    }
}
"#;

#[test]
fn java_trusts_what_a_host_shows_by_that_store_without_a_password() {
    if !has("javac", &["-version"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hosts = HOSTS.map(str::to_owned);
    let authority = Authority::open(directory.path(), &hosts, SystemTime::now()).expect("one");
    let port = tls_server(&authority, "api.lucid.co").to_string();
    let source = directory.path().join("Shake.java");
    fs::write(&source, JAVA).expect("written");
    let store = directory.path().join("trust.p12");
    fs::write(&store, Trust::system_and(&authority).java()).expect("written");
    let shake = |options: &[String]| {
        let mut java = Command::new("java");
        java.args(options).arg(&source);
        let java = java.args([&port, "api.lucid.co", "api.lucid.app"]);
        let output = java.output().expect("java runs");
        assert!(output.status.success(), "{}", errors(&output));
        printed(&output)
    };
    let ours = [
        format!("-Djavax.net.ssl.trustStore={}", store.display()),
        "-Djavax.net.ssl.trustStoreType=PKCS12".to_owned(),
    ];
    let only_its_own = "api.lucid.co trusted\napi.lucid.app refused\n";
    assert_eq!(shake(&ours), only_its_own);
    let password = "-Djavax.net.ssl.trustStorePassword=any".to_owned();
    assert_eq!(shake(&[&ours[..], &[password]].concat()), only_its_own);
    let nobody = "api.lucid.co refused\napi.lucid.app refused\n";
    assert_eq!(shake(&[]), nobody, "a positive control");
}

#[test]
fn check_says_what_is_intercepted() {
    let mut world = World::new();
    let output = world.run(&["check"]);
    assert!(
        !printed(&output).contains("intercepts"),
        "{}",
        printed(&output)
    );
    world.tables = "[intercept]\nenabled = true".to_owned();
    let output = world.run(&["check"]);
    let line = fact(&printed(&output), "intercepts");
    assert_eq!(line, "api.lucid.co, api.lucid.app");
    world.tables += "\nallow_tunnels = [\"a.example:443\", \"b.example:80\"]";
    let output = world.run(&["check"]);
    let line = fact(&printed(&output), "intercepts");
    assert_eq!(
        line,
        "api.lucid.co, api.lucid.app; leads to a.example:443, b.example:80"
    );
    world.tables += "\nhosts = [\"127.0.0.1\"]";
    let output = world.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let said = errors(&output);
    assert!(
        said.contains("intercept.hosts: an address is not accepted"),
        "{said}"
    );
    assert!(said.contains("line 10, column 10: "), "{said}");
}

/// What Java's own judge of servers says about each chain.
const JUDGE: &str = r#"
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

public class Judge {
    public static void main(String[] arguments) throws Exception {
        var factory = CertificateFactory.getInstance("X.509");
        var store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setCertificateEntry("root", factory.generateCertificate(new FileInputStream(arguments[0])));
        var managers = TrustManagerFactory.getInstance("PKIX");
        managers.init(store);
        var judge = (X509TrustManager) managers.getTrustManagers()[0];
        for (int i = 1; i < arguments.length; i++) {
            var chain = factory.generateCertificates(new FileInputStream(arguments[i]));
            try {
                judge.checkServerTrusted(chain.toArray(new X509Certificate[0]), "ECDHE_ECDSA");
                System.out.println("trusted");
            } catch (CertificateException error) {
                System.out.println("refused");
            }
        }
    }
}
"#;

/// Java does not heed what a root says of names: what the signer's certificate says has to do.
#[test]
fn s09_java_refuses_what_a_stolen_key_signs_for_other_hosts_too() {
    if !has("javac", &["-version"]) {
        return;
    }
    let world = World::new();
    let authority = path(&world);
    let source = world.directory.path().join("Judge.java");
    fs::write(&source, JUDGE).expect("written");
    let names: [&[&str]; 4] = [&HOSTS, &["example.com"], &["127.0.0.1"], &["api.lucid.app"]];
    let forged = names.map(|names| Forged::by(&world, for_servers, names));
    let mut java = Command::new("java");
    java.arg(&source).arg(&authority);
    let output = java
        .args(forged.each_ref().map(|it| it.path("chain.pem")))
        .output();
    let output = output.expect("java runs");
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(printed(&output), "trusted\nrefused\nrefused\ntrusted\n");
}
