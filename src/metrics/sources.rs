//! How the on-call sources stand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use prometheus::Error;

use super::page::{Page, flag, number, unix};
use crate::ledger::StoredSnapshots;
use crate::model::{ScheduleKey, SourceName};

/// One source, over the schedules of it that the policy names.
#[derive(Default)]
pub(super) struct SourceState {
    schedules: usize,
    failing: usize,
    /// The last read of at least one schedule was complete.
    up: bool,
    /// The last complete read of the schedule that waits longest; `None` while one was never read.
    oldest: Option<Timestamp>,
    /// The provider's clock minus ours by the newest complete read, in milliseconds.
    offset: Option<(Timestamp, i64)>,
}

pub(super) fn look<'a>(
    stored: &StoredSnapshots,
    schedules: &BTreeSet<ScheduleKey>,
    configured: impl IntoIterator<Item = &'a SourceName>,
) -> BTreeMap<SourceName, SourceState> {
    let newest = stored.newest(schedules);
    let mut sources: BTreeMap<SourceName, SourceState> = configured
        .into_iter()
        .map(|name| (name.clone(), SourceState::default()))
        .collect();
    for (name, source) in &mut sources {
        let mut oldest = Some(Timestamp::MAX);
        for key in schedules.iter().filter(|key| key.source == *name) {
            let failing = stored.failures().contains_key(key);
            let read_at = newest.get(key).map(|snapshot| snapshot.read_at);
            source.schedules += 1;
            source.failing += usize::from(failing);
            source.up |= !failing && read_at.is_some();
            oldest = oldest.min(read_at);
            let offset = newest.get(key).and_then(|s| Some((s.read_at, s.clock_offset_ms?)));
            source.offset = source.offset.max(offset);
        }
        source.oldest = oldest;
    }
    sources
}

pub(super) fn families(page: &mut Page, sources: &BTreeMap<SourceName, SourceState>) -> Result<(), Error> {
    let used = || {
        sources
            .iter()
            .filter(|(_, s)| s.schedules > 0)
            .map(|(name, s)| ([name.0.as_str()], s))
    };
    page.gauges(
        "dutybound_source_schedules",
        "Schedules of the source that the policy names.",
        &["source"],
        sources.iter().map(|(name, s)| ([name.0.as_str()], number(s.schedules))),
    )?;
    page.gauges(
        "dutybound_schedules_failing",
        "Schedules of the source whose last read failed.",
        &["source"],
        sources.iter().map(|(name, s)| ([name.0.as_str()], number(s.failing))),
    )?;
    page.gauges(
        "dutybound_source_up",
        "1 while the last read of at least one schedule of the source was complete; absent for a source without schedules.",
        &["source"],
        used().map(|(name, s)| (name, flag(s.up))),
    )?;
    page.gauges(
        "dutybound_source_last_success_timestamp_seconds",
        "When the last complete read began of the schedule of the source that waits longest; 0 while one was never read.",
        &["source"],
        used().map(|(name, s)| (name, s.oldest.map_or(0.0, unix))),
    )?;
    page.gauges(
        "dutybound_source_clock_offset_seconds",
        "The source's clock minus this host's, by its newest complete read; absent where the source does not tell.",
        &["source"],
        used().filter_map(|(name, s)| Some((name, seconds(s.offset?.1)))),
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a clock is not off by more than 53 bits of milliseconds"
)]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}
