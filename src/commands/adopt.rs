//! `adopt`: which live access becomes ours because the policy calls for it, and which stays not ours. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::diagnostics::did_you_mean;
use crate::identity_center::ChangeKind;
use crate::model::EntitlementId;
use crate::plan::{Change, Foresight};
use crate::policy::Policy;
use crate::survey::Survey;
use crate::text::{cause, clean};

/// What would become ours.
#[derive(Debug)]
pub struct Proposal {
    /// Names exactly what becomes ours, under which policy.
    pub digest: String,
    /// Access that becomes ours, as if granted now.
    pub taken: Vec<Change>,
    /// Access that stays as it is, and why.
    pub left: Vec<Left>,
}

/// Access that does not become ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Left {
    /// Of which entitlement.
    pub entitlement: EntitlementId,
    /// A person, a user id, or `group:…`.
    pub holder: String,
    /// Why.
    pub why: String,
}

/// What the words of the command line name: entitlements, or projects with all that they own.
///
/// # Errors
/// What is not in the policy, with a hint.
pub fn selected(policy: &Policy, words: &[String]) -> Result<BTreeSet<EntitlementId>, String> {
    let mut selected = BTreeSet::new();
    for word in words {
        let of_project = |id: &&EntitlementId| id.project.0 == *word;
        let named: Vec<&EntitlementId> = match EntitlementId::try_from(word.clone()) {
            Ok(wanted) => policy
                .entitlements()
                .map(|e| &e.id)
                .filter(|id| **id == wanted)
                .collect(),
            Err(_) => policy.entitlements().map(|e| &e.id).filter(of_project).collect(),
        };
        if named.is_empty() {
            let known: Vec<String> = policy.entitlements().map(|e| e.id.to_string()).collect();
            let hint = did_you_mean(word, known.iter().map(String::as_str))
                .unwrap_or_else(|| "`dutybound tree` shows what there is".to_owned());
            return Err(format!("the policy has no entitlement `{}`; {hint}", clean(word)));
        }
        selected.extend(named.into_iter().cloned());
    }
    Ok(selected)
}

/// What of the survey's drift becomes ours: what the policy calls for at this moment. Anybody else who holds the same
/// stays, because taking over must take nothing away.
#[must_use]
pub fn propose(survey: &Survey, policy: &Policy, selected: &BTreeSet<EntitlementId>, by: &str) -> Proposal {
    let (mut taken, mut left) = (Vec::new(), BTreeSet::new());
    for drift in survey
        .plan
        .drift
        .iter()
        .filter(|drift| selected.contains(&drift.entitlement))
    {
        let called_for = drift.person.as_ref().filter(|_| drift.desired);
        let causes = called_for.map(|person| (person, survey.desired.causes_of(&drift.entitlement, person)));
        match causes.filter(|(_, causes)| !causes.is_empty()) {
            Some((person, causes)) => taken.push(Change {
                kind: ChangeKind::Grant,
                entitlement: drift.entitlement.clone(),
                person: Some(person.clone()),
                target: drift.target.clone(),
                principal: crate::model::PrincipalId(drift.holder.clone().into()),
                causes: causes.to_vec(),
                rests_on: BTreeSet::new(),
                // It was in force before anybody was late with it.
                due: survey.at,
                foresight: Foresight::Ordered(format!("taken over by {by}")),
                context: policy
                    .projects
                    .get(&drift.entitlement.project)
                    .and_then(|p| p.context.clone()),
            }),
            None => {
                let holder = drift
                    .person
                    .as_ref()
                    .map_or_else(|| drift.holder.clone(), ToString::to_string);
                let why = if holder.starts_with("group:") {
                    "a group holds the assignment; its members are an entitlement of their own".to_owned()
                } else {
                    "the policy does not call for it now".to_owned()
                };
                left.insert(Left {
                    entitlement: drift.entitlement.clone(),
                    holder,
                    why,
                });
            }
        }
    }
    Proposal {
        digest: digest(&policy.revision, &taken),
        taken,
        left: left.into_iter().collect(),
    }
}

fn digest(revision: &str, taken: &[Change]) -> String {
    let mut hash = Sha256::new();
    hash.update(revision.as_bytes());
    for change in taken {
        for part in [
            change.entitlement.to_string().as_str(),
            &change.target.to_string(),
            &change.principal.0,
            &change.who(),
        ] {
            hash.update([0]);
            hash.update(part.as_bytes());
        }
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What is shown.
#[derive(Debug, Serialize)]
pub struct View {
    /// Whether it was recorded.
    pub recorded: bool,
    /// For `--confirm`.
    pub digest: String,
    /// What is or would be ours.
    pub taken: Vec<Taken>,
    /// What stays as it is.
    pub left: Vec<Left>,
}

/// One grant that becomes ours.
#[derive(Debug, Serialize)]
pub struct Taken {
    /// Of which entitlement.
    pub entitlement: EntitlementId,
    /// Whose.
    pub person: String,
    /// Why it goes on, and until when.
    pub causes: Vec<String>,
}

impl View {
    /// Of a proposal, recorded or not.
    #[must_use]
    pub fn new(proposal: &Proposal, recorded: bool) -> Self {
        let taken = |change: &Change| Taken {
            entitlement: change.entitlement.clone(),
            person: change.who(),
            causes: change.causes.iter().map(|one| cause(one)).collect(),
        };
        Self {
            recorded,
            digest: proposal.digest.clone(),
            taken: proposal.taken.iter().map(taken).collect(),
            left: proposal.left.clone(),
        }
    }

    /// For people; `words` are those of the command line.
    #[must_use]
    pub fn text(&self, words: &[String]) -> String {
        let mut out = String::new();
        let mut by_entitlement: BTreeMap<&EntitlementId, Vec<String>> = BTreeMap::new();
        for taken in &self.taken {
            let line = format!("    {}: {}\n", clean(&taken.person), taken.causes.join("; "));
            by_entitlement.entry(&taken.entitlement).or_default().push(line);
        }
        if !by_entitlement.is_empty() {
            out.push_str(if self.recorded {
                "Ours from now on:\n"
            } else {
                "Would become ours:\n"
            });
        }
        list(&mut out, by_entitlement);
        let mut by_entitlement: BTreeMap<&EntitlementId, Vec<String>> = BTreeMap::new();
        for left in &self.left {
            let line = format!("    {}: {}\n", clean(&left.holder), left.why);
            by_entitlement.entry(&left.entitlement).or_default().push(line);
        }
        if !by_entitlement.is_empty() {
            out.push_str("Not ours, and untouched:\n");
        }
        list(&mut out, by_entitlement);
        let words: Vec<String> = words.iter().map(|word| clean(word)).collect();
        out.push_str(&match (self.recorded, self.taken.len()) {
            (true, _) => "Recorded. Each is revoked when what calls for it ends, as if dutybound had granted it.\n".to_owned(),
            (false, 0) => "There is nothing to take over: nobody holds any of it whom the policy calls for and whose access is not ours.\n".to_owned(),
            (false, many) => format!(
                "Nothing was recorded. `dutybound adopt {} --confirm {}` makes exactly {} ours.\n",
                words.join(" "),
                self.digest,
                if many == 1 { "this one".to_owned() } else { format!("these {many}") }
            ),
        });
        out
    }
}

fn list(out: &mut String, groups: BTreeMap<&EntitlementId, Vec<String>>) {
    for (entitlement, lines) in groups {
        out.push_str(&format!("  {entitlement}\n"));
        out.extend(lines);
    }
}
