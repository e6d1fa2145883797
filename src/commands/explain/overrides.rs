//! Who put somebody on duty out of turn, as far as a provider tells.

use std::collections::BTreeSet;

use super::Sources;
use crate::authors;
use crate::config::Provider;
use crate::model::{Attribution, Basis, Cause, ScheduleKey};

/// Who put somebody on duty out of turn, a line for each change.
#[derive(Debug, Default)]
pub(super) struct OutOfTurn {
    /// By overrides: which one, and who made it, or why nobody knows.
    pub(super) overrides: BTreeSet<String>,
    /// By other edits of a schedule that a read newly showed.
    pub(super) edits: BTreeSet<String>,
}

/// PagerDuty tells who changed a schedule in its audit records only; Opsgenie tells nobody.
pub(super) fn made<'a>(sources: &Sources<'_>, causes: impl Iterator<Item = &'a Cause>) -> OutOfTurn {
    let mut made = OutOfTurn::default();
    for cause in causes {
        let Basis::OnCall {
            schedule,
            user_id,
            via_override,
            ..
        } = &cause.right.basis
        else {
            continue;
        };
        let via = via_override.as_deref();
        let known: Vec<&Attribution> = sources
            .attributions
            .iter()
            .filter(|known| known.sighting.schedule == *schedule)
            .collect();
        let authors = authors::of_turn(&known, user_id, cause.duty, via);
        let which = match via {
            None => {
                made.edits
                    .extend(authors.iter().map(|author| format!("{schedule}; {author}")));
                continue;
            }
            Some("override") => format!("of {schedule}, which the provider shows without an id"),
            Some(forwarding) if forwarding.starts_with("forwarding") => continue,
            Some(id) => format!("{id} of {schedule}"),
        };
        if authors.is_empty() {
            made.overrides
                .insert(format!("{which}; {}", unknown(sources, schedule)));
        }
        made.overrides
            .extend(authors.iter().map(|author| format!("{which}; {author}")));
    }
    made
}

/// Why nothing is on record.
fn unknown(sources: &Sources<'_>, schedule: &ScheduleKey) -> &'static str {
    let source = sources.config.sources.get(&schedule.source);
    match source.map(|source| source.api.provider()) {
        Some(Provider::Pagerduty) => {
            "who made it is not on record, because the first read of the schedule showed it already, or nobody has looked \
             yet; PagerDuty's audit records of that schedule name them"
        }
        Some(Provider::Opsgenie) => "who made it is not known, because Opsgenie does not tell",
        None => "who made it is not on record",
    }
}
