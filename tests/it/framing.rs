//! Framing that two readers could take for two things (rule F15): it is refused, or reaches the other side in a form that
//! can be read in one way only. The cases are the rows of `framing/*.txt`; what names and marks in them stand for is told
//! in `world/table.rs` and `world/bench.rs`. `{cut}` is a request that never ends, or none: as much of it as had passed
//! when the rest turned out to be no content.

mod http2;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::world::SOON;
use crate::world::bench::{Bench, Mismatches, SEEN, SENT};
use crate::world::strict_upstream::Upstream;
use crate::world::table::{self, Row};
use http2::Http2;

const REQUESTS: &str = include_str!("framing/requests.txt");
const HTTP2: &str = include_str!("framing/http2.txt");
const RESPONSES: &str = include_str!("framing/responses.txt");

fn rows(table: &str) -> Vec<Row> {
    const OUTCOMES: [&str; 5] = [
        "answered",
        "badRequest",
        "policyDenied",
        "hostNotAllowed",
        "reset PROTOCOL_ERROR",
    ];
    let mut names: Vec<_> = SENT.into_iter().chain(SEEN).chain(OUTCOMES).collect();
    names.push("goaway PROTOCOL_ERROR");
    table::parse(table, &names).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn f15_a_request_can_be_read_in_one_way_only_or_is_refused() {
    let mut bench = Bench::start();
    let mut mismatches = Mismatches::default();
    for row in rows(REQUESTS) {
        let seen = bench.play(&row, &[]);
        mismatches.compare(&row, "", &seen);
    }
    mismatches.none();
}

#[test]
fn f15_it_does_not_matter_where_packets_end() {
    let mut bench = Bench::start();
    let mut mismatches = Mismatches::default();
    for row in rows(REQUESTS) {
        let cuts = cuts(&bench.client_bytes(&row));
        let all: Vec<_> = cuts.iter().copied().collect();
        let middle = all.len() / 2;
        for some in [&all[..], &all[middle..]] {
            let seen = bench.play(&row, some);
            mismatches.compare(&row, &format!(" (cut at {some:?})"), &seen);
        }
    }
    mismatches.none();
}

/// Places to cut at: in the middle, and inside the end of a line, of the head and of what follows it.
fn cuts(bytes: &[u8]) -> BTreeSet<usize> {
    let behind = |part: &[u8], by: usize| table::find(bytes, part).map(|at| at + by);
    let mut cuts = BTreeSet::from([bytes.len() / 2]);
    cuts.extend(behind(b"\r\n", 1));
    cuts.extend(behind(b"\r\n\r\n", 2));
    cuts.extend(behind(b"\r\n\r\n", 5));
    cuts.retain(|cut| (1..bytes.len()).contains(cut));
    cuts
}

#[test]
fn f15_http_2_brings_nothing_into_http_1_1_that_frames_it() {
    let mut http2 = Http2::start();
    let mut mismatches = Mismatches::default();
    for row in rows(HTTP2) {
        let seen = http2.play(&row);
        mismatches.compare(&row, "", &seen);
    }
    mismatches.none();
}

#[test]
fn f15_an_answer_can_be_read_in_one_way_only_or_is_an_error() {
    let mut bench = Bench::start();
    let mut mismatches = Mismatches::default();
    for row in rows(RESPONSES) {
        let seen = bench.play(&row, &[]);
        mismatches.compare(&row, "", &seen);
    }
    mismatches.none();
}

#[test]
fn f15_the_cases_are_as_many_as_is_said() {
    assert!(rows(REQUESTS).len() >= 250);
    assert!(rows(HTTP2).len() >= 100);
    assert!(rows(RESPONSES).len() >= 65);
}

#[test]
fn the_upstream_of_these_cases_sees_a_second_request_and_what_is_not_strict() {
    let upstream = Upstream::start();
    let mut client = TcpStream::connect(upstream.address).expect("a connection");
    client.set_read_timeout(Some(SOON)).expect("a timeout");
    let smuggled = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET /bare HTTP/1.1\n";
    client.write_all(smuggled).expect("sent");
    let end = client.read_to_end(&mut Vec::new());
    assert!(end.is_ok(), "it ends what is not strict: {end:?}");
    let seen = String::from_utf8_lossy(&upstream.take()).into_owned();
    assert_eq!(
        seen,
        String::from_utf8_lossy(smuggled).into_owned() + "{malformed}"
    );
}
