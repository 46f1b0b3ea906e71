//! Exit codes, signals, streams, the terminal, and what is left behind.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{Run, assert_code, state, with_usual_signals};
use crate::world::connect_proxy::ConnectProxy;
use crate::world::tls::TlsFront;
use crate::world::{World, errors, is_there, missing, printed, python_with};

#[test]
fn the_exit_code_is_the_programs() {
    let world = World::logged_in();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255)] {
        let output = world.exec_output(&["--", "sh", "-c", script]);
        assert_code(&output, code);
        assert_eq!((errors(&output), printed(&output)), Default::default());
    }
    assert!(world.left().is_empty(), "{:?}", world.left());
}

#[test]
fn the_signal_that_ends_the_program_ends_us_too() {
    let world = World::logged_in();
    for signal in [
        Signal::INT,
        Signal::TERM,
        Signal::KILL,
        Signal::PIPE,
        Signal::QUIT,
    ] {
        let script = format!("kill -{} $$", signal.as_raw());
        let output = world.exec_output(&["--", "sh", "-c", &script]);
        assert_eq!(output.status.signal(), Some(signal.as_raw()));
        assert!(!output.status.core_dumped(), "{signal:?}");
        assert_eq!((errors(&output), printed(&output)), Default::default());
    }
    assert!(world.left().is_empty(), "{:?}", world.left());
}

#[test]
fn an_interrupt_ends_the_script_that_runs_us() {
    let world = World::logged_in();
    let exec = world.exec(&["--", "sh", "-c", "echo ready; exec sleep 60"]);
    let mut command = Command::new("bash");
    let script = "\"$@\"; echo continued rc=$?";
    command.args(["-c", script, "bash"]).arg(exec.get_program());
    command.args(exec.get_args());
    command.current_dir(world.directory.path());
    for (name, value) in exec.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut run = Run::start(command);
    assert_eq!(run.line(), "ready");
    // As a terminal does it.
    kill_process_group(run.pid(), Signal::INT).expect("it runs");
    let (status, rest) = run.end();
    assert_eq!(
        (status.signal(), rest.as_str()),
        (Some(Signal::INT.as_raw()), "")
    );
    assert!(world.left().is_empty(), "{:?}", world.left());
}

#[test]
fn a_program_that_there_is_not_is_127_and_one_that_cannot_run_126() {
    let world = World::logged_in();
    let path = |name: &str| world.directory.path().join(name);
    let write = |name: &str, text: &str, mode| {
        fs::write(path(name), text).expect("written");
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    write("plain", "exit 3", 0o600);
    write("script", "exit 3", 0o700);
    write("orphan", "#!/nonexistent/interpreter\n", 0o700);
    for (program, code, said) in [
        ("nonexistent-program", 127, "there is no program"),
        ("./nonexistent", 127, "there is no program"),
        ("./plain", 126, "cannot run ./plain: Permission denied"),
        ("/", 126, "cannot run /"),
        ("./orphan", 126, "cannot run ./orphan"),
        // As execvp has it: the shell runs it.
        ("./script", 3, ""),
    ] {
        let output = world.exec_output(&["--", program]);
        assert_code(&output, code);
        assert!(errors(&output).contains(said), "{}", errors(&output));
    }
    assert_code(&world.exec_output(&[]), 2);
    assert_code(&world.exec_output(&["--"]), 2);
    assert_eq!(world.sandbox.counts().connections, 0);
    assert!(world.left().is_empty());
}

#[test]
fn t17_without_a_login_the_program_is_not_started() {
    let world = World::new();
    let script = ["--", "sh", "-c", "echo started"];
    let output = world.exec_output(&script);
    assert_code(&output, 77);
    assert_eq!(printed(&output), "");
    assert!(errors(&output).contains("lucid-proxy login"));
    assert!(world.left().is_empty());
    world.log_in();
    let output = world.exec_output(&script);
    assert_eq!(printed(&output), "started\n", "{}", errors(&output));
    // And a configuration that is not accepted is that, and nothing else.
    let mut wrong = World::logged_in();
    wrong.tables = "[nonsense]".to_owned();
    assert_code(&wrong.exec_output(&script), 78);
}

#[test]
fn streams_are_the_programs_own() {
    through_a_pipe(64 << 20);
}

#[test]
#[ignore = "long: 1 GiB"]
fn streams_of_a_gibibyte_are_the_programs_own() {
    through_a_pipe(1 << 30);
}

fn through_a_pipe(length: u64) {
    let world = World::logged_in();
    let mut run = Run::start(world.exec(&["--", "cat"]));
    let mut input = run.input.take().expect("piped");
    let writer = std::thread::spawn(move || {
        let block = [b'x'; 1 << 16];
        for _ in 0..length / (1 << 16) {
            input.write_all(&block).expect("it reads");
        }
    });
    let mut block = vec![0; 1 << 16];
    let mut count = 0;
    loop {
        let read = run.out.read(&mut block).expect("it writes");
        if read == 0 {
            break;
        }
        assert!(block[..read].iter().all(|byte| *byte == b'x'));
        count += read as u64;
    }
    writer.join().expect("it was read");
    assert_eq!(count, length);
    assert!(run.end().0.success());
}

/// Prints the name of each signal that comes, at once, and ends with 5 at the end of its input.
const NAMES_SIGNALS: &str = "
import os, signal, sys
def name(number, _): os.write(1, signal.Signals(number).name.encode() + b'\\n')
for number in 'TERM HUP USR1 USR2 ALRM INT QUIT WINCH'.split():
    signal.signal(getattr(signal, 'SIG' + number), name)
os.write(1, b'ready\\n')
while os.read(0, 1): pass
sys.exit(5)
";

#[test]
fn signals_to_us_alone_reach_the_program() {
    let Some(python) = python_with(&["signal"]) else {
        return;
    };
    let world = World::logged_in();
    let mut run = Run::start(world.exec(&["--", &python, "-c", NAMES_SIGNALS]));
    assert_eq!(run.line(), "ready");
    for (signal, name) in [
        (Signal::TERM, "SIGTERM"),
        (Signal::HUP, "SIGHUP"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::ALARM, "SIGALRM"),
        // There is no terminal here that would have sent them.
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::WINCH, "SIGWINCH"),
    ] {
        run.signal(signal);
        assert_eq!(run.line(), name);
    }
    let (status, rest) = run.end();
    assert_eq!(
        (status.code(), rest.as_str()),
        (Some(5), ""),
        "each came once"
    );
    assert!(world.left().is_empty());
}

#[test]
fn a_program_that_ignores_sigterm_is_waited_for() {
    let world = World::logged_in();
    let mut run = Run::start(world.exec(&["--", "sh", "-c", "trap '' TERM; echo ready; cat"]));
    assert_eq!(run.line(), "ready");
    run.signal(Signal::TERM);
    run.say("still here");
    assert_eq!(run.line(), "still here");
    assert!(run.end().0.success());
}

#[test]
fn what_we_were_started_to_ignore_the_program_ignores_too() {
    let world = World::logged_in();
    let exec = world.exec(&["--", "sh", "-c", "echo $PPID; cat"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(exec.get_program())
        .args(exec.get_args())
        .current_dir(world.directory.path());
    for (name, value) in exec.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut run = Run::start(command);
    assert_eq!(run.line(), run.child.id().to_string(), "it is our child");
    run.signal(Signal::HUP);
    run.say("still here");
    assert_eq!(run.line(), "still here");
    assert!(run.end().0.success());
}

#[test]
fn a_stopped_program_stops_us_and_goes_on_with_us() {
    let world = World::logged_in();
    let mut run = Run::start(world.exec(&["--", "sh", "-c", "kill -TSTP $$; echo on; exit 3"]));
    wait_until(|| state(run.pid()) == Some('T'));
    run.signal(Signal::CONT);
    assert_eq!(run.line(), "on");
    assert_eq!(run.end().0.code(), Some(3));
}

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + crate::world::SOON;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it does not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_run_leaves_what_the_next_one_removes() {
    let world = World::logged_in();
    let script = "echo $$; cat; echo over";
    let mut killed = Run::start(world.exec(&["--", "sh", "-c", script]));
    killed.line();
    let of_killed = world.left();
    assert_eq!(of_killed.len(), 1);
    let directory = world.temporary().join(&of_killed[0]);
    let mode = fs::metadata(&directory)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    // While it lives, another leaves it alone.
    assert_code(&world.exec_output(&["--", "true"]), 0);
    assert_eq!(world.left(), of_killed);
    killed.signal(Signal::KILL);
    let status = killed.child.wait().expect("it was started");
    assert_eq!(status.signal(), Some(9));
    assert_eq!(world.left(), of_killed);
    assert_code(&world.exec_output(&["--", "true"]), 0);
    assert!(world.left().is_empty());
}

#[test]
fn what_a_program_leaves_in_the_background_is_not_waited_for() {
    let world = World::logged_in();
    let script = "sleep 60 > /dev/null 2>&1 & echo $!";
    let output = world.exec_output(&["--", "sh", "-c", script]);
    assert_code(&output, 0);
    let left = printed(&output).trim().parse().expect("a number");
    let left = Pid::from_raw(left).expect("a process");
    assert!(
        state(left).is_some_and(|state| state != 'Z'),
        "it is as without us"
    );
    kill_process(left, Signal::KILL).expect("it runs");
}

/// A program that has left a request in the background, which nobody answers, and has ended.
struct Left {
    run: Run,
    _asked: TcpStream,
}

/// `options` are curl's: whether it asks through a tunnel.
fn ended_with_a_request_under_way(world: &World, options: &str) -> Left {
    let host = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = host.local_addr().expect("an address");
    let script = format!(
        "curl -s --noproxy '' {options} --proxy $HTTPS_PROXY http://{address}/ > /dev/null 2>&1 & echo $$; read line; exit 3"
    );
    let exec = world.exec(&["--", "sh", "-c", &script]);
    let mut run = Run::heard(exec);
    let program = Pid::from_raw(run.line().parse().expect("a number")).expect("a process");
    let (mut asked, _) = host.accept().expect("a connection");
    assert_eq!(asked.read(&mut [0; 1]).expect("a request"), 1);
    run.say("end");
    wait_until(|| state(program).is_none());
    Left { run, _asked: asked }
}

impl Left {
    /// The exit code, and what was said of what is left.
    fn end(mut self) -> (Option<i32>, String) {
        let mut errors = self.run.child.stderr.take().expect("piped");
        let code = self.run.child.wait().expect("it was started").code();
        let mut said = String::new();
        errors.read_to_string(&mut said).expect("text");
        (code, said)
    }
}

const CUT: &str = "requests were still under way";

#[test]
fn a_request_that_is_left_behind_has_its_time_and_no_more() {
    let mut world = World::logged_in();
    world.tables = "[timeouts]\ndrain = \"200ms\"".to_owned();
    let (code, said) = ended_with_a_request_under_way(&world, "").end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(CUT), "{said}");
}

#[test]
fn a_signal_ends_the_wait_for_requests_that_are_left_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let world = World::logged_in();
        let left = ended_with_a_request_under_way(&world, "");
        left.run.signal(signal);
        let (code, said) = left.end();
        assert_eq!((code, said.as_str()), (Some(3), ""), "{signal:?}");
    }
}

#[test]
fn a_tunnel_that_is_left_behind_is_not_waited_for() {
    let world = World::logged_in();
    let (code, said) = ended_with_a_request_under_way(&world, "--proxytunnel").end();
    assert_eq!((code, said.as_str()), (Some(3), ""));
}

#[test]
fn s06_the_program_gets_no_secret_and_limits_as_they_were() {
    let world = World::logged_in();
    let script = "env; echo files=$(ulimit -Sn); tr '\\0' ' ' < /proc/$$/cmdline; tr '\\0' ' ' < /proc/$PPID/cmdline";
    let outside = "ulimit -Sn 123; exec \"$@\"";
    let exec = world.exec(&["--", "sh", "-c", script]);
    let mut command = Command::new("sh");
    command.args(["-c", outside, "sh"]);
    command.arg(exec.get_program()).args(exec.get_args());
    command.env_clear().current_dir(world.directory.path());
    for (name, value) in exec.get_envs() {
        command.env(name, value.expect("all of them are set"));
    }
    command.env("LUCID_REFRESH_TOKEN", "refresh-marked");
    command.env("KEPT", "a value");
    command.env("NO_PROXY", "intranet,.lucid.co");
    let output = command.output().expect("it runs");
    assert_code(&output, 0);
    let seen = printed(&output);
    for line in [
        "KEPT=a value",
        "NO_PROXY=intranet,localhost,127.0.0.1,::1",
        "no_proxy=intranet,localhost,127.0.0.1,::1",
        "files=123",
        "NODE_USE_ENV_PROXY=1",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
    }
    for secret in [
        "LUCID_CLIENT_SECRET",
        "LUCID_REFRESH_TOKEN",
        "refresh-marked",
    ] {
        assert!(!seen.contains(secret), "{secret}: {seen}");
    }
    let stored = world.stored();
    for token in ["access_token", "refresh_token"] {
        assert!(!seen.contains(stored[token].as_str().expect("text")));
    }
    let proxy = seen
        .lines()
        .find_map(|line| line.strip_prefix("HTTPS_PROXY="));
    let (login, _) = proxy.expect("set").rsplit_once('@').expect("a login");
    let key = login.strip_prefix("http://exec:").expect("a name");
    assert!(key.len() > 40, "{key}");
    let arguments = seen.lines().last().expect("a line");
    assert!(arguments.contains("exec"), "{arguments}");
    assert!(!arguments.contains(key), "no secret in {arguments}");
}

#[test]
fn t02_our_own_commands_in_a_program_use_the_login_and_not_the_interception() {
    let world = World::logged_in();
    let program = env!("CARGO_BIN_EXE_lucid-proxy");
    // Lucid's own name, behind a company's proxy that was there before.
    let front = TlsFront::named("api.lucid.co", world.sandbox.address());
    let company = ConnectProxy::start(front.address);
    let origin = Some("https://api.lucid.co".to_owned());
    world
        .sandbox
        .change(|behaviour| behaviour.public_origin = origin);
    let path = |name: &str| world.directory.path().join(name);
    fs::write(path("ca.pem"), &front.certificate).expect("written");
    fs::write(path("inner.toml"), "[upstream]\nca_file = \"ca.pem\"\n").expect("written");
    let inner = format!(
        "LUCID_CLIENT_ID=cid-sandbox LUCID_CLIENT_SECRET=sec-sandbox {program} -c inner.toml refresh --yes"
    );
    let by_company = |script: &str| {
        let mut exec = world.exec(&["--", "sh", "-c", script]);
        exec.env("HTTPS_PROXY", company.url(""));
        exec.output().expect("it runs")
    };
    let output = by_company(&format!("unset LUCID_PROXY_BEFORE; {inner}"));
    assert_code(&output, 1);
    assert_eq!(world.sandbox.counts().rotations, 0);
    assert_code(&by_company(&inner), 0);
    assert_eq!(world.sandbox.counts().rotations, 1);
    assert_eq!(world.stored()["generation"], 2);
    // The same is told without a request.
    let script = format!(
        "cd $TMPDIR; export LUCID_CLIENT_ID=a LUCID_CLIENT_SECRET=b; {program} check; unset LUCID_PROXY_BEFORE; {program} check"
    );
    let output = world.exec_output(&["--sandbox", "--", "sh", "-c", &script]);
    assert_code(&output, 0);
    let ways: Vec<bool> = printed(&output)
        .lines()
        .filter(|line| line.starts_with("upstream "))
        .map(|line| line.contains("through the proxy"))
        .collect();
    assert_eq!(ways, [false, true], "{}", printed(&output));
    // And one in the other.
    let output = world.exec_output(&[
        "--",
        program,
        "exec",
        "--sandbox",
        "--",
        "sh",
        "-c",
        "exit 4",
    ]);
    assert_code(&output, 4);
}

#[test]
fn f11_a_login_stays_where_a_refresh_is_led_to_a_proxy_of_ours_by_whatever_it_is() {
    let world = World::logged_in();
    let before = world.stored();
    // Neither the mark nor anything else tells it, but what the proxy answers.
    let script = format!(
        "cd $TMPDIR && env -i STATE_DIRECTORY={} LUCID_CLIENT_ID=cid-sandbox LUCID_CLIENT_SECRET=sec-sandbox HTTPS_PROXY=$HTTPS_PROXY SSL_CERT_FILE=$SSL_CERT_FILE {} refresh --yes; echo $?",
        world.state().display(),
        env!("CARGO_BIN_EXE_lucid-proxy"),
    );
    let output = world.exec_output(&["--sandbox", "--", "sh", "-c", &script]);
    let said = errors(&output);
    assert_eq!(printed(&output), "1\n", "{said}");
    let misled = "was not reached: a lucid-proxy answered";
    assert!(said.contains(misled), "{said}");
    let after = world.stored();
    for field in ["access_token", "refresh_token", "generation"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["last_error"].is_object() && after["intent"].is_null());
}

#[test]
fn the_terminal_and_its_keys_are_the_programs() {
    if !is_there("setsid", &["--version"]) {
        return missing("setsid of util-linux");
    }
    let world = World::logged_in();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let name = name.into_string().expect("UTF-8");
    let theirs = File::options().read(true).write(true).open(name);
    let theirs = theirs.expect("the other end");
    let script =
        "trap 'echo got; exit 5' INT; [ -t 0 ] && [ -t 1 ] && echo terminal; read line; echo never";
    let exec = with_usual_signals(&world.exec(&["--", "bash", "-c", script]));
    let mut command = Command::new("setsid");
    command
        .arg("--ctty")
        .arg(exec.get_program())
        .args(exec.get_args());
    command.env_clear().current_dir(world.directory.path());
    for (name, value) in exec.get_envs() {
        command.env(name, value.expect("all of them are set"));
    }
    let handle = || Stdio::from(theirs.try_clone().expect("a handle"));
    command.stdin(handle()).stdout(handle()).stderr(handle());
    let mut child = command.spawn().expect("it runs");
    drop((theirs, command));
    let mut ours = File::from(ours);
    let mut seen = String::new();
    let mut bytes = [0; 1024];
    while !seen.contains("terminal") {
        let length = ours.read(&mut bytes).expect("it is open");
        seen += &String::from_utf8_lossy(&bytes[..length]);
    }
    ours.write_all(b"\x03").expect("written");
    let status = child.wait().expect("it was started");
    // The end of a terminal is an error.
    while let Ok(length @ 1..) = ours.read(&mut bytes) {
        seen += &String::from_utf8_lossy(&bytes[..length]);
    }
    assert_eq!(status.code(), Some(5), "{seen}");
    assert_eq!(seen.matches("got").count(), 1, "{seen}");
    assert!(!seen.contains("never"), "{seen}");
}
