//! A simulated year in seconds: the whole daemon in virtual time against a simulated world, one number for one run.
//!
//! `SIM_SEEDS=100..200 SIM_DAYS=365 cargo test --release --test simulation -- --nocapture` runs as many as wanted.

mod daemon;
mod org;
mod promises;
mod rng;
mod run;
mod story;
mod world;

use std::time::Instant;

use run::{Outcome, simulate};

/// Seeds and days of an ordinary run: about a minute in a debug build.
const SEEDS: std::ops::Range<u64> = 1..7;
const DAYS: i64 = 4;

fn check(seed: u64, days: i64) -> Outcome {
    let outcome = simulate(seed, days);
    if let Some(dir) = std::env::var_os("SIM_JOURNAL") {
        let file = std::path::Path::new(&dir).join(format!("{seed}.log"));
        std::fs::write(file, outcome.journal.join("\n")).expect("the journal can be written");
    }
    if !outcome.faults.is_empty() {
        let from = outcome
            .journal
            .iter()
            .position(|l| l.contains("BROKEN PROMISE"))
            .unwrap_or(0);
        let lines = &outcome.journal[from.saturating_sub(60)..(from + 3).min(outcome.journal.len())];
        panic!(
            "seed {seed}, {days} days: {} broken promises ({}), the first after\n{}",
            outcome.faults.len(),
            outcome.summary,
            lines.join("\n")
        );
    }
    outcome
}

#[test]
fn many_organisations_keep_every_promise() {
    let seeds = std::env::var("SIM_SEEDS").ok().map_or(SEEDS, |text| {
        let (from, to) = text.split_once("..").expect("SIM_SEEDS is from..to");
        from.parse().expect("a number")..to.parse().expect("a number")
    });
    let days = std::env::var("SIM_DAYS").map_or(DAYS, |text| text.parse().expect("a number of days"));
    let seeds = std::sync::Mutex::new(seeds);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else {
                        return;
                    };
                    let began = Instant::now();
                    match std::panic::catch_unwind(|| check(seed, days)) {
                        Ok(outcome) => println!(
                            "seed {seed}: {days} days in {:.1} s, {}",
                            began.elapsed().as_secs_f64(),
                            outcome.summary
                        ),
                        Err(_) => failures.lock().unwrap().push(seed),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "seeds that broke a promise: {failures:?}");
}

#[test]
fn one_seed_is_one_run() {
    let (first, second) = (simulate(7, 4), simulate(7, 4));
    for (n, (a, b)) in first.journal.iter().zip(&second.journal).enumerate() {
        assert_eq!(a, b, "line {n}");
    }
    assert_eq!(first.journal.len(), second.journal.len());
    assert!(first.journal.len() > 50, "something happens");
}
