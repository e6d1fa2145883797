//! Reads escalation policies: every page of `GET /oncalls`.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::users::Reference;
use super::{Final, PagerDuty};
use crate::model::Interval;
use crate::schedule::ReadErrorKind;
use crate::schedule::http::{Call, Failure, Reading};
use crate::schedule::normalise::Turn;
use crate::schedule::wire::{self, DecodeError, Id, Instant};

const OPERATION: &str = "GET /oncalls";
/// Shifts are shown for 90 days ahead (api-schema, `since_oncalls`). An hour less, so that a provider's clock that
/// differs from ours cannot turn its limit into somebody's end of shift.
const FURTHEST: SignedDuration = SignedDuration::from_hours(90 * 24 - 1);
/// The largest page.
const PAGE: usize = 100;
/// PagerDuty answers 400 where offset and limit together exceed this.
const LAST_ROW: usize = 10_000;
/// No read needs more calls; whoever does is not ending.
const MOST_CALLS: usize = 400;
/// Narrower windows are not split further.
const NARROWEST: SignedDuration = SignedDuration::from_hours(1);

#[derive(Deserialize)]
struct Body {
    oncalls: Vec<OnCall>,
    limit: Option<usize>,
    offset: Option<usize>,
    more: Option<bool>,
    total: Option<usize>,
}

#[derive(Deserialize)]
struct OnCall {
    escalation_policy: Policy,
    escalation_level: u32,
    user: Reference,
    /// Null for a standing target, which the schema does not say.
    schedule: Option<Value>,
    start: Option<Instant>,
    end: Option<Instant>,
}

#[derive(Deserialize)]
struct Policy {
    id: Id,
}

/// One page.
#[derive(Debug)]
pub struct Page {
    /// Each row with its user.
    pub rows: Vec<(Turn, Reference)>,
    /// How many rows the provider puts on a page, where it says so.
    pub limit: Option<usize>,
    /// Where the page begins, where the provider says so.
    pub offset: Option<usize>,
    /// Whether there are more pages.
    pub more: bool,
    /// How many rows there are on all pages, where the provider says so.
    pub total: Option<usize>,
}

/// Reads one page of the on-call entries of one escalation policy.
///
/// # Errors
/// [`DecodeError`] for a row of another policy, which means that the filter was not applied, and everything that is
/// not the documented form.
pub fn decode(body: &[u8], policy: &str) -> Result<Page, DecodeError> {
    let body: Body = wire::json(body)?;
    let count = body.oncalls.len();
    let mut rows = Vec::with_capacity(count);
    for entry in body.oncalls {
        if entry.escalation_policy.id.0 != policy {
            return Err(DecodeError::new(&format!(
                "a row of another escalation policy ({})",
                entry.escalation_policy.id
            )));
        }
        entry.user.check()?;
        let turn = Turn {
            user_id: entry.user.id.0.clone(),
            start: entry.start.map(|start| start.0),
            end: entry.end.map(|end| end.0),
            level: Some(entry.escalation_level),
            permanent: entry.schedule.is_none() && entry.start.is_none() && entry.end.is_none(),
            via_override: None,
        };
        rows.push((turn, entry.user));
    }
    Ok(Page {
        rows,
        limit: body.limit.filter(|limit| *limit > 0),
        offset: body.offset,
        more: body.more.unwrap_or(count >= body.limit.unwrap_or(PAGE)),
        total: body.total,
    })
}

/// The part of the window that PagerDuty can show.
pub(super) fn within_limit(queried: Interval, now: Timestamp) -> Result<Interval, Failure> {
    let furthest = now.checked_add(FURTHEST).unwrap_or(Timestamp::MAX);
    Interval::new(queried.start(), queried.end().min(furthest)).ok_or_else(|| {
        Failure::new(
            ReadErrorKind::Rejected,
            format!("PagerDuty shows escalation policies only until {furthest}"),
        )
    })
}

/// What one pass over the pages gave.
enum Pass {
    /// All rows; `suspect` when rows came twice, as they do when the list moved between two pages.
    Complete {
        rows: Vec<(Turn, Reference)>,
        suspect: bool,
    },
    /// Pages that contradict each other, in words.
    Contradiction(String),
    /// More rows than can be paged through.
    TooMany,
}

impl PagerDuty {
    /// Everybody on the policy in the window, with levels.
    pub(super) async fn read_policy(
        &self,
        reading: &mut Reading,
        id: &str,
        queried: Interval,
    ) -> Result<Final, Failure> {
        let mut found = Final::default();
        let mut calls = 0;
        let mut windows = vec![queried];
        while let Some(window) = windows.pop() {
            let Some(rows) = self.read_rows(reading, id, window, &mut calls).await? else {
                let halves = halves(window)
                    .ok_or_else(|| incomplete(format!("more than {LAST_ROW} rows fall into {window}")))?;
                windows.extend(halves);
                continue;
            };
            // A shift that lies in both halves of a split window is listed twice, which merging mends.
            for (turn, user) in rows {
                found.turns.push(turn);
                found.users.push(user);
            }
        }
        if found.turns.is_empty() {
            self.policy_exists(reading, id).await?;
        }
        Ok(found)
    }

    /// All rows of the window, or `None` when there are more than can be paged through.
    async fn read_rows(
        &self,
        reading: &mut Reading,
        id: &str,
        window: Interval,
        calls: &mut usize,
    ) -> Result<Option<Vec<(Turn, Reference)>>, Failure> {
        let first = match self.read_pages(reading, id, window, calls).await? {
            Pass::TooMany => return Ok(None),
            Pass::Complete { rows, suspect: false } => return Ok(Some(rows)),
            other => other,
        };
        // The list changed under our hands; a second look settles most of it.
        match (self.read_pages(reading, id, window, calls).await?, first) {
            (Pass::TooMany, _) => Ok(None),
            (Pass::Complete { rows, suspect: false }, _) => Ok(Some(rows)),
            (Pass::Complete { rows, .. }, Pass::Complete { rows: before, .. })
                if content(&rows) == content(&before) =>
            {
                Ok(Some(rows))
            }
            (Pass::Complete { .. }, _) => Err(incomplete("rows came twice and differ between two readings".to_owned())),
            (Pass::Contradiction(what), _) => Err(incomplete(what)),
        }
    }

    async fn read_pages(
        &self,
        reading: &mut Reading,
        id: &str,
        window: Interval,
        calls: &mut usize,
    ) -> Result<Pass, Failure> {
        let (since, until) = (window.start().to_string(), window.end().to_string());
        let mut rows: Vec<(Turn, Reference)> = Vec::new();
        let mut total = None;
        let mut offset = 0;
        loop {
            if offset + PAGE > LAST_ROW || total.is_some_and(|total| total > LAST_ROW) {
                return Ok(Pass::TooMany);
            }
            *calls += 1;
            if *calls > MOST_CALLS {
                return Err(incomplete(format!("the pages do not end after {MOST_CALLS} calls")));
            }
            let (limit, start) = (PAGE.to_string(), offset.to_string());
            let call = Call {
                operation: OPERATION,
                path: &["oncalls"],
                query: &[
                    ("escalation_policy_ids[]", id),
                    ("since", &since),
                    ("until", &until),
                    ("time_zone", "UTC"),
                    ("include[]", "users"),
                    ("limit", &limit),
                    ("offset", &start),
                    ("total", "true"),
                ],
            };
            let page = self.transport.get(reading, &call, |body| decode(body, id)).await?;
            if page.offset.is_some_and(|got| got != offset) {
                return Ok(Pass::Contradiction(format!(
                    "a page for offset {offset} says that it begins elsewhere"
                )));
            }
            if offset > 0 && page.total != total {
                return Ok(Pass::Contradiction(
                    "the number of rows changed between two pages".to_owned(),
                ));
            }
            total = page.total;
            let count = page.rows.len();
            let size = page.limit.unwrap_or(PAGE).min(PAGE);
            rows.extend(page.rows);
            if !page.more {
                break;
            }
            if count < size {
                return Ok(Pass::Contradiction(format!(
                    "a page of {count} rows where {size} fit says that there are more"
                )));
            }
            offset += size;
        }
        if total.is_some_and(|total| total != rows.len()) {
            return Ok(Pass::Contradiction(format!(
                "{} rows came instead of those counted",
                rows.len()
            )));
        }
        let suspect = content(&rows).len() != rows.len();
        Ok(Pass::Complete { rows, suspect })
    }
}

fn content(rows: &[(Turn, Reference)]) -> BTreeSet<&Turn> {
    rows.iter().map(|(turn, _)| turn).collect()
}

fn incomplete(what: String) -> Failure {
    Failure::new(
        ReadErrorKind::Incomplete,
        format!("the pages of {OPERATION} do not add up: {what}; nothing was concluded from them"),
    )
}

/// The window cut in two at a whole second.
fn halves(window: Interval) -> Option<[Interval; 2]> {
    let half = SignedDuration::from_secs(window.duration().as_secs() / 2);
    let middle = window.start().checked_add(half).ok()?;
    if half < NARROWEST {
        return None;
    }
    Some([
        Interval::new(window.start(), middle)?,
        Interval::new(middle, window.end())?,
    ])
}
