//! What the program is built from is written down, and is what may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{errors, printed};

const PAGE: &str = include_str!("../../docs/dependencies.md");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// The cells of each row of the page, by the name in the first.
fn rows() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        let Some(line) = line.strip_prefix("| `") else {
            continue;
        };
        let (name, rest) = line.split_once("` | ").expect("a name");
        let cells = rest.trim_end_matches(" |").split(" | ").collect();
        assert!(rows.insert(name, cells).is_none(), "{name} has two rows");
    }
    rows
}

/// The tables of `Cargo.toml` that name dependencies, those of the program first.
fn declared() -> [toml::Table; 2] {
    let manifest: toml::Table = MANIFEST.parse().expect("TOML");
    ["dependencies", "dev-dependencies"]
        .map(|name| manifest[name].as_table().expect("a table").clone())
}

/// The features that are asked for, in the order of the alphabet.
fn features(dependency: &toml::Value) -> Vec<&str> {
    let Some(table) = dependency.as_table() else {
        return vec!["default"];
    };
    let has_defaults = table
        .get("default-features")
        .is_none_or(|value| value.as_bool() == Some(true));
    let named = table.get("features").and_then(|value| value.as_array());
    let named = named.into_iter().flatten().filter_map(|name| name.as_str());
    let mut features: Vec<_> = has_defaults
        .then_some("default")
        .into_iter()
        .chain(named)
        .collect();
    features.sort_unstable();
    features
}

#[test]
fn every_dependency_has_a_row_that_names_its_features_and_no_row_is_stale() {
    let [program, tests] = declared();
    let names: BTreeSet<_> = program.keys().chain(tests.keys()).cloned().collect();
    let rows = rows();
    let written: BTreeSet<_> = rows.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(written, names);
    for (name, cells) in rows {
        assert_eq!(cells.len(), 5, "{name}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{name}");
        let mut expected = Vec::new();
        expected.extend(program.get(name).map(|it| features(it).join(", ")));
        match tests.get(name) {
            Some(it) if expected.is_empty() => expected.push(features(it).join(", ")),
            Some(it) => expected.push(format!("in tests: {}", features(it).join(", "))),
            None => {}
        }
        let expected = expected.join(", ");
        let expected = match expected.as_str() {
            "" => "none",
            some => some,
        };
        assert_eq!(cells[1], expected, "{name}");
    }
}

/// "name@version" of what cargo calls a crate, "registry+…#name@version".
fn name_and_version(id: &Value) -> &str {
    let (_, name) = id.as_str().expect("text").rsplit_once('#').expect("a name");
    name
}

/// The name alone.
fn name(id: &str) -> &str {
    let (_, name) = id.rsplit_once('#').expect("a name");
    name.split('@').next().expect("a name")
}

/// What cargo says for Linux; `None` elsewhere, where not all was downloaded.
fn cargo(arguments: &[&str], platform: &str) -> Option<String> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args([
            "--locked",
            "--offline",
            platform,
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    if !output.status.success() {
        if cfg!(target_os = "linux") {
            panic!("{}", errors(&output));
        }
        eprintln!("skipped: {}", errors(&output));
        return None;
    }
    Some(printed(&output))
}

/// What each crate stands on, and the licence of each.
struct Graph {
    needs: BTreeMap<String, Vec<String>>,
    licences: BTreeMap<String, String>,
    program: Vec<String>,
    /// Those of the program among them.
    tests: Vec<String>,
}

impl Graph {
    /// As cargo builds it for Linux; `None` where it was not downloaded for that.
    fn read() -> Option<Self> {
        let built = cargo(
            &["tree", "--edges=normal,build,dev", "--prefix=none"],
            "--target",
        )?;
        // A name and a version; the rest of a line is about how it is built.
        let built: BTreeSet<_> = built
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.split_once(" v")?;
                let version = rest.split(' ').next()?;
                Some(format!("{name}@{version}"))
            })
            .collect();
        let metadata = cargo(&["metadata", "--format-version=1"], "--filter-platform")?;
        let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let root = text(&metadata["resolve"]["root"]);
        let mut graph = Self {
            needs: BTreeMap::new(),
            licences: BTreeMap::new(),
            program: Vec::new(),
            tests: Vec::new(),
        };
        for package in metadata["packages"].as_array().expect("a list") {
            let licence = package["license"].as_str().unwrap_or_default();
            let licence = licence.to_owned();
            graph.licences.insert(text(&package["id"]), licence);
        }
        for node in metadata["resolve"]["nodes"].as_array().expect("a list") {
            let id = text(&node["id"]);
            // It also has what would be needed with features that nobody asks for.
            let is_built = |edge: &&Value| built.contains(name_and_version(&edge["pkg"]));
            let edges = node["deps"].as_array().expect("a list");
            let edges: Vec<_> = edges.iter().filter(is_built).collect();
            let is_for_tests = |edge: &Value| {
                let kinds = edge["dep_kinds"].as_array().expect("a list");
                kinds.iter().all(|kind| kind["kind"] == "dev")
            };
            let run = edges.iter().filter(|edge| !is_for_tests(edge));
            let run = run.map(|edge| text(&edge["pkg"])).collect();
            if id == root {
                graph.tests = edges.iter().map(|edge| text(&edge["pkg"])).collect();
                graph.program = run;
            } else if built.contains(name_and_version(&node["id"])) {
                graph.needs.insert(id, run);
            }
        }
        Some(graph)
    }

    fn reached_from<'a>(&'a self, starts: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
        let mut left: Vec<_> = starts.collect();
        let mut reached = BTreeSet::new();
        while let Some(id) = left.pop() {
            if reached.insert(id.as_str()) {
                left.extend(&self.needs[id]);
            }
        }
        reached
    }

    /// How many go with this dependency, and how many it stands on.
    fn crates(&self, id: &String) -> (usize, usize) {
        let all = match self.program.contains(id) {
            true => &self.program,
            false => &self.tests,
        };
        let others = self.reached_from(all.iter().filter(|other| *other != id));
        let reached = self.reached_from(std::iter::once(id));
        (reached.difference(&others).count(), reached.len())
    }
}

#[test]
fn one_library_of_tls_and_one_of_cryptography_is_built_in() {
    let Some(graph) = Graph::read() else {
        return;
    };
    let names: BTreeSet<_> = graph.needs.keys().map(|id| name(id)).collect();
    for expected in ["rustls", "aws-lc-rs"] {
        assert!(names.contains(expected), "{expected}");
    }
    // Two providers in one build cannot be told apart by rustls, and the first use of TLS panics.
    for other in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!names.contains(other), "{other}");
    }
}

#[test]
fn the_page_counts_the_crates_and_names_the_licences() {
    let Some(graph) = Graph::read() else {
        return;
    };
    let count = graph.reached_from(graph.program.iter()).len();
    let asked_for = graph.program.len();
    let sentence = format!("{count} crates on Linux, {asked_for} of them asked for");
    assert!(PAGE.contains(&sentence), "{sentence}");
    let rows = rows();
    for id in &graph.tests {
        let name = name(id);
        let (own, all) = graph.crates(id);
        let cells = &rows[name];
        assert_eq!(cells[2], format!("{own} of {all}"), "{name}");
        assert_eq!(cells[3], graph.licences[id], "{name}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_and_is_pinned() {
    let files = [
        include_str!("../../Cargo.lock"),
        include_str!("../fuzz/Cargo.lock"),
    ];
    for file in files {
        let lock: toml::Table = file.parse().expect("TOML");
        let mut sources = BTreeSet::new();
        for package in lock["package"].as_array().expect("a list") {
            let text = |key: &str| package.get(key).and_then(|value| value.as_str());
            let name = text("name").expect("a name");
            if name.starts_with("lucid-proxy") {
                continue;
            }
            let source = text("source").unwrap_or_else(|| panic!("{name} lies in this tree"));
            assert!(source.starts_with("registry+"), "{name}: {source}");
            assert_eq!(text("checksum").map(str::len), Some(64), "{name}");
            sources.insert(source);
        }
        assert_eq!(sources.len(), 1, "{sources:?}");
    }
}

#[test]
fn the_licences_that_cargo_toml_names_are_there() {
    let manifest: toml::Table = MANIFEST.parse().expect("TOML");
    let licence = manifest["package"]["license"].as_str().expect("text");
    assert_eq!(licence, "MIT OR Apache-2.0");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, begins) in [
        (
            "LICENSE-MIT",
            "Permission is hereby granted, free of charge",
        ),
        ("LICENSE-APACHE", "Apache License"),
    ] {
        let text = std::fs::read_to_string(root.join(file)).expect("a licence");
        assert!(text.contains(begins), "{file}");
    }
}
