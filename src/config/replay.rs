//! `[replay]`: how much of request bodies is recorded, and where.

use std::path::PathBuf;

use super::raw::{Source, Table};
use super::{Environment, Replay, state_directory};

const KIB: u64 = 1 << 10;
const MIB: u64 = KIB << 10;
const GIB: u64 = MIB << 10;

/// Each request may take that much memory.
const MOST_MEMORY: u64 = GIB;

pub(super) fn check<'a>(
    source: &mut Source<'a>,
    root: &mut Table<'a>,
    environment: &dyn Environment,
) -> Replay {
    let mut table = root.table(source, "replay");
    let memory = match table.size(source, "memory") {
        Some(found) if found.value > MOST_MEMORY => {
            let message = "at most \"1 GiB\" is accepted, since each request may take that much";
            source.problem(Some(&found.at), &found.key, message);
            MOST_MEMORY
        }
        Some(found) => found.value,
        None => MIB,
    };
    let disk = table.size(source, "disk");
    let disk = disk.map_or(256 * MIB, |found| found.value);
    let total_memory = total(
        source,
        &mut table,
        "total_memory",
        (64 * MIB, memory, "memory"),
    );
    let total_disk = total(source, &mut table, "total_disk", (GIB, disk, "disk"));
    let directory = table.string(source, "directory");
    let directory = directory.map_or_else(
        || temporary_directory(environment),
        |found| state_directory(environment).join(found.value),
    );
    table.finish(source);
    Replay {
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        disk,
        total_memory,
        total_disk,
        directory,
    }
}

/// What all recordings may take: as usual, but not less than what one may, whose key is named too.
fn total<'a>(
    source: &mut Source<'a>,
    table: &mut Table<'a>,
    name: &'static str,
    (usual, of_each, key_of_each): (u64, u64, &str),
) -> u64 {
    let Some(found) = table.size(source, name) else {
        return usual.max(of_each);
    };
    if found.value < of_each {
        let key = table.key(key_of_each);
        let message = format!("at least what {key} allows each request is accepted");
        source.problem(Some(&found.at), &found.key, message);
    }
    found.value
}

/// `$TMPDIR`, else `/tmp` (POSIX, Base Definitions, section 8.3).
fn temporary_directory(environment: &dyn Environment) -> PathBuf {
    let named = environment.var("TMPDIR");
    PathBuf::from(named.unwrap_or_else(|| "/tmp".to_owned()))
}
