//! Stores as real machines have them: on read-only mounts, mounted alone, of another user, locked by a process that
//! stands still.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Instant;

use lucid_proxy::token::store::Store;
use rustix::process::Signal;

use crate::world::{Client, Mount, NOBODY, SOON, Serving, World, errors, is_root};

const PROFILE: &str = "/users/me/profile";

#[track_caller]
fn assert_ok(serving: &Serving) {
    let response = serving.get(PROFILE);
    assert_eq!(
        response.status,
        200,
        "{}\n{}",
        response.text(),
        serving.log()
    );
}

/// Lucid's 401 passes, and `Proxy-Status` says why no new token was made.
#[track_caller]
fn assert_passed_401(serving: &Serving, reason: &str) {
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (401, "unauthorized"),
        "{}",
        serving.log()
    );
    let status = response.header("proxy-status").expect("it says why");
    assert!(status.contains(reason), "{reason}: {status}");
}

/// The state directory as a mount of its own, read-only from its first moment: one in which the proxy has a file open could
/// not become so.
fn read_only(world: &World) -> Mount {
    let elsewhere = world.directory.path().join("read-only");
    fs::create_dir(&elsewhere).expect("a directory");
    let beside = Mount::bind(&world.state(), &elsewhere);
    beside.remount("ro,bind");
    Mount::bind(&elsewhere, &world.state())
}

#[test]
fn t03_on_a_read_only_bind_mount_nothing_is_posted() {
    if !is_root() {
        return;
    }
    let world = World::expired();
    let mount = read_only(&world);
    let serving = world.serve();
    serving.wait_for_log("no rotation is possible");
    let response = serving.get(PROFILE);
    assert_eq!(
        (response.status, response.code().as_str()),
        (503, "storeUnwritable")
    );
    assert!(
        response.text().contains("must be writable")
            && response.text().contains("Read-only file system"),
        "{}",
        response.text()
    );
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.api_requests), (0, 0));
    mount.remount("rw,bind");
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t03_a_store_that_becomes_read_only_stops_rotations_until_it_is_writable() {
    if !is_root() {
        return;
    }
    let world = World::logged_in();
    let serving = world.serve();
    serving.wait_for_log("grant ready");
    // The mount on which the proxy has files open cannot become read-only, but one that is can take its place.
    let mount = read_only(&world);
    assert_ok(&serving);
    world.sandbox.expire_access_tokens();
    assert_passed_401(&serving, "Read-only file system");
    assert_eq!(world.sandbox.counts().token_posts, 0);
    mount.remount("rw,bind");
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

#[test]
fn t03_a_store_that_is_mounted_alone_is_not_posted_from_and_the_directory_is_named() {
    if !is_root() {
        return;
    }
    let world = World::logged_in();
    let elsewhere = world.directory.path().join("elsewhere.json");
    fs::rename(world.store(), &elsewhere).expect("moved");
    fs::write(world.store(), "").expect("a place for the mount");
    let mount = Mount::bind(&elsewhere, &world.store());
    let before = fs::read(world.store()).expect("a store");
    let serving = world.serve();
    serving.wait_for_log("no rotation is possible");
    let help = format!(
        "token_info.json is a mount of its own and cannot be replaced; mount its directory {} instead",
        world.state().display()
    );
    assert!(serving.log().contains(&help), "{}", serving.log());
    assert_ok(&serving);
    world.sandbox.expire_access_tokens();
    assert_passed_401(&serving, "is a mount of its own");
    assert_eq!(world.sandbox.counts().token_posts, 0);
    assert_eq!(fs::read(world.store()).expect("a store"), before);
    let left: Vec<_> = fs::read_dir(world.state())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    drop(serving);
    // An import says so before anything is replaced.
    let imported = world.run(&["import", "--replace", elsewhere.to_str().expect("UTF-8")]);
    assert_eq!(imported.status.code(), Some(1));
    assert!(errors(&imported).contains(&help), "{}", errors(&imported));
    drop(mount);
}

#[test]
fn a_store_of_another_user_stops_the_start() {
    if !is_root() {
        return;
    }
    let world = World::logged_in();
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o755)).expect("chmod");
    world.configure();
    let output = world
        .command_as_nobody(&["serve", "--listen", "127.0.0.1:0"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let errors = errors(&output);
    assert!(
        errors.contains("token_info.json; check its owner and mode")
            && errors.contains("Permission denied"),
        "{errors}"
    );
    assert!(!errors.contains("oauth2-"), "{errors}");
}

#[test]
fn t03_in_a_directory_of_another_user_nothing_is_posted() {
    if !is_root() {
        return;
    }
    let world = World::logged_in();
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o755)).expect("chmod");
    chown(world.store(), Some(NOBODY), Some(NOBODY)).expect("chown");
    world.configure();
    let serving = Serving::start(world.command_as_nobody(&["serve", "--listen", "127.0.0.1:0"]));
    serving.wait_for_log("no rotation is possible");
    assert_ok(&serving);
    world.sandbox.expire_access_tokens();
    assert_passed_401(&serving, "Permission denied");
    assert_eq!(world.sandbox.counts().token_posts, 0);
    // What the message asks for.
    chown(world.state(), Some(NOBODY), Some(NOBODY)).expect("chown");
    serving.wait_for_log("token rotated");
    assert_ok(&serving);
    assert_eq!(world.sandbox.counts().token_posts, 1);
}

/// Two proxies on one store; the second stands still in the middle of a rotation, with its client.
struct Stopped {
    world: World,
    first: Serving,
    second: Serving,
    client: Client,
}

impl Stopped {
    fn new(tables: &str) -> Self {
        let mut world = World::expired();
        world.tables = tables.to_owned();
        world
            .sandbox
            .change(|behaviour| behaviour.hold_token_endpoint = true);
        let (first, second) = (world.serve(), world.serve());
        let mut client = second.connect();
        client.request(&format!("GET {PROFILE}"), &[], b"");
        world
            .sandbox
            .wait_until(SOON, |counts| counts.token_posts == 1);
        second.signal(Signal::STOP);
        Self {
            world,
            first,
            second,
            client,
        }
    }

    /// Lets the second go on; afterwards both work, and there was one POST.
    fn go_on(mut self) {
        self.world
            .sandbox
            .change(|behaviour| behaviour.hold_token_endpoint = false);
        self.second.signal(Signal::CONT);
        self.second.wait_for_log("token rotated");
        self.first.wait_for_log("took over a newer token");
        assert_ok(&self.first);
        assert_ok(&self.second);
        // It had waited all the time, or was told to come again.
        let response = self.client.response();
        assert!([200, 503].contains(&response.status), "{response:?}");
        let counts = self.world.sandbox.counts();
        assert_eq!((counts.token_posts, counts.rotations), (1, 1));
        self.first.stop();
        self.second.stop();
    }
}

#[test]
fn t02_a_process_that_stands_still_with_the_lock_makes_the_others_wait_and_post_nothing() {
    let stopped = Stopped::new("[timeouts]\ntoken = \"300ms\"\n");
    for _ in 0..2 {
        let response = stopped.first.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "tokenUnavailable"),
            "{}",
            stopped.first.log()
        );
        assert!(
            response.header("retry-after").is_some(),
            "it may be asked again: {response:?}"
        );
    }
    let counts = stopped.world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.api_requests), (1, 0));
    // Who holds it can be asked for.
    let holder = Store::new(stopped.world.store()).lock_holder();
    let number = stopped.second.pid().as_raw_nonzero().get();
    assert_eq!(
        holder.expect("lockable").and_then(|holder| holder.process),
        u32::try_from(number).ok()
    );
    stopped.go_on();
}

#[test]
#[ignore = "takes half a minute: as long as a lock is waited for"]
fn t02_a_process_that_keeps_the_lock_for_too_long_is_named() {
    let stopped = Stopped::new("[timeouts]\ntoken = \"300ms\"\n");
    let expected = format!(
        "process {} holds {}",
        stopped.second.pid().as_raw_nonzero(),
        Store::new(stopped.world.store()).lock_path().display()
    );
    let deadline = Instant::now() + 2 * SOON;
    loop {
        let response = stopped.first.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "tokenUnavailable")
        );
        assert!(response.header("retry-after").is_some(), "{response:?}");
        if response.text().contains(&expected) {
            break;
        }
        assert!(Instant::now() < deadline, "{}", response.text());
    }
    assert_eq!(stopped.world.sandbox.counts().token_posts, 1);
    stopped.go_on();
}

/// A proxy whose newest pair is in memory only, on a disk that is full; freed when the ballast goes.
fn unsaved(world: &World) -> Serving {
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = true);
    let serving = world.serve();
    let mut client = serving.connect();
    client.request(&format!("GET {PROFILE}"), &[], b"");
    world
        .sandbox
        .wait_until(SOON, |counts| counts.token_posts == 1);
    let filled = fs::write(world.state().join("ballast"), vec![0; 128 << 10]);
    filled.expect_err("the disk is full now");
    world
        .sandbox
        .change(|behaviour| behaviour.hold_token_endpoint = false);
    assert_eq!(client.response().status, 200, "{}", serving.log());
    serving.wait_for_log("kept in memory only");
    serving
}

#[test]
fn t07_who_joins_a_process_with_an_unsaved_pair_waits_for_it() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    world.tables = "[timeouts]\ntoken = \"300ms\"\n".to_owned();
    let _mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
    world.store_expired();
    let one = unsaved(&world);
    // The store shows a dead pair and a rotation without a known end.
    let other = world.serve();
    for _ in 0..2 {
        let response = other.get(PROFILE);
        assert_eq!(
            (response.status, response.code().as_str()),
            (503, "tokenUnavailable"),
            "{}",
            other.log()
        );
    }
    assert_ok(&one);
    let counts = world.sandbox.counts();
    assert_eq!((counts.token_posts, counts.introspections), (1, 0));
    fs::remove_file(world.state().join("ballast")).expect("removed");
    one.wait_for_log("the token is stored now");
    other.wait_for_log("took over a newer token");
    assert_ok(&other);
    assert_ok(&one);
    assert_eq!(world.sandbox.counts().token_posts, 1);
    assert_eq!(world.record().generation, Some(2));
    drop((one, other));
}

#[test]
fn t07_an_unsaved_pair_that_dies_with_its_process_is_called_lost() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let _mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
    world.store_expired();
    let mut one = unsaved(&world);
    let intent = world.record().intent.expect("an intent");
    one.signal(Signal::KILL);
    one.wait();
    fs::remove_file(world.state().join("ballast")).expect("removed");
    let response = world.serve().get(PROFILE);
    assert_eq!(response.code(), "loginRequired");
    let expected = lucid_proxy::token::succession::lost(&intent);
    assert!(response.text().contains(&expected), "{}", response.text());
    drop(one);
}

#[test]
fn t07_at_the_end_an_unsaved_pair_is_given_a_last_chance_and_its_loss_is_told() {
    if !is_root() {
        return;
    }
    for freed in [true, false] {
        let mut world = World::new();
        let drain = if freed { "20s" } else { "300ms" };
        world.tables = format!("[timeouts]\ndrain = \"{drain}\"\n");
        let _mount = Mount::tmpfs(&world.state(), "size=64k,mode=700");
        world.store_expired();
        let mut serving = unsaved(&world);
        serving.signal(Signal::TERM);
        if freed {
            serving.wait_for_log("finishing what is under way");
            fs::remove_file(world.state().join("ballast")).expect("removed");
        }
        serving.wait();
        let told = serving.log().contains("could not be stored in");
        assert_eq!(told, !freed, "{}", serving.log());
        let generation = if freed { 2 } else { 1 };
        assert_eq!(world.record().generation, Some(generation));
    }
}
