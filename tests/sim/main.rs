//! The coordinator under a virtual clock: thousands of sites, each with its own seed.
//!
//! Every run draws a site (2 to 50 nodes, or 60 to 120 around hubs), a blob, and a kind of trouble,
//! and checks after every step what promises 1 to 4 say. A failure prints its seed; `SIM_SEED=n cargo
//! test --test sim many_seeds` (or `larger`) runs that one alone, `SIM_RUNS=n` sets how many are run,
//! and `SIM_ALL=1` prints all failures.

mod processor;
mod trouble;
mod world;

use trouble::Trouble;
use world::{Report, World};

fn runs() -> u64 {
    std::env::var("SIM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(10_000)
}

/// Sites of 60 to 120 nodes cost a hundred times as much as the others.
const LARGE_SHARE: u64 = 50;

#[test]
fn promises_hold_over_many_seeds() {
    play(runs(), World::new);
}

#[test]
fn promises_hold_in_sites_larger_than_a_mesh() {
    play(runs() / LARGE_SHARE, World::large);
}

/// Where to begin, so that a long run can be cut into parts.
fn first() -> u64 {
    std::env::var("SIM_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn play(runs: u64, world: fn(u64) -> World) {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = seed.parse().expect("SIM_SEED is a number");
        let mut world = world(seed);
        world.trace = true;
        println!("{:?}", world.run());
        return;
    }
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    let reports: Vec<(u64, Report)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    (first() + worker..first() + runs)
                        .step_by(workers as usize)
                        .map(|seed| {
                            let start = std::time::Instant::now();
                            let report = world(seed).run();
                            if start.elapsed() > std::time::Duration::from_secs(5) {
                                println!("seed {seed} took {:?}", start.elapsed());
                            }
                            (seed, report)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a worker does not panic")).collect()
    });
    summarize(&reports);
    let failed: Vec<_> = reports.iter().filter(|(_, report)| !report.violations.is_empty()).collect();
    let shown = if std::env::var_os("SIM_ALL").is_some() { failed.len() } else { 5 };
    for (seed, report) in failed.iter().take(shown) {
        println!("seed {seed} ({:?}): {:?}", report.trouble, report.violations);
    }
    assert!(failed.is_empty(), "{} of {runs} runs broke a promise", failed.len());
}

fn summarize(reports: &[(u64, Report)]) {
    for trouble in Trouble::ALL {
        let of: Vec<&Report> =
            reports.iter().map(|(_, report)| report).filter(|report| report.trouble == trouble).collect();
        let sum = |field: fn(&Report) -> u64| of.iter().map(|report| field(report)).sum::<u64>();
        println!(
            "{trouble:?}: {} runs, {} nodes, {} messages, {} kills, {} partitions, {} chunks needed, {} repeated, \
             longest wait {} ms; {} leeches pulled {} chunks for themselves",
            of.len(),
            sum(|report| report.nodes),
            sum(|report| report.messages),
            sum(|report| report.kills),
            sum(|report| report.partitions),
            sum(|report| report.chunks),
            sum(|report| report.repeated),
            of.iter().map(|report| report.longest_ms).max().unwrap_or(0),
            sum(|report| report.leeches),
            sum(|report| report.leeched),
        );
    }
}
