//! From who holds what to projects that say so. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::names::Taken;
use super::read::{Found, Nobody, Who};
use crate::document::identity_store_id;
use crate::identity_center::Holders;
use crate::model::{GroupRef, PermissionSetRef, Person, ProjectName, ResolvedTarget, Target};
use crate::text::hides;

/// Everything that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// One file each.
    pub projects: Vec<Draft>,
    /// What concerns no file. Whole sentences.
    pub notes: Vec<String>,
}

/// A project that says what people hold today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Valid and unique in the policy.
    pub name: String,
    /// Below which project it stands.
    pub parent: Option<ProjectName>,
    /// The operator, until somebody else is named.
    pub owner: Person,
    /// Where it comes from, in words.
    pub about: String,
    /// What it owns.
    pub entitlements: Vec<Entitlement>,
    /// Everybody who holds any of it.
    pub members: BTreeMap<Person, Member>,
    /// What could not be explained and belongs to no single entitlement.
    pub unexplained: Vec<Unexplained>,
}

/// Somebody who holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What they are called.
    pub called: String,
}

/// Something grantable, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    /// Valid and unique in the project.
    pub name: String,
    /// What it grants.
    pub target: Target,
    /// What to know or to do about it. A line that begins with two spaces is a command and stays whole.
    pub about: Vec<String>,
    /// Who holds it and can be named.
    pub holders: BTreeSet<Person>,
    /// What could not be explained about it.
    pub unexplained: Vec<Unexplained>,
}

/// Something that a policy cannot say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unexplained {
    /// A stable word.
    pub kind: &'static str,
    /// What it is and what to do.
    pub words: String,
}

impl Unexplained {
    /// Whether the policy in force explains it already.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.kind == ALREADY
    }
}

/// The kind of what the policy in force has already.
const ALREADY: &str = "already_managed";

/// What the operator says about the projects that come into being.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Who owns them for now.
    pub owner: Person,
    /// Below which project they stand.
    pub parent: Option<ProjectName>,
    /// Whether groups are to do what account assignments do today.
    pub as_groups: bool,
    /// Names of accounts by id.
    pub accounts: BTreeMap<String, String>,
}

impl Draft {
    /// The prerequisite by which members of the project who hold an entitlement are told from those who do not; `None`
    /// where all of them hold it.
    #[must_use]
    pub fn mark(&self, entitlement: &Entitlement) -> Option<String> {
        let all = self.members.keys().all(|person| entitlement.holders.contains(person));
        (!all).then(|| format!("holds-{}", entitlement.name))
    }
}

impl Entitlement {
    fn new(name: String, target: Target) -> Self {
        Self {
            name,
            target,
            about: Vec::new(),
            holders: BTreeSet::new(),
            unexplained: Vec::new(),
        }
    }

    /// Takes in who holds it; whoever cannot be named becomes unexplained.
    fn hold(&mut self, holders: &Holders, found: &Found, members: &mut BTreeMap<Person, Member>) {
        for id in &holders.users {
            match found.people.get(id) {
                Some(Who::Person { person, called }) => {
                    self.holders.insert(person.clone());
                    members.insert(person.clone(), Member { called: called.clone() });
                }
                Some(Who::Nobody(nobody, words)) => {
                    self.unexplained.push(Unexplained {
                        kind: kind(*nobody),
                        words: words.clone(),
                    });
                }
                None => self.unexplained.push(Unexplained {
                    kind: kind(Nobody::OrphanedAssignment),
                    words: format!("the user {id} was not looked up"),
                }),
            }
        }
    }
}

fn kind(nobody: Nobody) -> &'static str {
    match nobody {
        Nobody::OrphanedAssignment => "orphaned_assignment",
        Nobody::UserDisabled => "user_disabled",
        Nobody::UserWithoutEmail => "user_without_email",
        Nobody::UserAmbiguous => "user_ambiguous",
    }
}

/// Makes a project of each account and of each group. `known` are the names of the projects that there are.
#[must_use]
pub fn draft(found: &Found, owner: &Owner, known: impl IntoIterator<Item = String>) -> Imported {
    let mut drafter = Drafter {
        found,
        owner,
        taken: Taken::with(known),
        projects_of_groups: BTreeMap::new(),
        imported: Imported {
            projects: Vec::new(),
            notes: Vec::new(),
        },
    };
    let groups = drafter.groups();
    if owner.as_groups {
        drafter.as_groups();
    } else {
        drafter.accounts();
    }
    drafter.imported.projects.extend(groups);
    drafter.imported
}

struct Drafter<'a> {
    found: &'a Found,
    owner: &'a Owner,
    taken: Taken,
    projects_of_groups: BTreeMap<&'a str, String>,
    imported: Imported,
}

impl<'a> Drafter<'a> {
    fn project(&mut self, name: &str, otherwise: &str, about: String) -> Draft {
        Draft {
            name: self.taken.make(name, otherwise),
            parent: self.owner.parent.clone(),
            owner: self.owner.owner.clone(),
            about,
            entitlements: Vec::new(),
            members: BTreeMap::new(),
            unexplained: Vec::new(),
        }
    }

    /// A project that owns something goes into a file; what else was seen is noted.
    fn finish(&mut self, draft: Draft) {
        if draft.entitlements.is_empty() {
            self.imported
                .notes
                .extend(draft.unexplained.into_iter().map(|unexplained| unexplained.words));
        } else {
            self.imported.projects.push(draft);
        }
    }

    fn already(&self, target: &ResolvedTarget, what: &str) -> Option<Unexplained> {
        let (id, origin) = self.found.managed.get(target)?;
        Some(Unexplained {
            kind: ALREADY,
            words: format!("{what} is {id} already, at {origin}; it is not repeated"),
        })
    }

    fn account(&self, id: &str) -> String {
        match self.owner.accounts.get(id) {
            Some(name) => format!("{id} ({name})"),
            None => id.to_owned(),
        }
    }

    fn set_name(&self, arn: &str) -> String {
        let name = self.found.set_names.get(arn).filter(|name| !name.is_empty());
        name.cloned().unwrap_or_else(|| arn.to_owned())
    }

    fn groups(&mut self) -> Vec<Draft> {
        let found = self.found;
        let mut drafts = Vec::new();
        for (id, (name, holders)) in &found.groups {
            let target = ResolvedTarget::Group {
                group_id: id.clone().into(),
            };
            if let Some(already) = self.already(&target, &format!("the group {name}")) {
                self.imported.notes.push(already.words);
                continue;
            }
            let about = format!("the group {name} ({id})");
            let otherwise = format!("group-{}", tail(id));
            let mut draft = self.project(name, &otherwise, about);
            self.projects_of_groups.insert(id, draft.name.clone());
            let group = if can_be_written(name) && name.chars().count() <= 1024 && !identity_store_id(name) {
                GroupRef::Name(name.clone())
            } else {
                GroupRef::Id(id.clone())
            };
            let mut entitlement = Entitlement::new("membership".to_owned(), Target::Group(group));
            entitlement.hold(holders, found, &mut draft.members);
            if holders.users.is_empty() {
                entitlement.about.push("Nobody is in this group.".to_owned());
            }
            draft.entitlements.push(entitlement);
            drafts.push(draft);
        }
        drafts
    }

    /// Groups that hold an assignment: by design their members are managed as an entitlement of their own.
    fn group_rows(&self, holders: &Holders, what: &str) -> Vec<Unexplained> {
        let row = |id: &String| match self.found.holding_groups.get(id) {
            Some(Some(name)) => {
                let elsewhere = match self.projects_of_groups.get(id.as_str()) {
                    Some(project) => format!("its members stand in project {project}"),
                    None => format!("`dutybound import --group {id}` imports its members"),
                };
                Unexplained {
                    kind: "group_assignment",
                    words: format!(
                        "the group {name} ({id}) holds {what}; that assignment stays, and being in the group is the \
                         entitlement: {elsewhere}"
                    ),
                }
            }
            _ => Unexplained {
                kind: "orphaned_assignment",
                words: format!("the group {id} holds {what} and does not exist any more; remove that assignment"),
            },
        };
        holders.groups.iter().map(row).collect()
    }

    fn accounts(&mut self) {
        let found = self.found;
        let mut by_account: BTreeMap<&str, Vec<(&str, &Holders)>> = BTreeMap::new();
        for ((account, arn), holders) in &found.assignments {
            by_account.entry(account).or_default().push((arn, holders));
        }
        for (account, sets) in by_account {
            let name = self.owner.accounts.get(account).cloned().unwrap_or_default();
            let about = format!("the account {}", self.account(account));
            let mut draft = self.project(&name, &format!("account-{account}"), about);
            let mut names = Taken::default();
            for (arn, holders) in sets {
                let set = self.set_name(arn);
                let what = format!("{set} in {}", self.account(account));
                let target = ResolvedTarget::Assignment {
                    account: account.into(),
                    permission_set_arn: arn.into(),
                };
                if let Some(already) = self.already(&target, &what) {
                    draft.unexplained.push(already);
                    continue;
                }
                let groups = self.group_rows(holders, &what);
                if holders.users.is_empty() {
                    draft.unexplained.extend(groups);
                    continue;
                }
                let otherwise = format!("permission-set-{}", tail(arn));
                let mut entitlement = Entitlement::new(
                    names.make(&set, &otherwise),
                    Target::Assignment {
                        account: account.to_owned(),
                        permission_set: self.permission_set(arn),
                    },
                );
                entitlement.unexplained = groups;
                entitlement.hold(holders, found, &mut draft.members);
                draft.entitlements.push(entitlement);
            }
            self.finish(draft);
        }
    }

    /// By name where the API would allow the name, else by ARN.
    fn permission_set(&self, arn: &str) -> PermissionSetRef {
        let name = self.found.set_names.get(arn).filter(|name| {
            let valid = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
            (1..=32).contains(&name.len()) && name.bytes().all(valid)
        });
        match name {
            Some(name) => PermissionSetRef::Name(name.clone()),
            None => PermissionSetRef::Arn(arn.to_owned()),
        }
    }

    /// One group for all assignments that the same people hold.
    fn as_groups(&mut self) {
        let found = self.found;
        let mut by_holders: BTreeMap<BTreeSet<Person>, Vec<(&str, &str, Entitlement)>> = BTreeMap::new();
        let mut members = BTreeMap::new();
        for ((account, arn), holders) in &found.assignments {
            let what = format!("{} in {}", self.set_name(arn), self.account(account));
            let target = ResolvedTarget::Assignment {
                account: account.clone().into(),
                permission_set_arn: arn.clone().into(),
            };
            if let Some(already) = self.already(&target, &what) {
                self.imported.notes.push(already.words);
                continue;
            }
            let target = Target::Assignment {
                account: account.clone(),
                permission_set: self.permission_set(arn),
            };
            let mut direct = Entitlement::new(what.clone(), target);
            direct.unexplained = self.group_rows(holders, &what);
            direct.hold(holders, found, &mut members);
            if direct.holders.is_empty() {
                let words = direct.unexplained.into_iter().map(|unexplained| unexplained.words);
                let words = words.map(|words| format!("Of {what}: {words}."));
                self.imported.notes.extend(words);
            } else {
                by_holders
                    .entry(direct.holders.clone())
                    .or_default()
                    .push((account, arn, direct));
            }
        }
        for (holders, assignments) in by_holders {
            let draft = self.group_for(&holders, assignments, &members);
            self.imported.projects.push(draft);
        }
    }

    fn group_for(
        &mut self,
        holders: &BTreeSet<Person>,
        assignments: Vec<(&str, &str, Entitlement)>,
        members: &BTreeMap<Person, Member>,
    ) -> Draft {
        let accounts: BTreeSet<&str> = assignments.iter().map(|(account, ..)| *account).collect();
        let sets: BTreeSet<String> = assignments.iter().map(|(_, arn, _)| self.set_name(arn)).collect();
        let short = |account: &&str| match self.owner.accounts.get(*account) {
            Some(name) => name.clone(),
            None => format!("account-{account}"),
        };
        let place = match (accounts.len(), accounts.first()) {
            (1, Some(only)) => short(only),
            (many, _) => format!("{many}-accounts"),
        };
        let what = sets.into_iter().collect::<Vec<_>>().join("-");
        let several = assignments.len();
        let about = format!(
            "{several} account {}",
            if several == 1 { "assignment" } else { "assignments" }
        );
        let mut draft = self.project(&format!("{place}-{what}"), "shared-access", about);
        draft.members = holders
            .iter()
            .filter_map(|person| members.get_key_value(person))
            .map(|(p, m)| (p.clone(), m.clone()))
            .collect();
        let mut entitlement = Entitlement::new(
            "membership".to_owned(),
            Target::Group(GroupRef::Name(draft.name.clone())),
        );
        entitlement.about = self.instructions(&draft.name, &assignments);
        for (_, _, direct) in assignments {
            entitlement.unexplained.extend(direct.unexplained);
        }
        entitlement.holders.clone_from(holders);
        draft.entitlements.push(entitlement);
        draft
    }

    /// What the operator does, because dutybound creates no group and assigns none.
    fn instructions(&self, group: &str, assignments: &[(&str, &str, Entitlement)]) -> Vec<String> {
        let instance = &self.found.instance;
        let mut lines = vec![
            "This group does not exist by this import. Make it, and put its id for GROUP below:".to_owned(),
            format!(
                "  aws identitystore create-group --identity-store-id {} --display-name {group}",
                instance.identity_store_id
            ),
            "Assign it once to each of these:".to_owned(),
        ];
        for (account, arn, direct) in assignments {
            lines.push(format!("  # {}", direct.name));
            lines.push(format!(
                "  aws sso-admin create-account-assignment --instance-arn {} \\",
                instance.arn
            ));
            lines.push(format!("    --target-type AWS_ACCOUNT --target-id {account} \\"));
            lines.push(format!("    --permission-set-arn {arn} \\"));
            lines.push("    --principal-type GROUP --principal-id GROUP".to_owned());
        }
        lines.push(
            "From then on dutybound keeps only who is in the group: one change of membership instead of one for each \
             assignment. Once the members are in it, take away what they hold directly, with `aws sso-admin \
             delete-account-assignment`; until then they hold it twice."
                .to_owned(),
        );
        lines
    }
}

/// Whether a policy can say this name: nothing of it is hidden from whoever reads the file.
fn can_be_written(name: &str) -> bool {
    !name.trim().is_empty() && !name.chars().any(|c| c.is_control() || hides(c))
}

/// The end of an id, which tells one from another.
fn tail(id: &str) -> &str {
    let at = id.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
    &id[at..]
}
