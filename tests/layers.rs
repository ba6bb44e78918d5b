//! Imports go down only: `core <- recipe, store, net, origin <- node <- front`, and the core stays pure.

use std::fs;
use std::path::{Path, PathBuf};

/// A layer, and those that it may import.
const LAYERS: [(&str, &[&str]); 7] = [
    ("core", &["core"]),
    ("recipe", &["core", "recipe"]),
    ("store", &["core", "store"]),
    ("net", &["core", "net"]),
    ("origin", &["core", "recipe", "origin"]),
    ("node", &["core", "recipe", "store", "net", "origin", "node"]),
    ("front", &["core", "recipe", "store", "net", "origin", "node", "front"]),
];

/// What would make the core see the world: time is an argument there, and so is every fact.
const IMPURE: [&str; 9] = [
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "libp2p::",
    "rand::",
    "Instant::now",
    "SystemTime",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a source folder").flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    if path.ends_with("tests.rs") {
        return String::new(); // a module of tests that has a file of its own
    }
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for (layer, allowed) in LAYERS {
        let files = sources(&root().join(layer));
        assert!(!files.is_empty(), "no layer {layer}");
        for file in files {
            for part in code(&file).split("crate::").skip(1) {
                let target: String =
                    part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let layer_named = LAYERS.iter().any(|(name, _)| *name == target);
                if layer_named && !allowed.contains(&target.as_str()) {
                    wrong.push(format!("{} imports {target}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for file in sources(&root().join("core")) {
        let code = code(&file);
        for impure in IMPURE.iter().filter(|impure| code.contains(**impure)) {
            wrong.push(format!("{} uses {impure}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_readable() {
    let long = |path: &PathBuf| fs::read_to_string(path).map_or(0, |text| text.lines().count()) > 420;
    let too_long: Vec<_> = sources(&root()).into_iter().filter(long).collect();
    assert!(too_long.is_empty(), "each is likely two ideas: {too_long:#?}");
}
