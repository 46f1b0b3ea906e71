//! What RFC 9110 and RFC 9112 ask of an intermediary, case by case: the rows of `conformance/table.txt`.

use std::collections::BTreeSet;

use crate::world::bench::{Bench, Mismatches, SEEN, SENT};
use crate::world::table::{self, Row};

const TABLE: &str = include_str!("conformance/table.txt");

fn rows() -> Vec<Row> {
    let names: Vec<_> = SENT.into_iter().chain(SEEN).collect();
    table::parse(TABLE, &names).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn f01_f03_f13_f14_f15_f17_what_the_rfcs_ask_of_an_intermediary() {
    let mut bench = Bench::start();
    let mut mismatches = Mismatches::default();
    for row in rows() {
        let seen = bench.play(&row, &[]);
        mismatches.compare(&row, "", &seen);
    }
    mismatches.none();
}

#[test]
fn the_cases_are_as_many_as_is_said() {
    let rows = rows();
    assert!(rows.len() >= 175, "{}", rows.len());
    let is_of = |row: &&Row, rfc: &str| row.section.starts_with(rfc);
    for (rfc, sections) in [("RFC 9110", 45), ("RFC 9112", 20)] {
        let of_it = rows.iter().filter(|row| is_of(row, rfc));
        let different: BTreeSet<_> = of_it.map(|row| &row.section).collect();
        assert!(different.len() >= sections, "{rfc}: {}", different.len());
    }
    // A row that differs from the RFC says why, and there are few.
    let differing = rows.iter().filter(|row| row.but.is_some()).count();
    assert!((1..=8).contains(&differing), "{differing}");
}

#[test]
fn a_wrong_expectation_shows() {
    let mut bench = Bench::start();
    for wrong in [
        "[a] RFC 9110 7.1: a row whose request differs by one byte.\nU< {got}{added}x-a: b\\r\\n\\r\\n\n",
        "[b] RFC 9110 7.1: one whose answer does.\nC< {ok}!\n",
        "[c] RFC 9110 7.1: one that expects an end.\nC< {ok}{closed}\n",
        "[d] RFC 9110 7.1: one that expects nothing to arrive.\nU< {nothing}\n",
    ] {
        let names: Vec<_> = SENT.into_iter().chain(SEEN).collect();
        let rows = table::parse(wrong, &names).expect("a table");
        let seen = bench.play(&rows[0], &[]);
        assert_ne!(seen, Bench::expected(&rows[0]), "{wrong}");
    }
}
