//! The fuzz targets' common ground: each hands its input to the check of the same name.

mod checks;

/// Panics when the input shows a mistake.
pub fn check(target: &str, input: &[u8]) {
    let (_, check) = checks::CHECKS
        .iter()
        .find(|(name, _)| *name == target)
        .expect("every target has a check");
    check(input);
}
