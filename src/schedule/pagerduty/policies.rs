//! Tells an escalation policy with nobody on call from one that does not exist: `/oncalls` answers both alike.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::PagerDuty;
use crate::schedule::ReadErrorKind;
use crate::schedule::http::{Call, Failure, Reading};
use crate::schedule::wire::{self, DecodeError, Id};

/// How long a check holds.
const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// Policies that were looked up: whether they were seen, or could not be, and when.
#[derive(Debug, Default)]
pub(super) struct Existing {
    checked: Mutex<HashMap<String, (Sight, Timestamp)>>,
}

#[derive(Debug, Clone, Copy)]
enum Sight {
    Seen,
    NotAllowed,
}

#[derive(Deserialize)]
struct Body {
    escalation_policy: Policy,
}

#[derive(Deserialize)]
struct Policy {
    id: Id,
}

fn decode(body: &[u8], id: &str) -> Result<(), DecodeError> {
    let Body { escalation_policy } = wire::json(body)?;
    if escalation_policy.id.0 == id {
        Ok(())
    } else {
        Err(DecodeError::new(&format!("another policy ({})", escalation_policy.id)))
    }
}

impl PagerDuty {
    /// Fails when PagerDuty does not know the policy. A key without `escalation_policies.read` cannot ask, which
    /// becomes a notice: that scope is not among those that dutybound needs otherwise.
    pub(super) async fn policy_exists(&self, reading: &mut Reading, id: &str) -> Result<(), Failure> {
        let now = self.transport.now();
        let fresh = |at: &Timestamp| (SignedDuration::ZERO..FRESH).contains(&at.duration_until(now));
        let known = {
            let checked = self.policies.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.get(id).filter(|(_, at)| fresh(at)).map(|(sight, _)| *sight)
        };
        let sight = match known {
            Some(sight) => sight,
            None => {
                let call = Call {
                    operation: "GET /escalation_policies/{id}",
                    path: &["escalation_policies", id],
                    query: &[],
                };
                let sight = match self.transport.get(reading, &call, |body| decode(body, id)).await {
                    Ok(()) => Sight::Seen,
                    Err(failure) if failure.kind == ReadErrorKind::Forbidden => Sight::NotAllowed,
                    Err(failure) => return Err(failure),
                };
                let mut checked = self.policies.checked.lock().unwrap_or_else(PoisonError::into_inner);
                checked.insert(id.to_owned(), (sight, now));
                sight
            }
        };
        if matches!(sight, Sight::NotAllowed) {
            reading.notice(
                "nobody is on call, and whether the escalation policy exists could not be checked: the credential \
                 lacks escalation_policies.read"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
