//! Looks up the permission sets that owners name, and remembers them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::client::{Client, FAILED_FOR, PAGE, required, unreadable};
use super::failure::sanitise;
use super::limiter::Priority;
use super::{AwsError, AwsErrorKind, Call, ListOf};
use crate::accounting::LONGEST_SESSION;
use crate::model::{PermissionSetRef, ResolvedTarget, Target};

/// A name once found is believed for this long.
pub(super) const FOUND_FOR: SignedDuration = SignedDuration::from_hours(1);

/// All permission sets are listed again for an unknown name at most this often: it costs a call for each of them.
const RELIST_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Descriptions under way at once while listing.
const DESCRIBING: usize = 8;

/// So many permission sets may be unreadable before listing gives up; a name that is found elsewhere still counts.
const UNREADABLE_SETS: usize = 3;

/// What was looked up.
#[derive(Debug, Default)]
pub(super) struct TargetCache {
    /// Held while listing, so that a hundred entitlements cause one listing and not a hundred.
    sets: tokio::sync::Mutex<SetIndex>,
    /// How long role sessions live, by permission set ARN; what could not be read is not here.
    sessions: Mutex<BTreeMap<String, SignedDuration>>,
}

#[derive(Debug, Default)]
struct SetIndex {
    /// Name, and when it was last described, by ARN.
    by_arn: BTreeMap<String, (String, Timestamp)>,
    listed_at: Option<Timestamp>,
    /// The last listing's failure.
    failure: Option<(AwsError, Timestamp)>,
    /// Sets of the last listing whose description could not be read.
    unreadable: Vec<AwsError>,
}

impl SetIndex {
    fn arn_of(&self, name: &str) -> Option<(String, Timestamp)> {
        let entry = self.by_arn.iter().find(|(_, (known, _))| known == name);
        entry.map(|(arn, (_, at))| (arn.clone(), *at))
    }
}

/// Whether something learnt at `at` still counts. A clock that was set back ends it.
pub(super) fn fresh(at: Timestamp, lifetime: SignedDuration, now: Timestamp) -> bool {
    let age = at.duration_until(now);
    !age.is_negative() && age < lifetime
}

impl Client {
    pub(super) async fn resolve(&self, target: &Target) -> Result<ResolvedTarget, AwsError> {
        match target {
            Target::Assignment {
                account,
                permission_set,
            } => Ok(ResolvedTarget::Assignment {
                account: account.clone().into(),
                permission_set_arn: match permission_set {
                    PermissionSetRef::Name(name) => Box::pin(self.set_by_name(name)).await?.into(),
                    PermissionSetRef::Arn(arn) => Box::pin(self.set_by_arn(arn)).await?.into(),
                },
            }),
            Target::Group(group) => Ok(ResolvedTarget::Group {
                group_id: self.group(group).await?.into(),
            }),
        }
    }

    /// Doubts what stands behind a target, because AWS says that something of it is gone: the next pass looks again.
    /// A permission set is asked for by its ARN then and not forgotten at once, because it may as well be the account or
    /// the user that is gone, while the set serves every other account.
    pub(super) async fn forget_target(&self, target: &ResolvedTarget) {
        match target {
            ResolvedTarget::Assignment { permission_set_arn, .. } => {
                let mut index = self.shared.targets.sets.lock().await;
                if let Some((_, at)) = index.by_arn.get_mut(permission_set_arn.as_str()) {
                    *at = Timestamp::MIN;
                }
            }
            ResolvedTarget::Group { group_id } => self.shared.groups.forget(group_id),
        }
    }

    /// The name of every permission set by its ARN.
    pub(super) async fn all_sets(&self) -> Result<BTreeMap<String, String>, AwsError> {
        let mut index = self.shared.targets.sets.lock().await;
        self.list_sets(&mut index, self.shared.clock.now()).await?;
        match index.unreadable.first() {
            Some(error) => Err(error.clone()),
            None => Ok(index
                .by_arn
                .iter()
                .map(|(arn, (name, _))| (arn.clone(), name.clone()))
                .collect()),
        }
    }

    async fn set_by_arn(&self, arn: &str) -> Result<String, AwsError> {
        let mut index = self.shared.targets.sets.lock().await;
        let now = self.shared.clock.now();
        if let Some((_, at)) = index.by_arn.get(arn)
            && fresh(*at, FOUND_FOR, now)
        {
            return Ok(arn.to_owned());
        }
        match self.describe_set(arn).await? {
            Some(name) => {
                index.by_arn.insert(arn.to_owned(), (name, now));
                Ok(arn.to_owned())
            }
            None => {
                index.by_arn.remove(arn);
                Err(not_found(
                    Call::DescribePermissionSet,
                    format!(
                        "there is no permission set {arn} in this instance; correct permission_set in the policy, or \
                         name it by its name"
                    ),
                ))
            }
        }
    }

    async fn set_by_name(&self, name: &str) -> Result<String, AwsError> {
        let mut index = self.shared.targets.sets.lock().await;
        let now = self.shared.clock.now();
        if let Some((arn, at)) = index.arn_of(name) {
            if fresh(at, FOUND_FOR, now) {
                return Ok(arn);
            }
            match self.describe_set(&arn).await? {
                Some(now_named) => {
                    let same = now_named == name;
                    index.by_arn.insert(arn.clone(), (now_named, now));
                    if same {
                        return Ok(arn);
                    }
                }
                None => {
                    // It may have been made anew under the same name, for which somebody on duty waits.
                    index.by_arn.remove(&arn);
                    index.listed_at = None;
                }
            }
        }
        if !index.listed_at.is_some_and(|at| fresh(at, RELIST_AFTER, now)) {
            if let Some((error, at)) = &index.failure
                && fresh(*at, FAILED_FOR, now)
            {
                return Err(error.clone());
            }
            let listed = self.list_sets(&mut index, now).await;
            let failure = listed.as_ref().err().cloned();
            index.failure = failure.map(|error| (error, self.shared.clock.now()));
            listed?;
            if let Some((arn, _)) = index.arn_of(name) {
                return Ok(arn);
            }
        }
        // It might be one of those that could not be read, so nothing may be concluded from its absence.
        if let Some(error) = index.unreadable.first() {
            return Err(error.clone());
        }
        let known = index.by_arn.values().map(|(known, _)| known.as_str());
        Err(not_found(
            Call::ListPermissionSets,
            format!(
                "there is no permission set named {name:?} in this instance{}; correct permission_set in the policy \
                 or create the permission set (looked up again after 5 minutes)",
                did_you_mean(name, known)
            ),
        ))
    }

    /// Lists all permission sets and describes those that are new or were described long ago.
    async fn list_sets(&self, index: &mut SetIndex, now: Timestamp) -> Result<(), AwsError> {
        let instance = self.instance().await?;
        let call = Call::ListPermissionSets;
        let arns = self
            .pages(call, |token| async move {
                let page = self
                    .run(call, Priority::Look, || {
                        let request = self.shared.admin.list_permission_sets();
                        request
                            .instance_arn(&instance.arn)
                            .max_results(PAGE)
                            .set_next_token(token.clone())
                            .send()
                    })
                    .await?;
                self.shared.looks.note_page(ListOf::Targets);
                Ok((page.permission_sets.unwrap_or_default(), page.next_token))
            })
            .await?;
        index.by_arn.retain(|arn, _| arns.contains(arn));
        index.unreadable.clear();
        let mut wanted: Vec<String> = arns
            .into_iter()
            .filter(|arn| !index.by_arn.get(arn).is_some_and(|(_, at)| fresh(*at, FOUND_FOR, now)))
            .collect();
        wanted.sort();
        wanted.dedup();

        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < DESCRIBING
                && let Some(arn) = wanted.pop()
            {
                let client = self.clone();
                under_way.spawn(async move {
                    let described = client.describe_set(&arn).await;
                    (arn, described)
                });
            }
            let Some(done) = under_way.join_next().await else {
                break;
            };
            let (arn, described) = done.map_err(|_| unreadable(call, "reading the permission sets was interrupted"))?;
            match described {
                Ok(Some(name)) => {
                    self.shared.looks.note_page(ListOf::Targets);
                    index.by_arn.insert(arn, (name, now));
                }
                // Deleted since it was listed.
                Ok(None) => {
                    index.by_arn.remove(&arn);
                }
                Err(error) if error.kind == AwsErrorKind::Server && index.unreadable.len() < UNREADABLE_SETS => {
                    tracing::warn!(permission_set = %sanitise(&arn), %error, "a permission set could not be read");
                    index.unreadable.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        index.listed_at = Some(now);
        Ok(())
    }

    /// The name of a permission set; `None` when there is none with this ARN.
    async fn describe_set(&self, arn: &str) -> Result<Option<String>, AwsError> {
        let instance = self.instance().await?;
        let call = Call::DescribePermissionSet;
        let answer = self
            .persist(call, Priority::Look, || {
                let request = self.shared.admin.describe_permission_set();
                request.instance_arn(&instance.arn).permission_set_arn(arn).send()
            })
            .await;
        match answer {
            Ok(answer) => {
                let set = answer.permission_set();
                self.note_session(arn, set.and_then(|set| set.session_duration()));
                required(call, "Name", set.and_then(|set| set.name())).map(Some)
            }
            Err(failure) if failure.kind == AwsErrorKind::NotFound => Ok(None),
            // The name is what matters. moto describes a set without a session duration in a way that the SDK
            // cannot read, the name included.
            Err(failure) => match failure.unread["PermissionSet"]["Name"].as_str() {
                Some(name) => required(call, "Name", Some(name)).map(Some),
                None => Err(failure.into_error(&self.shared.site)),
            },
        }
    }

    fn note_session(&self, arn: &str, duration: Option<&str>) {
        let Some(duration) = duration.and_then(session_duration) else {
            return;
        };
        let sessions = self.shared.targets.sessions.lock();
        sessions
            .unwrap_or_else(PoisonError::into_inner)
            .insert(arn.to_owned(), duration);
    }

    pub(super) fn sessions(&self) -> BTreeMap<String, SignedDuration> {
        let sessions = self.shared.targets.sessions.lock();
        sessions.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A session duration as AWS writes it, such as `PT4H`; `None` for what AWS does not allow.
fn session_duration(text: &str) -> Option<SignedDuration> {
    let duration: SignedDuration = text.parse().ok()?;
    (SignedDuration::ZERO < duration && duration <= LONGEST_SESSION).then_some(duration)
}

pub(super) fn not_found(call: Call, message: String) -> AwsError {
    AwsError {
        operation: call.label(),
        kind: AwsErrorKind::NotFound,
        message,
        outcome_unknown: false,
    }
}

/// Up to three similar names, in parentheses.
fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let folded = name.to_lowercase();
    let mut close: Vec<(f64, &str)> = known
        .map(|known| {
            (
                strsim::normalized_damerau_levenshtein(&folded, &known.to_lowercase()),
                known,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .collect();
    close.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let names: Vec<String> = close
        .iter()
        .take(3)
        .map(|(_, known)| format!("{:?}", sanitise(known)))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", names.join(" or "))
    }
}
