//! Reads the events of a period one after the other, each with what an auditor asks about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Row, Sqlite, Transaction};

use super::chain::pages::Events;
use super::chain::tables::hex;
use super::{Ledger, LedgerError, ends_of_chain, instant, read_json};
use crate::model::{Basis, Cause, EntitlementId, ResolvedTarget};
use crate::plan::Change;

/// An event as it is exported. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedEvent {
    /// Its number in the chain.
    pub seq: i64,
    /// When it was recorded.
    pub time: Timestamp,
    /// What it tells of; `dutybound audit export --help` lists them.
    pub kind: String,
    /// Its hash, which covers everything before it.
    pub hash: String,
    /// The ledger's table of which it tells; empty for what stands in the chain only.
    pub table: String,
    /// The row there.
    pub row: Option<i64>,
    /// What it says itself: all columns of a new row, those that changed of another.
    pub says: BTreeMap<String, Value>,
    /// Whom it concerns.
    pub person: Option<String>,
    /// As which entitlement.
    pub entitlement: Option<String>,
    /// The user in the identity store.
    pub principal: Option<String>,
    /// The AWS account.
    pub account: Option<String>,
    /// The permission set there.
    pub permission_set_arn: Option<String>,
    /// The group in the identity store.
    pub group_id: Option<String>,
    /// The intent by which it was asked of AWS.
    pub intent: Option<i64>,
    /// `grant` or `revoke`, where it was asked of AWS.
    pub asked: Option<String>,
    /// AWS's request or membership id.
    pub reference: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why it ended so, or why the access ended.
    pub detail: Option<String>,
    /// Content hash of the policy that asked for it.
    pub policy: Option<String>,
    /// The owner's warning.
    pub context: Option<String>,
    /// Why.
    pub causes: Vec<ExportedCause>,
}

/// A cause as it is exported: the chain from the shift to the line of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedCause {
    /// `on_call`, `window` or `membership`.
    pub basis: &'static str,
    /// The schedule.
    pub schedule: Option<String>,
    /// As which user of the provider.
    pub schedule_user: Option<String>,
    /// Through which override.
    pub via_override: Option<String>,
    /// From when the person was on duty.
    pub duty_from: Timestamp,
    /// Until when.
    pub duty_to: Timestamp,
    /// From when it was to be held, with lead.
    pub held_from: Timestamp,
    /// Until when, with linger.
    pub held_to: Timestamp,
    /// The project whose rule says so.
    pub project: String,
    /// File and line of the rule.
    pub rule: String,
    /// File and line of the membership.
    pub member: Option<String>,
    /// Who added the member.
    pub added_by: Option<String>,
    /// File and line of the consent to a rule of another project.
    pub delegation: Option<String>,
}

impl From<Cause> for ExportedCause {
    fn from(cause: Cause) -> Self {
        let right = Arc::unwrap_or_clone(cause.right);
        let (basis, schedule, schedule_user, via_override) = match right.basis {
            Basis::OnCall {
                schedule,
                user_id,
                via_override,
                ..
            } => ("on_call", Some(schedule.to_string()), Some(user_id), via_override),
            Basis::Window => ("window", None, None, None),
            Basis::Membership => ("membership", None, None, None),
        };
        Self {
            basis,
            schedule,
            schedule_user: schedule_user.map(Into::into),
            via_override: via_override.map(Into::into),
            duty_from: cause.duty.start(),
            duty_to: cause.duty.end(),
            held_from: cause.held.start(),
            held_to: cause.held.end(),
            project: right.project.to_string(),
            rule: right.rule.to_string(),
            member: cause.member.as_ref().map(|member| member.origin.to_string()),
            delegation: right.delegation.as_ref().map(ToString::to_string),
            added_by: cause
                .member
                .and_then(|member| Some(member.added_by.as_ref()?.to_string())),
        }
    }
}

/// The events of a period, as of the moment at which it was begun.
pub struct Export {
    tx: Transaction<'static, Sqlite>,
    events: Events,
    from: i64,
    to: i64,
    last: i64,
}

impl Ledger {
    /// Begins to read the events that were recorded in `[from, to)`, in the order of the chain. Memory does not grow with
    /// their number.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn export(&self, from: Timestamp, to: Timestamp) -> Result<Option<Export>, LedgerError> {
        if !self.has_chain().await? {
            return Ok(None);
        }
        let mut tx = self.pool.begin().await?;
        let (from, to) = (from.as_millisecond(), to.as_millisecond());
        let row = sqlx::query(
            "SELECT (SELECT MIN(seq) FROM event WHERE at >= ?1), (SELECT MAX(seq) FROM event WHERE at < ?2)",
        )
        .bind(from)
        .bind(to)
        .fetch_one(&mut *tx)
        .await?;
        let (first, last): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Some(Export {
            tx,
            events: Events::from(first.unwrap_or(i64::MAX)),
            from,
            to,
            last: last.unwrap_or(i64::MIN),
        }))
    }
}

/// A stretch of the chain, for whoever follows it.
pub struct Stretch {
    /// The oldest event that is kept.
    pub oldest: i64,
    /// The last event.
    pub last: i64,
    /// The hash of the event after which the stretch begins, where that event is kept.
    pub hash_before: Option<String>,
    /// The events, in order.
    pub events: Vec<ExportedEvent>,
}

impl Ledger {
    /// The first `most` of the events that are kept after event `seq`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn events_after(&self, seq: i64, most: usize) -> Result<Stretch, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let (oldest, last) = ends_of_chain(&mut tx).await?;
        let hash: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM event WHERE seq = ?")
            .bind(seq)
            .fetch_optional(&mut *tx)
            .await?;
        let mut stretch = Stretch {
            oldest,
            last,
            hash_before: hash.map(|hash| hex(&hash)),
            events: Vec::new(),
        };
        if stretch.last <= seq {
            return Ok(stretch);
        }
        let mut export = Export {
            tx,
            events: Events::from(seq.saturating_add(1)),
            from: i64::MIN,
            to: i64::MAX,
            last: i64::MAX,
        };
        while stretch.events.len() < most
            && let Some(event) = export.next().await?
        {
            stretch.events.push(event);
        }
        Ok(stretch)
    }
}

impl Export {
    /// The next event.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn next(&mut self) -> Result<Option<ExportedEvent>, LedgerError> {
        loop {
            let Some(event) = self.events.next(&mut self.tx).await? else {
                return Ok(None);
            };
            if self.last < event.seq {
                return Ok(None);
            }
            // Where the clock was set back, events of the period stand among others.
            if !(self.from..self.to).contains(&event.at) {
                continue;
            }
            let what = || format!("event {}", event.seq);
            let mut exported = ExportedEvent {
                seq: event.seq,
                time: instant(event.at, what)?,
                kind: event.kind.clone(),
                hash: hex(&event.hash),
                table: event.table.clone(),
                row: event.row,
                says: read_json(&event.body, what)?,
                person: None,
                entitlement: None,
                principal: None,
                account: None,
                permission_set_arn: None,
                group_id: None,
                intent: None,
                asked: None,
                reference: None,
                outcome: None,
                detail: None,
                policy: None,
                context: None,
                causes: Vec::new(),
            };
            self.explain(&mut exported).await?;
            return Ok(Some(exported));
        }
    }

    /// Adds what the tables know about it.
    async fn explain(&mut self, event: &mut ExportedEvent) -> Result<(), LedgerError> {
        let Some(row) = event.row else { return Ok(()) };
        match event.table.as_str() {
            "intent" => self.intent(event, row, true).await,
            "access" => self.access(event, row, None).await,
            "cause" => {
                let access: Option<i64> = sqlx::query_scalar("SELECT access_id FROM cause WHERE id = ?")
                    .bind(row)
                    .fetch_optional(&mut *self.tx)
                    .await?;
                match access {
                    Some(access) => self.access(event, access, Some(row)).await,
                    None => Ok(()),
                }
            }
            "bar" => {
                let person: Option<Option<String>> = sqlx::query_scalar("SELECT person FROM bar WHERE id = ?")
                    .bind(row)
                    .fetch_optional(&mut *self.tx)
                    .await?;
                event.person = person.map(|person| person.unwrap_or_else(|| "everybody".to_owned()));
                Ok(())
            }
            "hold" => {
                if let Some(Value::String(body)) = event.says.get("body") {
                    let held: super::HeldSummary = read_json(body, || format!("event {}", event.seq))?;
                    event.entitlement = Some(held.entitlement.to_string());
                    event.person = Some(held.who);
                    event.detail = Some(held.reason.into());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn access(&mut self, event: &mut ExportedEvent, access: i64, cause: Option<i64>) -> Result<(), LedgerError> {
        let row = sqlx::query(
            "SELECT entitlement, person, grant_intent, revoke_intent, end_reason, principal, target FROM access WHERE id = ?",
        )
        .bind(access)
        .fetch_optional(&mut *self.tx)
        .await?;
        let Some(row) = row else { return Ok(()) };
        let ended = event.kind == "access_ended";
        let intent: Option<i64> = if ended { row.try_get(3)? } else { row.try_get(2)? };
        if let Some(intent) = intent {
            self.intent(event, intent, false).await?;
        }
        target(event, row.try_get(6)?, row.try_get(5)?)?;
        event.entitlement = row.try_get(0)?;
        event.person = row.try_get(1)?;
        event.detail = if ended { row.try_get(4)? } else { None };
        let causes: Vec<String> =
            sqlx::query_scalar("SELECT body FROM cause WHERE access_id = ?1 AND (?2 IS NULL OR id = ?2) ORDER BY id")
                .bind(access)
                .bind(cause)
                .fetch_all(&mut *self.tx)
                .await?;
        event.causes.clear();
        for body in causes {
            let cause: Cause = read_json(&body, || format!("a cause of access {access}"))?;
            event.causes.push(cause.into());
        }
        Ok(())
    }

    async fn intent(&mut self, event: &mut ExportedEvent, intent: i64, own: bool) -> Result<(), LedgerError> {
        let row = sqlx::query("SELECT change, policy, reference, outcome, detail, kind FROM intent WHERE id = ?")
            .bind(intent)
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(row) = row else { return Ok(()) };
        let change: Change = read_json(row.try_get(0)?, || format!("intent {intent}"))?;
        event.intent = Some(intent);
        event.policy = row.try_get(1)?;
        event.reference = row.try_get(2)?;
        event.asked = row.try_get(5)?;
        if own && event.kind == "intent_completed" {
            event.outcome = row.try_get(3)?;
            event.detail = row.try_get(4)?;
        }
        event.entitlement = Some(change.entitlement.to_string());
        event.person = change.person.as_ref().map(ToString::to_string);
        event.context = change.context.map(Into::into);
        resolved(event, &change.target, change.principal.0.into());
        event.causes = change
            .causes
            .into_iter()
            .map(|cause| Arc::unwrap_or_clone(cause).into())
            .collect();
        Ok(())
    }
}

fn target(event: &mut ExportedEvent, json: &str, principal: String) -> Result<(), LedgerError> {
    let target: ResolvedTarget = read_json(json, || format!("event {}", event.seq))?;
    resolved(event, &target, principal);
    Ok(())
}

fn resolved(event: &mut ExportedEvent, target: &ResolvedTarget, principal: String) {
    event.principal = Some(principal);
    match target {
        ResolvedTarget::Assignment {
            account,
            permission_set_arn,
        } => {
            event.account = Some(account.to_string());
            event.permission_set_arn = Some(permission_set_arn.to_string());
        }
        ResolvedTarget::Group { group_id } => event.group_id = Some(group_id.to_string()),
    }
}

impl ExportedEvent {
    /// The project that owns the entitlement.
    #[must_use]
    pub fn project(&self) -> Option<String> {
        let entitlement = EntitlementId::try_from(self.entitlement.clone()?).ok()?;
        Some(entitlement.project.to_string())
    }
}
