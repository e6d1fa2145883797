//! The smallest IAM policy with which the daemon can do its work for the configured entitlements.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::identity_center::{Call, MANY_GROUPS};
use crate::model::{GroupRef, PermissionSetRef, ResolvedTarget, Target};

mod import;

pub use import::for_import;

/// Longest customer managed policy that IAM stores, white space not counted (IAM quotas).
const LONGEST_MANAGED_POLICY: usize = 6_144;

/// Where the instance is, as far as it is known. Offline only the configuration speaks.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The configured region.
    pub region: &'a str,
    /// The account that owns the instance.
    pub owner_account_id: &'a str,
    /// `arn:aws:sso:::instance/ssoins-…`
    pub instance_arn: Option<&'a str>,
    /// `d-…`
    pub identity_store_id: Option<&'a str>,
}

/// A policy, and what the person who attaches it should know.
#[derive(Debug, Clone, PartialEq)]
pub struct IamPolicy {
    /// The policy document.
    pub document: Value,
    /// Where it is wider than it could be, and what it leaves out. Whole sentences.
    pub notes: Vec<String>,
}

/// What the configured targets name, sorted.
#[derive(Default)]
struct Needs {
    accounts: BTreeSet<String>,
    sets: BTreeSet<String>,
    groups: BTreeSet<String>,
    pairs: BTreeSet<(String, String)>,
    sets_by_name: bool,
    groups_by_name: bool,
    /// So many that a list of all asks for less.
    many_groups: bool,
    groups_by_id: bool,
    unresolved: BTreeSet<String>,
}

/// The parts of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    FindInstance,
    ReadInstance,
    GrantRevokeDirect,
    Identities,
    GrantRevokeGroup,
}

impl Part {
    const ALL: [Self; 5] = [
        Self::FindInstance,
        Self::ReadInstance,
        Self::GrantRevokeDirect,
        Self::Identities,
        Self::GrantRevokeGroup,
    ];

    fn sid(self) -> &'static str {
        match self {
            Self::FindInstance => "FindInstance",
            Self::ReadInstance => "ReadInstance",
            Self::GrantRevokeDirect => "GrantRevokeDirect",
            Self::Identities => "Identities",
            Self::GrantRevokeGroup => "GrantRevokeGroup",
        }
    }
}

/// In which part a call belongs, and whether these entitlements need it at all. Without a catch-all, so that a new
/// call does not compile before it has its place in the policy.
fn place_of(call: Call, needs: &Needs) -> (Part, bool) {
    let direct = !needs.sets.is_empty();
    let groups = needs.groups_by_name || needs.groups_by_id;
    match call {
        Call::ListInstances => (Part::FindInstance, true),
        // The daemon never asks these; `import` has a policy of its own.
        Call::ListAccountsForProvisionedPermissionSet | Call::ListPermissionSetsProvisionedToAccount => {
            (Part::ReadInstance, false)
        }
        Call::ListPermissionSets => (Part::ReadInstance, needs.sets_by_name),
        Call::DescribePermissionSet
        | Call::ListAccountAssignments
        | Call::DescribeAccountAssignmentCreationStatus
        | Call::DescribeAccountAssignmentDeletionStatus => (Part::ReadInstance, direct),
        Call::CreateAccountAssignment | Call::DeleteAccountAssignment => (Part::GrantRevokeDirect, direct),
        Call::GetUserId | Call::DescribeUser | Call::ListUsers => (Part::Identities, true),
        Call::GetGroupId => (Part::Identities, needs.groups_by_name),
        Call::DescribeGroup => (Part::Identities, needs.groups_by_id),
        Call::ListGroupMemberships | Call::GetGroupMembershipId => (Part::Identities, groups),
        Call::ListGroups => (Part::Identities, needs.many_groups),
        Call::CreateGroupMembership | Call::DeleteGroupMembership => (Part::GrantRevokeGroup, groups),
    }
}

/// The policy for exactly these targets, each with what it was resolved to, or `None` where nobody could be asked.
///
/// Which action takes which resource: AWS's Service Authorization Reference. The whole was not tried on AWS.
#[must_use]
pub fn iam_policy(place: &Place<'_>, targets: &[(Target, Option<ResolvedTarget>)]) -> IamPolicy {
    let names = Names::of(place);
    let needs = Needs::of(targets, &names);
    let mut statements = Vec::new();
    for part in Part::ALL {
        let actions: Vec<&str> = Call::ALL
            .iter()
            .filter(|call| place_of(**call, &needs) == (part, true))
            .map(|call| call.iam_action())
            .collect();
        if !actions.is_empty() {
            statements.push(json!({
                "Sid": part.sid(),
                "Effect": "Allow",
                "Action": actions,
                "Resource": names.resources(part, &needs),
            }));
        }
    }
    let in_management_account = needs.accounts.contains(place.owner_account_id);
    if in_management_account {
        statements.extend(management_account(&names.partition));
    }
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    let notes = notes(place, &needs, in_management_account, document.to_string().len());
    IamPolicy { document, notes }
}

/// Parts of ARNs.
struct Names {
    partition: String,
    instance_arn: String,
    instance_id: String,
    owner: String,
    store: String,
}

impl Names {
    fn of(place: &Place<'_>) -> Self {
        let from_arn = place.instance_arn.and_then(|arn| arn.split(':').nth(1));
        let from_region = match place.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let partition = from_arn.unwrap_or(from_region).to_owned();
        let instance_id = place.instance_arn.and_then(|arn| arn.rsplit('/').next()).unwrap_or("*");
        Self {
            instance_arn: match place.instance_arn {
                Some(arn) => arn.to_owned(),
                None => format!("arn:{partition}:sso:::instance/*"),
            },
            instance_id: instance_id.to_owned(),
            owner: place.owner_account_id.to_owned(),
            store: place.identity_store_id.unwrap_or("*").to_owned(),
            partition,
        }
    }

    fn sso(&self, rest: &str) -> String {
        format!("arn:{}:sso:::{rest}", self.partition)
    }

    fn every_set(&self) -> String {
        self.sso(&format!("permissionSet/{}/*", self.instance_id))
    }

    /// Objects in the identity store carry no account in their ARN.
    fn in_store(&self, rest: &str) -> String {
        format!("arn:{}:identitystore:::{rest}", self.partition)
    }

    fn resources(&self, part: Part, needs: &Needs) -> Value {
        let accounts = needs
            .accounts
            .iter()
            .map(|account| self.sso(&format!("account/{account}")));
        let store = format!(
            "arn:{}:identitystore::{}:identitystore/{}",
            self.partition, self.owner, self.store
        );
        let groups = needs
            .groups
            .iter()
            .map(|group| self.in_store(&format!("group/{group}")));
        let mut resources = BTreeSet::new();
        match part {
            Part::FindInstance => return json!("*"),
            Part::ReadInstance => {
                resources.insert(self.instance_arn.clone());
                // A name is found by looking at every permission set.
                if needs.sets_by_name {
                    resources.insert(self.every_set());
                } else {
                    resources.extend(needs.sets.iter().cloned());
                }
                resources.extend(accounts);
            }
            Part::GrantRevokeDirect => {
                resources.insert(self.instance_arn.clone());
                resources.extend(needs.sets.iter().cloned());
                resources.extend(accounts);
            }
            Part::Identities => {
                resources.insert(store);
                resources.insert(self.in_store("user/*"));
                if !needs.groups.is_empty() {
                    resources.insert(self.in_store("group/*"));
                    resources.insert(self.in_store("membership/*"));
                }
            }
            Part::GrantRevokeGroup => {
                resources.insert(store);
                resources.insert(self.in_store("user/*"));
                resources.insert(self.in_store("membership/*"));
                resources.extend(groups);
            }
        }
        json!(resources)
    }
}

impl Needs {
    fn of(targets: &[(Target, Option<ResolvedTarget>)], names: &Names) -> Self {
        let groups: BTreeSet<&Target> = targets.iter().map(|(target, _)| target).collect();
        let groups = groups.iter().filter(|target| matches!(target, Target::Group(_)));
        let mut needs = Self {
            many_groups: MANY_GROUPS < groups.count(),
            ..Self::default()
        };
        for (target, resolved) in targets {
            match target {
                Target::Assignment {
                    account,
                    permission_set,
                } => {
                    needs.sets_by_name |= matches!(permission_set, PermissionSetRef::Name(_));
                    let set = match (permission_set, resolved) {
                        (PermissionSetRef::Arn(arn), _) => arn.clone(),
                        (PermissionSetRef::Name(_), Some(ResolvedTarget::Assignment { permission_set_arn, .. })) => {
                            permission_set_arn.to_string()
                        }
                        (PermissionSetRef::Name(name), _) => {
                            needs.unresolved.insert(format!("permission set {name:?}"));
                            names.every_set()
                        }
                    };
                    needs.pairs.insert((account.clone(), set.clone()));
                    needs.accounts.insert(account.clone());
                    needs.sets.insert(set);
                }
                Target::Group(group) => {
                    let id = match (group, resolved) {
                        (GroupRef::Id(id), _) => id.clone(),
                        (GroupRef::Name(_), Some(ResolvedTarget::Group { group_id })) => group_id.to_string(),
                        (GroupRef::Name(name), _) => {
                            needs.unresolved.insert(format!("group {name:?}"));
                            "*".to_owned()
                        }
                    };
                    needs.groups_by_name |= matches!(group, GroupRef::Name(_));
                    needs.groups_by_id |= matches!(group, GroupRef::Id(_));
                    needs.groups.insert(id);
                }
            }
        }
        needs
    }
}

/// What AWS asks of whoever assigns access to the management account itself (AWS's user guide,
/// `iam-auth-access-using-id-policies`).
fn management_account(partition: &str) -> [Value; 3] {
    [
        json!({
            "Sid": "ManagementAccountList",
            "Effect": "Allow",
            "Action": ["iam:ListRoles", "iam:ListPolicies"],
            "Resource": "*",
        }),
        json!({
            "Sid": "ManagementAccountRoles",
            "Effect": "Allow",
            "Action": [
                "iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRole", "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy", "iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies",
                "iam:PutRolePolicy", "iam:UpdateRole", "iam:UpdateRoleDescription",
            ],
            "Resource": format!("arn:{partition}:iam::*:role/aws-reserved/sso.amazonaws.com/*"),
        }),
        json!({
            "Sid": "ManagementAccountProvider",
            "Effect": "Allow",
            "Action": ["iam:GetSAMLProvider"],
            "Resource": format!("arn:{partition}:iam::*:saml-provider/AWSSSO_*_DO_NOT_DELETE"),
        }),
    ]
}

fn notes(place: &Place<'_>, needs: &Needs, in_management_account: bool, length: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if place.instance_arn.is_none() || place.identity_store_id.is_none() {
        notes.push(
            "The instance was not asked for, so the policy names any instance or identity store; run this with AWS \
             credentials to narrow it."
                .to_owned(),
        );
    }
    if !needs.unresolved.is_empty() {
        let names: Vec<&str> = needs.unresolved.iter().map(String::as_str).collect();
        notes.push(format!(
            "Not looked up, so the policy allows changes to every one of their kind instead: {}.",
            names.join(", ")
        ));
    }
    if needs.pairs.len() < needs.accounts.len() * needs.sets.len() {
        notes.push(
            "IAM checks account and permission set separately, so the policy allows each listed permission set in \
             each listed account, which is more than the entitlements name."
                .to_owned(),
        );
    }
    if in_management_account {
        notes.push(format!(
            "Account {} owns the instance; assignments there need the iam:* statements and cannot be made from a \
             delegated administrator account.",
            place.owner_account_id
        ));
    }
    if length > LONGEST_MANAGED_POLICY {
        notes.push(format!(
            "The policy has {length} characters and a managed policy holds {LONGEST_MANAGED_POLICY}; split its \
             statements over several policies."
        ));
    }
    if needs.many_groups {
        notes.push(format!(
            "{} is optional: with it, more than {MANY_GROUPS} groups at once are looked up by one list instead of one by one; \
             without it the first pass after a start takes as many requests as there are groups.",
            Call::ListGroups.iam_action()
        ));
    }
    notes.push(format!(
        "{} is optional: with it, more than 100 people at once are looked up by one list instead of one by one. Leave it out \
         where fewer are concerned or nobody may list everybody; nothing else depends on it.",
        Call::ListUsers.iam_action()
    ));
    notes.push(
        "If the instance is encrypted with a customer managed KMS key, add kms:Decrypt on that key; if your \
         organisation denies sso-directory:* actions, allow the twins of the identitystore actions too."
            .to_owned(),
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "arn:aws:sso:::instance/ssoins-1";
    const SET: &str = "arn:aws:sso:::permissionSet/ssoins-1/ps-1";

    fn place() -> Place<'static> {
        Place {
            region: "eu-central-1",
            owner_account_id: "111122223333",
            instance_arn: Some(INSTANCE),
            identity_store_id: Some("d-1"),
        }
    }

    fn by_name(account: &str, name: &str) -> Target {
        Target::Assignment {
            account: account.to_owned(),
            permission_set: PermissionSetRef::Name(name.to_owned()),
        }
    }

    fn assigned(account: &str, set: &str) -> Option<ResolvedTarget> {
        Some(ResolvedTarget::Assignment {
            account: account.into(),
            permission_set_arn: set.into(),
        })
    }

    fn group_by_name() -> (Target, Option<ResolvedTarget>) {
        let id = "g-1".to_owned();
        (
            Target::Group(GroupRef::Name("readers".to_owned())),
            Some(ResolvedTarget::Group { group_id: id.into() }),
        )
    }

    fn statement<'a>(policy: &'a IamPolicy, sid: &str) -> Option<&'a Value> {
        let statements = policy.document["Statement"].as_array().unwrap();
        statements.iter().find(|statement| statement["Sid"] == sid)
    }

    fn actions(policy: &IamPolicy) -> BTreeSet<String> {
        let statements = policy.document["Statement"].as_array().unwrap();
        let all = statements
            .iter()
            .flat_map(|statement| statement["Action"].as_array().unwrap());
        all.map(|action| action.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_call_that_we_make_is_allowed_and_nothing_else() {
        let targets = [
            (by_name("222222222222", "Admin"), assigned("222222222222", SET)),
            group_by_name(),
            (Target::Group(GroupRef::Id("g-2".to_owned())), None),
        ];
        let import = actions(&for_import(&place()));
        assert!(
            !import
                .iter()
                .any(|action| action.contains("Create") || action.contains("Delete"))
        );
        let all: BTreeSet<String> = Call::ALL.iter().map(|call| call.iam_action().to_owned()).collect();
        let allowed = &actions(&iam_policy(&place(), &targets)) | &import;
        assert_eq!(allowed, all);
    }

    #[test]
    fn changes_are_limited_to_what_the_entitlements_name() {
        let targets = [
            (by_name("222222222222", "Admin"), assigned("222222222222", SET)),
            group_by_name(),
        ];
        let policy = iam_policy(&place(), &targets);
        assert_eq!(
            statement(&policy, "GrantRevokeDirect").unwrap(),
            &json!({
                "Sid": "GrantRevokeDirect",
                "Effect": "Allow",
                "Action": ["sso:CreateAccountAssignment", "sso:DeleteAccountAssignment"],
                "Resource": ["arn:aws:sso:::account/222222222222", INSTANCE, SET],
            })
        );
        assert_eq!(
            statement(&policy, "GrantRevokeGroup").unwrap()["Resource"],
            json!([
                "arn:aws:identitystore::111122223333:identitystore/d-1",
                "arn:aws:identitystore:::group/g-1",
                "arn:aws:identitystore:::membership/*",
                "arn:aws:identitystore:::user/*",
            ])
        );
        assert_eq!(policy.notes.len(), 2, "{:?}", policy.notes);
        assert!(
            policy.notes[0].contains("identitystore:ListUsers is optional"),
            "{:?}",
            policy.notes
        );
    }

    #[test]
    fn one_kind_of_entitlement_needs_nothing_of_the_other() {
        let groups = actions(&iam_policy(&place(), &[group_by_name()]));
        assert!(
            !groups
                .iter()
                .any(|action| action.contains("Account") || action.contains("PermissionSet"))
        );
        assert!(!groups.contains("identitystore:DescribeGroup"));

        let arn = Target::Assignment {
            account: "222222222222".to_owned(),
            permission_set: PermissionSetRef::Arn(SET.to_owned()),
        };
        let policy = iam_policy(&place(), &[(arn, None)]);
        let direct = actions(&policy);
        assert!(!direct.iter().any(|action| action.contains("Group")));
        assert!(!direct.contains("sso:ListPermissionSets"));
        let read = &statement(&policy, "ReadInstance").unwrap()["Resource"];
        assert_eq!(*read, json!(["arn:aws:sso:::account/222222222222", INSTANCE, SET]));
    }

    #[test]
    fn what_is_not_known_becomes_a_wildcard_and_is_said() {
        let place = Place {
            region: "cn-north-1",
            instance_arn: None,
            identity_store_id: None,
            ..place()
        };
        let targets = [
            (by_name("222222222222", "Admin"), None),
            (Target::Group(GroupRef::Name("readers".to_owned())), None),
        ];
        let policy = iam_policy(&place, &targets);
        let resources = statement(&policy, "GrantRevokeDirect").unwrap()["Resource"].to_string();
        assert!(resources.contains("arn:aws-cn:sso:::permissionSet/*/*"), "{resources}");
        let resources = statement(&policy, "GrantRevokeGroup").unwrap()["Resource"].to_string();
        assert!(resources.contains("arn:aws-cn:identitystore:::group/*"), "{resources}");
        let notes = policy.notes.join("\n");
        for word in ["permission set \"Admin\"", "group \"readers\"", "any instance"] {
            assert!(notes.contains(word), "{notes}");
        }
    }

    #[test]
    fn wider_than_meant_and_the_management_account_are_said() {
        let other = "arn:aws:sso:::permissionSet/ssoins-1/ps-2";
        let targets = [
            (by_name("111122223333", "Admin"), assigned("111122223333", SET)),
            (by_name("222222222222", "Read"), assigned("222222222222", other)),
        ];
        let policy = iam_policy(&place(), &targets);
        let notes = policy.notes.join("\n");
        assert!(
            notes.contains("each listed account") && notes.contains("111122223333"),
            "{notes}"
        );
        assert!(actions(&policy).contains("iam:GetSAMLProvider"));

        let many: Vec<_> = (0..200)
            .map(|n| {
                let account = format!("{:012}", 300_000_000_000_u64 + n);
                (by_name(&account, "Admin"), assigned(&account, SET))
            })
            .collect();
        let notes = iam_policy(&place(), &many).notes.join("\n");
        assert!(notes.contains("6144"), "{notes}");
    }

    #[test]
    fn listing_groups_is_asked_for_where_so_many_are_named_that_it_saves_requests() {
        let groups = |count: usize| {
            let name = |n| Target::Group(GroupRef::Name(format!("group-{n}")));
            let targets: Vec<_> = (0..count).map(|n| (name(n), None)).collect();
            iam_policy(&place(), &targets)
        };
        for (count, listed) in [(MANY_GROUPS, false), (MANY_GROUPS + 1, true)] {
            let policy = groups(count);
            let said = policy.notes.join("\n").contains("identitystore:ListGroups is optional");
            let allowed = actions(&policy).contains("identitystore:ListGroups");
            assert_eq!((allowed, said), (listed, listed), "{count}");
        }
    }
}
