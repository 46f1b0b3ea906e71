//! Rule F4 at length: gigabytes in both directions at once, and memory that does not know of them.
//!
//! Uploads and downloads come from [`content`], which every receiver knows in advance and compares byte for byte. In the
//! middle of them another upload is answered 401, while it is recorded on the disk, and is sent again.
//!
//! ```text
//! cargo test --release --test it -- --ignored big_bodies --test-threads 1 --nocapture
//! ```

mod content;
mod front;
mod upstream;

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::https::{LISTEN, world};
use crate::replay::recorded_in;
use crate::world::http2::Http2Front;
use crate::world::{Serving, World};
use content::LEAST;
use front::Front;
use upstream::{Stage, Upstream};

/// What may be added to the memory of a proxy that has served requests before and is idle.
const FLAT: u64 = 8 << 20;

/// How much is sent.
#[derive(Clone, Copy)]
struct Lengths {
    /// Up, and as much down.
    big: u64,
    /// Up, recorded and sent again.
    cured: u64,
}

/// What is big is more than is recorded of a request (`replay.memory` and `replay.disk`).
const SHORT: Lengths = Lengths {
    big: 288 << 20,
    cured: 40 << 20,
};
const LONG: Lengths = Lengths {
    big: 4 << 30,
    cured: 200 << 20,
};

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it looks into /proc")]
fn f04_f05_bodies_of_any_size_pass_both_ways_at_once_with_flat_memory() {
    over_http1(SHORT);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it looks into /proc")]
fn f04_f05_over_http_2_bodies_of_any_size_pass_both_ways_at_once_with_flat_memory() {
    over_http2(SHORT);
}

#[test]
#[ignore = "long: 8 GiB"]
fn gigabytes_pass_both_ways_at_once_with_flat_memory() {
    over_http1(LONG);
}

#[test]
#[ignore = "long: 8 GiB, encrypted twice"]
fn over_http_2_gigabytes_pass_both_ways_at_once_with_flat_memory() {
    over_http2(LONG);
}

fn over_http1(lengths: Lengths) {
    let stage = Stage::new();
    let upstream = Upstream::start(&stage);
    let mut world = World::logged_in();
    world.upstream = format!("http://{}", upstream.address);
    let recordings = recorded_in(&mut world);
    let serving = world.serve();
    let front = Front::Http1(serving.address);
    pass(lengths, &front, &stage, &serving, &recordings);
}

/// HTTP/2 over TLS on both sides, all of it on one connection each.
fn over_http2(lengths: Lengths) {
    let stage = Stage::new();
    let upstream = Upstream::start(&stage);
    let tls = Http2Front::start(upstream.address, 100);
    let (mut world, identity) = world();
    world.upstream = tls.tls.origin();
    tls.tls
        .write_bundle(&world.directory.path().join("trusted.pem"));
    world.upstream_keys = "ca_file = \"trusted.pem\"".to_owned();
    let recordings = recorded_in(&mut world);
    let serving = world.serve_on(LISTEN);
    let front = Front::http2(serving.address, &identity);
    pass(lengths, &front, &stage, &serving, &recordings);
}

fn pass(lengths: Lengths, front: &Front, stage: &Stage, serving: &Serving, recordings: &Path) {
    // Each worker that is asked later has served something before, and knows how large its buffers have to be.
    for _ in 0..8 {
        assert_eq!(front.upload("/warm", LEAST), 200, "{}", serving.log());
        assert_eq!(front.download("/warm", LEAST), 200, "{}", serving.log());
    }
    let idle = serving.resident_from_now_on();
    let begun = Instant::now();
    std::thread::scope(|threads| {
        let _release = stage.release_at_the_end();
        let up = threads.spawn(|| front.upload_held("/up", lengths.big, &stage.cured));
        let down = threads.spawn(|| front.download_seen("/down", lengths.big, &stage.down_begun));
        stage.up_begun.wait();
        stage.down_begun.wait();
        let cured = threads.spawn(|| front.upload("/cured", lengths.cured));
        stage.half.wait();
        // All that the file has is a descriptor.
        serving.wait_until(|serving| serving.open_files(recordings) == 1);
        assert_eq!(names(recordings), 0);
        stage.deny.open();
        assert_eq!(cured.join().expect("an answer"), 200, "{}", serving.log());
        serving.wait_until(|serving| serving.open_files(recordings) == 0);
        stage.cured.open();
        assert_eq!(up.join().expect("an answer"), 200, "{}", serving.log());
        assert_eq!(down.join().expect("an answer"), 200, "{}", serving.log());
    });
    let most = serving.resident_at_most();
    println!(
        "{} MiB up and down, {} MiB sent again, in {:?}: {} KiB at rest, {} KiB at most",
        lengths.big >> 20,
        lengths.cured >> 20,
        begun.elapsed(),
        idle >> 10,
        most >> 10,
    );
    let grown = most.saturating_sub(idle);
    assert!(grown < FLAT, "{grown} bytes more than {idle}");
    assert_eq!(
        stage.attempts(),
        2,
        "the one that was answered 401, and its replay"
    );
    assert_eq!((serving.open_files(recordings), names(recordings)), (0, 0));
}

/// How many files have a name there.
fn names(directory: &Path) -> usize {
    fs::read_dir(directory).expect("a directory").count()
}
