//! The values of a rule's `during`: when windows start, and how long they last.

use jiff::{SignedDuration, tz::TimeZone};

use super::{
    super::{
        CronWindow,
        file::DuringEntry,
        window::{WindowLength, parse_cron},
    },
    Lowering, WindowMention,
};
use crate::document::{At, Entry};

/// A window that lasts longer is a membership.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(31 * 24);
/// No pattern starts windows more often than every minute.
const SHORTEST_WINDOW: SignedDuration = SignedDuration::from_mins(1);

impl Lowering<'_> {
    pub(super) fn during(&mut self, entry: &Entry<DuringEntry>) -> Option<CronWindow> {
        let at = entry.span();
        let d = &entry.value;
        let cron = self
            .found
            .required(d.cron.as_ref(), at, "`during`", "cron", "\"0 9 * * MON-FRI\"");
        let cron = cron.and_then(|pattern| match parse_cron(&pattern.value) {
            Ok(cron) => Some(cron),
            Err(message) => {
                let hint = "such as \"0 9 * * MON-FRI\": minute, hour, day of month, month, day of week";
                self.found.error("bad-cron", pattern.span(), message, hint);
                None
            }
        });
        let zone = self
            .found
            .required(d.zone.as_ref(), at, "`during`", "zone", "\"Europe/Berlin\"");
        let zone = zone.and_then(|name| self.found.zone(name));
        let length = self.window_length(entry);
        let cron = cron?;
        let at = d.cron.as_ref()?.span();
        let text = |value: &Option<At<String>>| value.as_ref().map(|at| at.value.clone());
        let end = d.length.as_ref().or(d.until.as_ref());
        // A pattern that never fires is a mistake in every zone, so it is looked at even where zone or length is wrong.
        self.mentions.windows.push(WindowMention {
            cron: at.clone(),
            length: end.map_or(at, At::span).clone(),
            window: CronWindow {
                cron: cron.clone(),
                length: length.unwrap_or(WindowLength::For(SHORTEST_WINDOW)),
                zone: zone.clone().unwrap_or(TimeZone::UTC),
            },
            text: format!("{:?}", (text(&d.cron), text(&d.length), text(&d.until), text(&d.zone))),
        });
        Some(CronWindow {
            cron,
            length: length?,
            zone: zone?,
        })
    }

    fn window_length(&mut self, entry: &Entry<DuringEntry>) -> Option<WindowLength> {
        let at = entry.span();
        match (&entry.value.length, &entry.value.until) {
            (Some(_), Some(until)) => {
                let hint = "`for` is elapsed time, `until` is the clock in the zone; keep the one that is meant";
                self.found.error(
                    "two-lengths",
                    until.span(),
                    "a window has `for` or `until`, not both",
                    hint,
                );
                None
            }
            (Some(text), None) => {
                let bounds = SHORTEST_WINDOW..=LONGEST_WINDOW;
                self.found.duration(text, bounds).map(WindowLength::For)
            }
            (None, Some(text)) => {
                let time = text.value.parse().map(WindowLength::Until);
                if time.is_err() {
                    let hint = "write hours and minutes, such as \"18:00\"";
                    self.found
                        .error("bad-time", text.span(), "this is not a time of day", hint);
                }
                time.ok()
            }
            (None, None) => {
                if !self.found.holes.explain(at, "for") && !self.found.holes.explain(at, "until") {
                    let hint = "add for = \"9h\" (elapsed) or until = \"18:00\" (clock in the zone)";
                    self.found
                        .error("missing-key", at, "`during` does not say how long", hint);
                }
                None
            }
        }
    }
}
