//! Replays the fuzzing corpus: what each file once showed, or what a fuzzer should begin from, holds in every test run.

use std::{collections::BTreeSet, fs, path::Path};

#[path = "../fuzz/checks/mod.rs"]
mod checks;

#[test]
fn every_file_of_the_corpus_passes_the_check_that_it_was_made_for() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (target, check) in checks::CHECKS {
        let mut files = 0;
        for entry in fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            // The harness shows what is printed when a check panics.
            println!("{}", path.display());
            check(&fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "{target} has no corpus");
    }
}

#[test]
fn every_target_has_its_check_and_every_check_its_target() {
    let names = |folder: &str, suffix: &str| -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder);
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.strip_suffix(suffix).unwrap_or(&name).to_owned())
            .collect()
    };
    let checks: BTreeSet<String> = checks::CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets", ".rs"), checks);
    assert_eq!(names("corpus", ""), checks);
}
