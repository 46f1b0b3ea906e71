//! What there is in `tests/unmodified`, how it is built where it must be, and how it is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::real_clients::{installed, node_with_packages, python};
use crate::world::{errors, is_there, missing};

/// What the programs have written into them.
const LUCID: &str = "https://api.lucid.co";

/// What runs a program of this name, from `directory` if it must be built first; where it is installed. With a base, the
/// program has that in the place of Lucid's.
pub(super) fn program(name: &str, directory: &Path, base: Option<&str>) -> Option<Command> {
    let program = |mut command: Command, file: &str| {
        command.arg(source(file, directory, base));
        command
    };
    let script = |needed: &str, version: &str, runs: &str, file: &str| {
        installed(needed, version, runs).map(|command| program(command, file))
    };
    // The check needs the module.
    let with_module = |runs: &str, check: &[&str], file: &str| {
        if is_there(runs, check) {
            return Some(program(Command::new(runs), file));
        }
        missing(&format!("what {runs} {} needs", check.join(" ")));
        None
    };
    let command = match name {
        "curl" => script("curl", "--version", "sh", "curl.sh")?,
        "wget" => script("wget", "--version", "sh", "wget.sh")?,
        "HTTPie" => script("http", "--version", "sh", "httpie.sh")?,
        "git" => script("git", "--version", "sh", "git.sh")?,
        "Python urllib" => script("python3", "--version", "python3", "with_urllib.py")?,
        "Python requests" => program(python(&["requests"])?, "with_requests.py"),
        "Python httpx" => program(python(&["httpx"])?, "with_httpx.py"),
        "Python httpx with HTTP/2" => {
            let mut command = program(python(&["httpx", "h2"])?, "with_httpx.py");
            // In the clear, httpx speaks HTTP/1.1 alone.
            command.args(base.is_none().then_some("2"));
            command
        }
        "Python aiohttp" => program(python(&["aiohttp"])?, "with_aiohttp.py"),
        "Node fetch" => script("node", "--version", "node", "fetch.mjs")?,
        "Node https" => script("node", "--version", "node", "https.mjs")?,
        "Node axios" => program(node_with_packages()?, "with_axios.mjs"),
        "Java HttpClient" => java("WithHttpClient", directory, base)?,
        "Java HttpURLConnection" => java("WithHttpURLConnection", directory, base)?,
        "Ruby net/http" => script("ruby", "--version", "ruby", "net_http.rb")?,
        "Perl LWP" => with_module("perl", &["-MLWP::Protocol::https", "-e", "1"], "lwp.pl")?,
        "PHP curl" => with_module("php", &["-r", "curl_init();"], "with_curl.php")?,
        "Go net/http" => go(directory, base)?,
        "C libcurl with OpenSSL" => c("curl", directory, base)?,
        // Its library is there without a name to link with, and it has the same interface.
        "C libcurl with GnuTLS" => c(":libcurl-gnutls.so.4", directory, base)?,
        _ => panic!("no program {name}"),
    };
    Some(command)
}

/// A program's text: as it stands, or, with a base in it, a copy in `directory`.
pub(super) fn source(file: &str, directory: &Path, base: Option<&str>) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/unmodified")
        .join(file);
    let text = fs::read_to_string(&path).expect("a program");
    assert!(text.contains(LUCID), "{file} has it written into it");
    let Some(base) = base else {
        return path;
    };
    let copy = directory.join(file);
    // Node has a module for each scheme.
    let text = text.replace(LUCID, base).replace("node:https", "node:http");
    fs::write(&copy, text).expect("written");
    copy
}

fn java(class: &str, directory: &Path, base: Option<&str>) -> Option<Command> {
    installed("javac", "-version", "java")?;
    let mut compiler = Command::new("javac");
    let source = source(&format!("{class}.java"), directory, base);
    built(compiler.arg("-d").arg(directory).arg(source));
    let mut command = Command::new("java");
    command.arg("-cp").arg(directory).arg(class);
    Some(command)
}

fn go(directory: &Path, base: Option<&str>) -> Option<Command> {
    installed("go", "version", "go")?;
    let binary = directory.join("net_http");
    let mut compiler = Command::new("go");
    compiler
        .args(["build", "-o"])
        .arg(&binary)
        .arg(source("net_http.go", directory, base))
        // The compiled library is kept between runs.
        .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"))
        // It needs nothing that would have to be fetched.
        .env("GOPROXY", "off")
        .env("GO111MODULE", "off");
    built(&mut compiler);
    Some(Command::new(binary))
}

fn c(library: &str, directory: &Path, base: Option<&str>) -> Option<Command> {
    if !is_there("cc", &["--version"]) {
        missing("a compiler of C");
        return None;
    }
    let binary = directory.join("with_libcurl");
    let mut compiler = Command::new("cc");
    compiler
        .arg("-o")
        .arg(&binary)
        .arg(source("with_libcurl.c", directory, base))
        .arg(format!("-l{library}"));
    let output = compiler.output().expect("a compiler");
    if !output.status.success() {
        missing(&format!(
            "lib{library} with its headers: {}",
            errors(&output)
        ));
        return None;
    }
    Some(Command::new(binary))
}

#[track_caller]
fn built(compiler: &mut Command) {
    let output = compiler.output().expect("a compiler");
    assert!(output.status.success(), "{compiler:?}: {}", errors(&output));
}
