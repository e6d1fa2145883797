//! What a reader must know about the figures: where the record begins, and by which policy standing access is told.

use jiff::Timestamp;

use super::{Baseline, OnRecord};
use crate::model::Interval;
use crate::text::instant;

pub(super) fn notes(
    on_record: &OnRecord,
    baseline: Option<Baseline<'_>>,
    period: Interval,
    counted: Option<Interval>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if period.start() < on_record.begins {
        notes.push(format!(
            "the record begins at {}; nothing before it is counted, and standing access neither",
            instant(on_record.begins)
        ));
    }
    if let (Some(baseline), Some(counted)) = (baseline, counted) {
        notes.extend(another_policy(on_record, &baseline.policy.revision, counted));
    }
    notes
}

/// Of a past policy the record keeps the hash, not the files, so what it would have given cannot be told.
fn another_policy(on_record: &OnRecord, present: &str, counted: Interval) -> Option<String> {
    let others = on_record.policies.iter().enumerate();
    let mut others = others.filter(|(_, (since, policy))| policy.revision != present && *since < counted.end());
    let (last, _) = others.next_back()?;
    let until: Timestamp = on_record
        .policies
        .get(last + 1)
        .map_or(Timestamp::MAX, |(since, _)| *since);
    (counted.start() < until).then(|| {
        let until = if counted.end() <= until {
            "in all of the period or at its end".to_owned()
        } else {
            format!("until {}", instant(until))
        };
        format!(
            "another policy than today's was in force {until}; the record keeps its hash and not its files, so standing \
             access is what today's policy would give"
        )
    })
}
