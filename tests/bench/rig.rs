//! A large organisation around the daemon's own parts: policy, snapshots, an Identity Center in memory, a ledger on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dutybound::apply::Applier;
use dutybound::clock::Clock;
use dutybound::config::notify::Notify;
use dutybound::config::{Audit, Config, IdentityCenterConfig, Limits, Mode, Provider, Timing};
use dutybound::identity_center::{
    AwsError, AwsErrorKind, ChangeKind, Holders, Instance, Operation, Progress, Read, Resolution, Started, UserPin,
    Write,
};
use dutybound::ledger::{Ledger, StoredSnapshots};
use dutybound::model::{
    GroupRef, Interval, PermissionSetRef, Person, PrincipalId, ResolvedTarget, ScheduleKey, ScheduleKind, Shift,
    Snapshot, SourceName, SourceUser, SourceUserState, Target,
};
use dutybound::policy::{self, Policy, PolicyContext};
use dutybound::reconcile::Reconciler;
use dutybound_sandbox::organisation::{OnCallSchedule, Organisation};
use jiff::{SignedDuration, Timestamp};

/// The hand-over of every schedule.
pub(crate) fn monday() -> Timestamp {
    "2026-03-02T08:00:00Z".parse().unwrap()
}

/// How long a turn lasts in the generated organisations.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The policy's files as the loader takes them.
pub(crate) fn files(organisation: &Organisation) -> Vec<(String, Vec<u8>)> {
    let files = organisation.policy().into_iter();
    files.map(|(name, text)| (name, text.into_bytes())).collect()
}

/// Parses and checks.
pub(crate) fn parse(files: Vec<(String, Vec<u8>)>) -> Policy {
    let source = |name: &str, provider| (SourceName(name.into()), Some(provider));
    let context = PolicyContext {
        sources: Some(BTreeMap::from([
            source("pagerduty", Provider::Pagerduty),
            source("opsgenie", Provider::Opsgenie),
        ])),
        ..PolicyContext::default()
    };
    let parsed = policy::parse(Path::new("access.d"), files, &context);
    parsed.unwrap_or_else(|report| panic!("{report:?}")).0
}

/// What a read at `at` finds: turns of a week, as far as the daemon reads.
pub(crate) fn snapshots(organisation: &Organisation, at: Timestamp) -> Vec<Snapshot> {
    snapshots_around(organisation, monday(), at)
}

/// The same where the turns change at `hand_over`.
pub(crate) fn snapshots_around(organisation: &Organisation, hand_over: Timestamp, at: Timestamp) -> Vec<Snapshot> {
    let window = dutybound::poll::window(at, Timing::default().horizon, None);
    let schedules = organisation.projects().iter().flat_map(|project| &project.schedules);
    let turns = (-1_i32..4).map(|turn| (usize::try_from(turn + 55).unwrap(), hand_over + WEEK * turn));
    let turns: Vec<_> = turns.collect();
    schedules
        .map(|schedule| read(schedule, &turns, WEEK, window, at))
        .collect()
}

/// What a read at `at` finds of one schedule: of these turns, given with their begin, those in the window.
pub(crate) fn read(
    schedule: &OnCallSchedule,
    turns: &[(usize, Timestamp)],
    lasts: SignedDuration,
    window: Interval,
    at: Timestamp,
) -> Snapshot {
    let mut users = BTreeMap::new();
    let shifts = turns.iter().filter_map(|(turn, from)| {
        let (id, email) = schedule.turn(*turn);
        let user = users.entry(id.clone()).or_insert_with(|| {
            Arc::new(SourceUser {
                id: id.into(),
                name: Some(email.to_owned()),
                email: Some(email.to_owned()),
                state: SourceUserState::Active,
            })
        });
        Some(Shift {
            interval: Interval::new(*from, *from + lasts)?.intersect(&window)?,
            start_known: window.start() <= *from,
            end_known: *from + lasts <= window.end(),
            user: Arc::clone(user),
            level: None,
            permanent: false,
            via_override: None,
        })
    });
    Snapshot {
        schedule: ScheduleKey {
            source: SourceName(schedule.provider.into()),
            kind: ScheduleKind::Schedule,
            id: schedule.id.clone().into(),
        },
        read_at: at,
        window,
        shifts: shifts.collect(),
        notices: Vec::new(),
        clock_offset_ms: Some(0),
    }
}

/// A configuration with its files in `dir`.
pub(crate) fn config(dir: &Path) -> Config {
    Config {
        mode: Mode::Sync,
        owner_id: "bench".into(),
        policy_dir: dir.join("access.d"),
        roots: None,
        invariants: Vec::new(),
        ledger: dir.join("ledger.db"),
        pause_file: dir.join("pause"),
        sources: BTreeMap::new(),
        identity_center: IdentityCenterConfig {
            region: "eu-central-1".into(),
            expected_account_id: "999999999999".into(),
            instance_arn: None,
            profile: None,
            endpoint_url: None,
            requests_per_second: 19,
            assignments_in_flight: 10,
            operation_timeout: Duration::from_secs(180),
            call_timeout: Duration::from_secs(10),
        },
        identities: Vec::new(),
        timing: Timing::default(),
        limits: Limits::default(),
        http: None,
        audit: Audit {
            retention: None,
            heads: None,
            heads_every: SignedDuration::from_hours(1),
        },
        sinks: Vec::new(),
        notify: Notify::default(),
        written: Default::default(),
    }
}

/// What makes passes, before the first one, and what carries out their changes.
pub(crate) fn reconciler(
    clock: Arc<dyn Clock>,
    reader: Arc<dyn Read>,
    writer: Arc<dyn Write>,
    ledger: Ledger,
    stored: StoredSnapshots,
    config: &Config,
) -> (Reconciler, Arc<Applier>) {
    let applier = Applier::new(
        Arc::clone(&clock),
        Arc::clone(&reader),
        writer,
        ledger.clone(),
        8,
        Duration::from_secs(180),
        config.pause_file.clone(),
    );
    let snapshots = Arc::new(tokio::sync::Mutex::new(stored));
    let reconciler = Reconciler::new(clock, reader, ledger, snapshots, Some(Arc::clone(&applier)));
    (reconciler, applier)
}

/// The policy's files after an edit of one: its last member leaves.
pub(crate) fn edited(organisation: &Organisation) -> Vec<(String, Vec<u8>)> {
    let mut files = files(organisation);
    let (_, text) = files.last_mut().unwrap();
    let cut = std::str::from_utf8(text).unwrap().rfind("\n[[member]]").unwrap();
    text.truncate(cut);
    files
}

/// The time, which only the bench moves.
#[derive(Debug, Clone)]
pub(crate) struct Hands(Arc<Mutex<Timestamp>>);

impl Hands {
    /// A clock that shows `at`.
    pub(crate) fn at(at: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Sets it.
    pub(crate) fn set(&self, at: Timestamp) {
        *self.0.lock().unwrap() = at;
    }
}

#[async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

/// An Identity Center in memory, which does everything at once and counts what it is asked.
#[derive(Debug, Default)]
pub(crate) struct Aws {
    holders: Mutex<BTreeMap<ResolvedTarget, BTreeSet<PrincipalId>>>,
    refused: Mutex<BTreeSet<ResolvedTarget>>,
    calls: AtomicU64,
}

impl Aws {
    /// Calls since the last time this was asked: reads of holders and changes. Names and people are remembered by the
    /// real client, so they are not counted.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.swap(0, Ordering::Relaxed)
    }

    /// Denies from now on to tell who holds these.
    #[allow(dead_code, reason = "benches are refused nothing")]
    pub(crate) fn refuse(&self, targets: impl IntoIterator<Item = ResolvedTarget>) {
        self.refused.lock().unwrap().extend(targets);
    }

    /// What somebody is in this Identity Center.
    pub(crate) fn principal(person: &Person) -> PrincipalId {
        let number: String = person.as_str().chars().filter(char::is_ascii_digit).collect();
        PrincipalId(format!("b3c4d5e6-1111-4000-8000-{number:0>12}").into())
    }

    /// What a target is there.
    pub(crate) fn target(target: &Target) -> ResolvedTarget {
        match target {
            Target::Assignment {
                account,
                permission_set: PermissionSetRef::Name(name),
            } => ResolvedTarget::Assignment {
                account: account.clone().into(),
                permission_set_arn: format!("arn:aws:sso:::permissionSet/ssoins-7223b02f1ab4c5d6/ps-{name:0>16}")
                    .into(),
            },
            Target::Group(GroupRef::Name(name)) => ResolvedTarget::Group {
                group_id: format!("c4d5e6f7-2222-4000-8000-{name}").into(),
            },
            other => panic!("{other:?} is not generated"),
        }
    }
}

#[async_trait]
impl Read for Aws {
    async fn instance(&self) -> Result<Instance, AwsError> {
        Ok(Instance {
            arn: "arn:aws:sso:::instance/ssoins-7223b02f1ab4c5d6".into(),
            identity_store_id: "d-9067f5a2b1".into(),
            owner_account_id: "999999999999".into(),
        })
    }

    async fn resolve_target(&self, target: &Target) -> Result<ResolvedTarget, AwsError> {
        Ok(Self::target(target))
    }

    async fn resolve_person(&self, person: &Person, _: Option<&UserPin>) -> Result<Resolution, AwsError> {
        Ok(Resolution::Found(Self::principal(person)))
    }

    async fn holders(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.refused.lock().unwrap().contains(target) {
            return Err(AwsError {
                operation: "ListAccountAssignments",
                kind: AwsErrorKind::Denied,
                message: "not allowed".to_owned(),
                outcome_unknown: false,
            });
        }
        let holders = self.holders.lock().unwrap();
        let users = holders.get(target).into_iter().flatten();
        Ok(Holders {
            users: users.cloned().collect(),
            groups: Vec::new(),
        })
    }

    async fn operation(&self, _: &Operation) -> Result<Progress, AwsError> {
        Ok(Progress::Succeeded)
    }
}

#[async_trait]
impl Write for Aws {
    async fn start(
        &self,
        change: ChangeKind,
        target: &ResolvedTarget,
        principal: &PrincipalId,
    ) -> Result<Started, AwsError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut holders = self.holders.lock().unwrap();
        let of = holders.entry(target.clone()).or_default();
        match change {
            ChangeKind::Grant => of.insert(principal.clone()),
            ChangeKind::Revoke => of.remove(principal),
        };
        Ok(Started::Done { reference: None })
    }
}

/// The sizes asked for on the command line or in `DUTYBOUND_PERCENT`, else `default`.
pub(crate) fn sizes(default: &[usize]) -> Vec<usize> {
    match std::env::var("DUTYBOUND_PERCENT") {
        Ok(text) => text.split(',').map(|size| size.trim().parse().unwrap()).collect(),
        Err(_) => default.to_vec(),
    }
}

/// A directory that is removed at the end.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, path)
}
