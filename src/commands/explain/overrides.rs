//! By whom an override was made, as far as a provider tells.

use std::collections::BTreeSet;

use super::Sources;
use crate::config::Provider;
use crate::model::{Basis, Cause};

/// A line for each override among these causes: which one it is, and who knows its author. Neither provider shows that of
/// a schedule; PagerDuty keeps it in the schedule's audit records, which take another permission
/// (<https://developer.pagerduty.com/api-reference/>, `audit_records.read`).
pub(super) fn made<'a>(sources: &Sources<'_>, causes: impl Iterator<Item = &'a Cause>) -> Vec<String> {
    let mut made = BTreeSet::new();
    for cause in causes {
        let Basis::OnCall {
            schedule,
            via_override: Some(via),
            ..
        } = &cause.basis
        else {
            continue;
        };
        let which = match via.as_str() {
            "override" => format!("of {schedule}, which the provider shows without an id"),
            forwarding if forwarding.starts_with("forwarding") => continue,
            id => format!("{id} of {schedule}"),
        };
        let provider = sources
            .config
            .sources
            .get(&schedule.source)
            .map(|source| source.api.provider());
        let author = match provider {
            Some(Provider::Pagerduty) => "PagerDuty's audit records of that schedule name who made it",
            Some(Provider::Opsgenie) | None => "what the provider shows of a schedule does not name who made it",
        };
        made.insert(format!("{which}; {author}"));
    }
    made.into_iter().collect()
}
