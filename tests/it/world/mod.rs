//! A small world for each test: the stand-in for Lucid, a directory for configuration and store, and the program.

pub(crate) mod bench;
pub(crate) mod client;
pub(crate) mod connect_proxy;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod http2_client;
pub(crate) mod login;
mod programs;
pub(crate) mod raw_upstream;
mod stored;
mod strict;
pub(crate) mod strict_upstream;
pub(crate) mod table;
pub(crate) mod tls;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lucid_proxy::sandbox::{Behaviour, CLIENT_ID, CLIENT_SECRET, Sandbox};
use rustix::process::{Pid, Signal, kill_process};

use raw_upstream::RawUpstream;

pub(crate) use client::{Client, Response, get, is_late};
pub(crate) use programs::{is_there, missing, python_with};

/// For what should happen at once. Generous, since machines are slow at times; nothing is measured with it.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The user without any rights on Linux.
pub(crate) const NOBODY: u32 = 65534;

/// The stand-in, a directory of its own, and what `proxy.toml` will say.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) directory: tempfile::TempDir,
    /// Where requests go: the stand-in unless changed.
    pub(crate) upstream: String,
    /// Where tokens are refreshed: the stand-in unless changed.
    pub(crate) token_origin: String,
    /// Lines of `proxy.toml` before the first table.
    pub(crate) top: String,
    /// Tables of `proxy.toml`, without `[upstream]` and `[credentials.default]`.
    pub(crate) tables: String,
    /// More keys of `[upstream]`.
    pub(crate) upstream_keys: String,
    /// Whether the test looks into the process, which takes root's capabilities otherwise.
    pub(crate) looked_into: bool,
}

impl World {
    /// With a stand-in that behaves as Lucid does, and no login yet.
    pub(crate) fn new() -> Self {
        Self::behaving(Behaviour::default())
    }

    /// With a stand-in that behaves so, and no login yet.
    pub(crate) fn behaving(behaviour: Behaviour) -> Self {
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), behaviour).expect("a stand-in");
        let (upstream, token_origin) = (sandbox.origin(), sandbox.origin());
        let directory = tempfile::tempdir().expect("a directory");
        let (top, tables, upstream_keys) = Default::default();
        Self {
            sandbox,
            directory,
            upstream,
            token_origin,
            top,
            tables,
            upstream_keys,
            looked_into: false,
        }
    }

    /// With a login in the store, as an import would have left it.
    pub(crate) fn logged_in() -> Self {
        let world = Self::new();
        world.log_in();
        world
    }

    /// The same in front of an upstream that the test writes byte by byte.
    pub(crate) fn before_raw_upstream() -> (RawUpstream, Self) {
        let upstream = RawUpstream::start();
        let mut world = Self::logged_in();
        world.upstream = upstream.origin();
        (upstream, world)
    }

    /// Stores a fresh grant, as an import would.
    pub(crate) fn log_in(&self) {
        let mut pair = serde_json::to_value(self.sandbox.approve()).expect("JSON");
        pair["generation"] = 1.into();
        self.write_store(pair.to_string().as_bytes());
    }

    /// Stores a fresh grant, as Lucid's example script does: it counts no generations.
    pub(crate) fn log_in_by_script(&self) {
        self.write_store(&serde_json::to_vec(&self.sandbox.approve()).expect("JSON"));
    }

    /// Puts `content` into the store's place, readable by its owner alone.
    pub(crate) fn write_store(&self, content: &[u8]) {
        fs::create_dir_all(self.state()).expect("a directory");
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.store());
        std::io::Write::write_all(&mut file.expect("a file"), content).expect("written");
    }

    /// Lets every user into its directory; whether they come so far.
    pub(crate) fn open_to_all(&self) -> bool {
        let directory = self.directory.path();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("chmod");
        let is_open = |path: &Path| {
            let metadata = fs::metadata(path).expect("it is there");
            metadata.permissions().mode() & 0o001 != 0
        };
        let is_open = directory.ancestors().all(is_open);
        if !is_open {
            missing("a directory for temporary files that every user may enter");
        }
        is_open
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.state().join("token_info.json")
    }

    /// The store's content.
    pub(crate) fn stored(&self) -> serde_json::Value {
        let content = fs::read(self.store()).expect("a store");
        serde_json::from_slice(&content).expect("JSON in the store")
    }

    /// Writes `proxy.toml` and returns its path.
    pub(crate) fn configure(&self) -> PathBuf {
        let text = format!(
            "{}\n[upstream]\nurl = \"{}\"\n{}\n[credentials.default]\ntoken_url = \"{}/oauth2/token\"\n{}\n",
            self.top, self.upstream, self.upstream_keys, self.token_origin, self.tables
        );
        let path = self.directory.path().join("proxy.toml");
        fs::write(&path, text).expect("written");
        path
    }

    /// The program with these arguments, in this world and in no other environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lucid-proxy"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("STATE_DIRECTORY", self.state())
            .env("LUCID_CLIENT_ID", CLIENT_ID)
            .env("LUCID_CLIENT_SECRET", CLIENT_SECRET)
            .current_dir(self.directory.path())
            .args(arguments)
            .stdin(Stdio::null());
        if self.looked_into {
            command.env("LUCID_PROXY_ALLOW_DUMPS", "1");
        }
        command
    }

    /// The same as the user without any rights, who may write nothing but what is theirs. Only root can tell another
    /// user to run something; for anybody else it is as [`World::command`].
    pub(crate) fn command_as_nobody(&self, arguments: &[&str]) -> Command {
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755))
            .expect("chmod");
        // A copy, since the build directory need not be open to them. Made by another program: where this process had
        // the copy open for writing, a child of another test's could still have it open when it is to be run.
        let program = self.directory.path().join("lucid-proxy");
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_lucid-proxy"))
            .arg(&program)
            .status();
        assert!(copied.expect("cp").success());
        let like = self.command(arguments);
        let mut command = Command::new(program);
        command
            .env_clear()
            .current_dir(self.directory.path())
            .args(arguments)
            .stdin(Stdio::null());
        for (name, value) in like.get_envs() {
            command.env(name, value.expect("all of them are set"));
        }
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.configure();
        self.command(arguments).output().expect("the program runs")
    }

    /// Starts `serve` on a free port, with two workers.
    pub(crate) fn serve(&self) -> Serving {
        self.serve_with(|_| {})
    }

    /// Starts `serve` where this value of `listen` says.
    pub(crate) fn serve_on(&mut self, listen: &str) -> Serving {
        self.top = format!("listen = {listen}\n{}", self.top);
        self.configure();
        Serving::start(self.command(&["serve"]))
    }

    /// A connection to the unix socket `proxy.sock`.
    pub(crate) fn connect_unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.path().join("proxy.sock"));
        let stream = stream.expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream
    }

    /// Starts `serve` after `prepare` had its way with the command.
    pub(crate) fn serve_with(&self, prepare: impl FnOnce(&mut Command)) -> Serving {
        self.configure();
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        prepare(&mut command);
        Serving::start(command)
    }
}

/// A running `serve` or `sandbox`; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    /// Where the proxy says that it listens first.
    pub(crate) endpoint: String,
    /// The address in that; for a unix socket, one where nobody listens.
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    out: BufReader<std::process::ChildStdout>,
}

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Serving {
    /// Starts the command and waits until it says where it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let log = Arc::new(Log::default());
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let sink = log.clone();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|length| length > 0) {
                sink.text.lock().expect("whole").push_str(&line);
                sink.grown.notify_all();
                line.clear();
            }
        });
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("readable");
        let Some((endpoint, address)) = endpoint(&line) else {
            let _ = child.kill();
            let _ = reader.join();
            panic!(
                "no address in {line:?}; the log: {}",
                log.text.lock().expect("whole")
            );
        };
        Self {
            child,
            endpoint,
            address,
            log,
            reader: Some(reader),
            out,
        }
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("readable");
        line
    }

    /// What was logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.text.lock().expect("whole").clone()
    }

    /// Waits until the log has `text`.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + SOON;
        let mut log = self.log.text.lock().expect("whole");
        while !log.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {text:?} in the log: {log}");
            log = self.log.grown.wait_timeout(log, left).expect("whole").0;
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How many files of a directory the process has open, also those without a name.
    pub(crate) fn open_files(&self, directory: &Path) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        descriptors
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.starts_with(directory))
            .count()
    }

    /// How many files, sockets and the like the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        descriptors.expect("it runs").count()
    }

    /// Bytes of memory that the process has now; [`Serving::resident_at_most`] begins to count.
    pub(crate) fn resident_from_now_on(&self) -> u64 {
        // Resets the peak (proc_pid_clear_refs(5)).
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("it runs");
        self.resident("VmRSS:")
    }

    /// The most that the process has had since.
    pub(crate) fn resident_at_most(&self) -> u64 {
        self.resident("VmHWM:")
    }

    fn resident(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: Option<u64> = kibibytes.and_then(|number| number.parse().ok());
        kibibytes.expect("a number") << 10
    }

    /// Waits until something is so of which nobody tells.
    #[track_caller]
    pub(crate) fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !is_so(self) {
            assert!(
                Instant::now() < deadline,
                "not within {SOON:?}: {}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Sends a signal again and again until the process has ended.
    pub(crate) fn signal_until_it_ends(&mut self, signal: Signal) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                return status;
            }
            let _ = kill_process(self.pid(), signal);
            std::thread::yield_now();
        }
    }

    /// Waits until the process has ended; its log is whole then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it was started");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of the log");
        }
        status
    }

    /// Asks the process to end, waits for it, and returns its log.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }

    /// A connection to the proxy.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// `GET path` on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        get(self.address, path)
    }
}

/// What a line says where the proxy listens, and the address in it.
pub(crate) fn endpoint(line: &str) -> Option<(String, SocketAddr)> {
    let endpoint = line.strip_prefix("proxy ")?.trim();
    let (scheme, rest) = endpoint.split_once(':')?;
    let address = match scheme {
        "http" | "https" => rest.strip_prefix("//")?.parse().ok()?,
        "unix" => SocketAddr::from(([0, 0, 0, 0], 0)),
        _ => return None,
    };
    Some((endpoint.to_owned(), address))
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command wrote to standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command wrote to standard output.
pub(crate) fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether tests that need root for mounts can run; says so where they cannot.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: it needs root for a mount of its own");
    }
    root
}

/// A file system of its own, unmounted when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A tmpfs at `path` with these options.
    pub(crate) fn tmpfs(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "lucid-test"])
            .arg(path)
            .status();
        assert!(mounted.expect("mount").success());
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("chmod");
        Self(path.to_owned())
    }

    /// The file `from` in the place of the file `to`.
    pub(crate) fn bind(from: &Path, to: &Path) -> Self {
        let mut command = Command::new("mount");
        let mounted = command.arg("--bind").args([from, to]).status();
        assert!(mounted.expect("mount").success());
        Self(to.to_owned())
    }

    /// Mounts it again with other options.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mounted = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(mounted.expect("mount").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
