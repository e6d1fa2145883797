//! How long AWS takes for a plan: what its limits allow at best, and what is to be expected. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Change;
use crate::identity_center::ChangeKind;
use crate::model::ResolvedTarget;

/// AWS measured 1200 assignment operations in 61 minutes (aws-iam-identity-center-extensions, Scaling): three seconds
/// each, one after the other in effect. Used until operations of one's own were seen.
const UNSEEN_SECONDS: f64 = 3.0;

/// How much longer than AWS takes an operation is under way for us: until we ask how it stands, on average.
const NOTICED_LATE: f64 = 1.05;

/// Requests of one assignment operation at best: the change itself, and one question how it stands.
const REQUESTS: f64 = 2.0;

/// How fast changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// What an assignment operation takes, as seen lately; `None` while none was seen.
    pub operation: Option<SignedDuration>,
    /// Operations under way at once.
    pub at_once: u32,
    /// Requests a second, over everything.
    pub requests_per_second: u32,
}

/// How long AWS takes for some changes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Convergence {
    /// Account assignments to make or to end: asynchronous operations.
    pub operations: usize,
    /// The most of them in one account, where AWS works on one at a time.
    pub longest_account: usize,
    /// Group memberships to make or to end: synchronous.
    pub memberships: usize,
    /// What an operation takes, as seen lately; `null` while none was seen.
    pub operation_seconds: Option<f64>,
    /// No program can be faster than this: so many operations at once, one in an account, so many requests a second.
    pub at_least_seconds: f64,
    /// What is to be expected.
    pub about_seconds: f64,
    /// Until the first duty begins that a grant of these is for: 0 when one has begun, `null` without grants.
    pub lead_seconds: Option<f64>,
}

impl Convergence {
    /// Of these changes, as of `at`.
    #[must_use]
    pub fn of<'a>(changes: impl IntoIterator<Item = &'a Change>, speed: Speed, at: Timestamp) -> Self {
        let mut accounts: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut memberships, mut membership_requests) = (0, 0.0);
        let mut lead: Option<SignedDuration> = None;
        for change in changes {
            match &change.target {
                ResolvedTarget::Assignment { account, .. } => *accounts.entry(account).or_default() += 1,
                ResolvedTarget::Group { .. } => {
                    memberships += 1;
                    // To end a membership its id is asked for first.
                    membership_requests += if change.kind == ChangeKind::Grant { 1.0 } else { 2.0 };
                }
            }
            if change.kind == ChangeKind::Grant {
                let begins = change.causes.iter().map(|cause| cause.duty.start()).min();
                let left = begins.map_or(SignedDuration::ZERO, |begins| at.duration_until(begins));
                let left = left.max(SignedDuration::ZERO);
                lead = Some(lead.map_or(left, |lead| lead.min(left)));
            }
        }
        let operations: usize = accounts.values().sum();
        let longest_account = accounts.into_values().max().unwrap_or_default();
        let seen = speed.operation.map(|takes| takes.as_secs_f64());
        let takes = seen.unwrap_or(UNSEEN_SECONDS);
        let rate = f64::from(speed.requests_per_second.max(1));
        let (all, longest) = (number(operations), number(longest_account));
        let at_once = f64::from(speed.at_once.max(1));
        let by_places = (all / at_once).ceil().max(longest) * takes;
        let by_requests = (REQUESTS * all + membership_requests) / rate;
        let expected = match seen {
            Some(_) => (by_places * NOTICED_LATE).max(by_requests),
            None => (all * takes).max(by_requests),
        };
        Self {
            operations,
            longest_account,
            memberships,
            operation_seconds: seen,
            at_least_seconds: by_places.max(by_requests),
            about_seconds: expected,
            lead_seconds: lead.map(|lead| lead.as_secs_f64()),
        }
    }

    /// What is to be expected, in whole seconds, rounded up.
    #[must_use]
    pub fn about(&self) -> SignedDuration {
        rounded(self.about_seconds)
    }

    /// One line for people: what is to be expected, and where it is long, what it is made of.
    #[must_use]
    pub fn line(&self) -> String {
        use crate::text::span;
        let soon = self.about().max(SignedDuration::from_secs(1));
        let head = format!("AWS takes about {} for the changes", span(soon));
        if self.about_seconds < 60.0 {
            return head + ".";
        }
        let each = self.operation_seconds.map_or_else(
            || "none was seen yet".to_owned(),
            |seconds| format!("lately {seconds:.1} s each"),
        );
        format!(
            "{head}, and no less than {}: {} account assignments ({each}), at most {} in one account, {} group memberships.",
            span(rounded(self.at_least_seconds)),
            self.operations,
            self.longest_account,
            self.memberships
        )
    }
}

fn rounded(seconds: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(seconds.ceil()).unwrap_or(SignedDuration::MAX)
}

fn number(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests;
