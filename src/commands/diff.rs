//! `diff`: reads the world and shows the plan. Is never handed anything that can write.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::commands::status::schedule_status;
use crate::config::Config;
use crate::identity_center::{AwsError, Read};
use crate::ledger::{Ledger, LedgerError, StoredSnapshots, tries};
use crate::live::{CONSISTENCY_GRACE, LiveCache};
use crate::plan::convergence::Speed;
use crate::plan::render::{SourceLine, View};
use crate::policy::Policy;
use crate::poll::{self, Sources};
use crate::problem::{Problem, ProblemKind};
use crate::reconcile::UNKNOWN_IS_OURS;
use crate::survey::{Record, Resting, Survey, When, known_people, past, survey};
use crate::unfinished::Unsettled;

/// PagerDuty shows shifts at most 90 days ahead.
const FARTHEST: SignedDuration = SignedDuration::from_hours(80 * 24);

/// How often the world is looked at while a daemon beside this goes on changing it.
const MOST_LOOKS: u32 = 3;

/// From how many operations on record the time that AWS takes is estimated.
pub const SEEN: usize = 128;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The instant asked for is over or too far ahead.
    #[error("--at {at} {why}")]
    At {
        /// What was asked for.
        at: Timestamp,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// AWS could not be asked.
    #[error("the live state could not be read")]
    Aws(#[from] AwsError),
    /// The record could not be read.
    #[error("the record could not be read")]
    Ledger(#[from] LedgerError),
}

/// Surveys the world as it is, for now or for a coming instant.
///
/// # Errors
/// [`DiffError`]. Schedules that cannot be read are problems of the survey.
pub async fn look(
    config: &Config,
    policy: &Policy,
    sources: &Sources,
    reader: &Arc<dyn Read>,
    ledger: Option<&Ledger>,
    now: Timestamp,
    at: Option<Timestamp>,
) -> Result<(Survey, StoredSnapshots), DiffError> {
    let mut config = config.clone();
    let mut stored = match ledger {
        Some(ledger) => ledger.load_snapshots().await?,
        None => StoredSnapshots::default(),
    };
    let known_people = known_people(ledger, &stored, &config, now).await?;
    if let Some(at) = at {
        let ahead = now.duration_until(at);
        if ahead.is_negative() {
            return Err(DiffError::At {
                at,
                why: "is over; `dutybound explain --at` tells about the past",
            });
        }
        if FARTHEST < ahead {
            return Err(DiffError::At {
                at,
                why: "is more than 80 days ahead, farther than schedules can be read",
            });
        }
        // By then the daemon will have polled on, so today's read does not count as old, and must reach that far.
        config.timing.max_staleness = config.timing.max_staleness.saturating_add(ahead);
        config.timing.horizon = config
            .timing
            .horizon
            .max(ahead.saturating_add(SignedDuration::from_hours(24)));
    }
    let window = poll::window(now, config.timing.horizon, None);
    for read in poll::read_all(sources, &policy.schedules(), window).await {
        match read {
            Ok(snapshot) => {
                stored.accept(snapshot, now);
            }
            Err(error) => {
                stored.fail(&error, now);
            }
        }
    }
    let mut looks = 0;
    loop {
        let (mut record, mark) = match ledger {
            Some(ledger) => (record(ledger, policy, now).await?, Some(ledger.access_mark().await?)),
            None => (Record::default(), None),
        };
        record.known_people.clone_from(&known_people);
        // Read anew with the record: the one must not be older than the other.
        let then = at.unwrap_or(now);
        let known = stored.known_at(policy.schedules(), then, config.timing.notice);
        let (when, live) = (When::Then(then), &mut LiveCache::default());
        let resting = &mut Resting::default();
        let look = survey(
            reader,
            live,
            resting,
            &config,
            policy,
            &known,
            &record,
            when,
            usize::MAX,
            None,
        );
        let survey = look.await?;
        looks += 1;
        // What a daemon granted while this looked would pass for somebody else's.
        let mark_after = match ledger {
            Some(ledger) => Some(ledger.access_mark().await?),
            None => None,
        };
        if mark == mark_after || looks == MOST_LOOKS {
            return Ok((survey, stored));
        }
    }
}

/// What the ledger says.
async fn record(ledger: &Ledger, policy: &Policy, now: Timestamp) -> Result<Record, LedgerError> {
    let unsettled: Vec<_> = ledger.open_intents().await?.into_iter().map(Unsettled::from).collect();
    let open = unsettled.iter().map(|open| &open.intent.change);
    let since = now.checked_sub(UNKNOWN_IS_OURS).unwrap_or(Timestamp::MIN);
    let owned = ledger.owned().await?;
    Ok(Record {
        owned_in_all: owned.len(),
        owned: owned.into_iter().map(|(key, owned)| (key, Arc::new(owned))).collect(),
        unknown_outcomes: ledger.unknown_grants(Timestamp::MIN).await?,
        bars: ledger.bars().await?,
        confirmed: ledger
            .confirmed_since(now.checked_sub(CONSISTENCY_GRACE).unwrap_or(Timestamp::MIN))
            .await?,
        in_flight: open.map(|change| (change.key(), change.kind)).collect(),
        failures: tries::by_key(ledger.failed_tries(since).await?),
        past: past(policy, ledger, now).await?,
        unsettled,
        ..Record::default()
    })
}

/// The survey as it is shown.
#[must_use]
pub fn view(
    survey: &Survey,
    config: &Config,
    policy: &Policy,
    stored: &StoredSnapshots,
    operation: Option<SignedDuration>,
) -> View {
    let schedules = policy.schedules();
    let newest = stored.newest(&schedules);
    let lines = schedule_status(&newest, stored.failures(), &schedules, config.timing.max_staleness)
        .into_iter()
        .map(|s| SourceLine {
            schedule: s.schedule,
            read_at: s.read_at,
            failure: s.failure,
            failing_since: s.failing_since,
        });
    let speed = speed(config, operation);
    View::new(survey, config.mode.as_str(), policy, lines.collect(), speed)
}

/// How fast changes go by the configuration, where an assignment operation takes `operation`.
#[must_use]
pub fn speed(config: &Config, operation: Option<SignedDuration>) -> Speed {
    Speed {
        operation,
        at_once: config.identity_center.assignments_in_flight,
        requests_per_second: config.identity_center.requests_per_second,
    }
}

/// What an assignment operation took lately, on average; `None` while none is on record.
///
/// # Errors
/// [`LedgerError`].
pub async fn operation_seen(ledger: &Ledger) -> Result<Option<SignedDuration>, LedgerError> {
    let seen = ledger.operations_seen(SEEN).await?;
    let count = i32::try_from(seen.len()).unwrap_or(i32::MAX);
    let sum = seen
        .iter()
        .fold(SignedDuration::ZERO, |sum, (_, took)| sum.saturating_add(*took));
    Ok((0 < count).then(|| sum / count))
}

/// What keeps a survey from being one that a person may rely on: a schedule never read, a name that AWS does not know,
/// live state that could not be read.
pub fn mistaken(survey: &Survey) -> impl Iterator<Item = &Problem> {
    let fatal = |kind| {
        matches!(
            kind,
            ProblemKind::ScheduleUnread | ProblemKind::TargetUnresolved | ProblemKind::AwsUnavailable
        )
    };
    survey.problems.iter().filter(move |p| fatal(p.kind))
}

/// The same in words, each thing once and by its cause.
#[must_use]
pub fn mistakes(survey: &Survey) -> Vec<String> {
    // That a schedule was never read follows from its failing read, which says why and what to do.
    let why = |p: &Problem| {
        let mut failing = survey
            .problems
            .iter()
            .filter(|other| other.kind == ProblemKind::ScheduleFailing);
        match failing.find(|other| other.schedule == p.schedule) {
            Some(cause) if p.kind == ProblemKind::ScheduleUnread => cause.to_string(),
            _ => p.to_string(),
        }
    };
    let mut said = BTreeSet::new();
    let mistakes = mistaken(survey).map(why);
    mistakes.filter(|mistake| said.insert(mistake.clone())).collect()
}
