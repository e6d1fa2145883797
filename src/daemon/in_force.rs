//! The policy in force: replaced by a good edit, kept through a bad one.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::checkout;
use crate::diagnostics::{Diagnostic, Report};
use crate::invariant::Written;
use crate::policy::{self, Policy, PolicyContext};

/// Watches a policy directory by content, so that renames into place and swapped links are seen like plain writes.
pub struct InForce {
    dir: PathBuf,
    context: PolicyContext,
    policy: Arc<Policy>,
    /// The content seen by the last look, to load an edit only once it has held still.
    seen: Result<String, String>,
    /// Whether the operator's statements are others than those that the policy in force keeps to.
    outdated: bool,
    /// The content that was refused last, to say so once.
    refused: Option<Result<String, String>>,
}

/// What a look at the directory brought.
#[derive(Debug)]
pub enum Reload {
    /// Nothing new.
    Unchanged,
    /// A good edit is now in force; with the warnings about it.
    Loaded(Vec<Diagnostic>),
    /// A bad edit; the policy in force stays.
    Refused(Report),
    /// A bad edit was taken back; the policy in force is what the directory says again.
    Restored,
}

impl InForce {
    /// Loads the policy for the first time.
    ///
    /// # Errors
    /// The [`Report`] of every mistake.
    pub fn load(dir: PathBuf, context: PolicyContext) -> Result<(Self, Vec<Diagnostic>), Report> {
        let (mut policy, warnings) = policy::load(&dir, &context)?;
        policy.commit = checkout::commit_of(&policy.revision, &dir);
        let seen = Ok(policy.revision.clone());
        let in_force = Self {
            dir,
            context,
            policy: Arc::new(policy),
            seen,
            outdated: false,
            refused: None,
        };
        Ok((in_force, warnings))
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether the directory holds an edit that was refused.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.refused.is_some()
    }

    /// Takes over the operator's statements from a configuration that was read anew; the next look holds the policy to them.
    pub fn state(&mut self, invariants: &[Written]) {
        let said = |all: &[Written]| -> Vec<_> { all.iter().map(|w| w.invariant.clone()).collect() };
        if said(&self.context.invariants) != said(invariants) {
            self.context.invariants = invariants.to_vec();
            self.outdated = true;
            self.refused = None;
        }
    }

    /// Looks at the directory. An edit counts when two looks in a row see the same content, because a file that is still
    /// being written may by chance be a valid, smaller policy; `at_once` takes it as it stands.
    pub fn look(&mut self, now: Timestamp, at_once: bool) -> Reload {
        let found = policy::fingerprint(&self.dir).map_err(|report| report.to_text(false));
        let still = self.seen == found || at_once;
        self.seen.clone_from(&found);
        if found.as_ref() == Ok(&self.policy.revision) && !self.outdated {
            return if self.refused.take().is_some() {
                Reload::Restored
            } else {
                Reload::Unchanged
            };
        }
        if !still || (self.refused.as_ref() == Some(&found) && !at_once) {
            return Reload::Unchanged;
        }
        self.context.now = Some(now);
        match policy::load(&self.dir, &self.context) {
            Ok((mut policy, warnings)) => {
                policy.commit = checkout::commit_of(&policy.revision, &self.dir);
                self.policy = Arc::new(policy);
                self.outdated = false;
                self.refused = None;
                Reload::Loaded(warnings)
            }
            Err(report) => {
                self.refused = Some(found);
                Reload::Refused(report)
            }
        }
    }
}
