//! Access that stood before and that a person has told us to take for our own.

use jiff::Timestamp;

use super::redo::Entry;
use super::{Ledger, LedgerError};
use crate::plan::Change;

impl Ledger {
    /// Records access that stands in AWS as ours from now on, each with an intent that says who took it over. All of it or
    /// none; what is ours already stays as it is. Nothing is asked of AWS.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn take_over(
        &self,
        changes: &[Change],
        by: &str,
        policy_revision: &str,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut lines = Vec::with_capacity(changes.len());
        let mut tx = self.begin().await?;
        for change in changes {
            let mut line = Entry::Found {
                id: 0,
                change: Box::new(change.clone()),
                policy: policy_revision.to_owned(),
                outcome: "succeeded".to_owned(),
                detail: format!(
                    "taken over by {by}: it stood before, granted by somebody else, and the policy calls for it"
                ),
                effective: now,
                at: now,
            };
            let intent = self.take_in(&mut tx, &line).await?;
            if let Entry::Found { id, .. } = &mut line {
                *id = intent;
            }
            lines.push(line);
        }
        self.commit(tx, now).await?;
        if let Some(redo) = &self.redo {
            for line in &lines {
                redo.insist(line)?;
            }
        }
        Ok(())
    }
}
