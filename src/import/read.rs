//! Reads who holds what was asked for, and who they are. All of it, or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::{Config, Identity};
use crate::identity_center::{AwsError, AwsErrorKind, Holders, Instance, Inventory, Read, Resolution, User, UserPin};
use crate::model::{EntitlementId, GroupRef, Origin, PermissionSetRef, Person, PrincipalId, ResolvedTarget, Target};
use crate::policy::Policy;

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Accounts, by id. With permission sets as well: only those in these accounts.
    pub accounts: BTreeSet<String>,
    /// Permission sets, wherever they are assigned.
    pub permission_sets: Vec<PermissionSetRef>,
    /// Groups.
    pub groups: Vec<GroupRef>,
    /// Everything of the instance.
    pub all: bool,
}

/// Who holds what, read completely.
#[derive(Debug)]
pub struct Found {
    /// Where it was read.
    pub instance: Instance,
    /// Holders by account and permission set's ARN. Pairs that nobody holds are left out.
    pub assignments: BTreeMap<(String, String), Holders>,
    /// Name and holders by group id.
    pub groups: BTreeMap<String, (String, Holders)>,
    /// The name of every permission set by its ARN.
    pub set_names: BTreeMap<String, String>,
    /// Groups that hold assignments, by id; `None` for one that is gone.
    pub holding_groups: BTreeMap<String, Option<String>>,
    /// Everybody who holds something.
    pub people: BTreeMap<PrincipalId, Who>,
    /// What the policy in force has already, and where.
    pub managed: BTreeMap<ResolvedTarget, (EntitlementId, Origin)>,
}

/// Who a user is, as far as a policy can name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Somebody whom dutybound finds again by this address.
    Person {
        /// The address.
        person: Person,
        /// What they are called.
        called: String,
    },
    /// Somebody whom no policy can name, with the reason in words, such as `alice (alice@example.com) is disabled`.
    Nobody(Nobody, String),
}

/// Why no policy can name a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nobody {
    /// There is no such user any more.
    OrphanedAssignment,
    /// The user is disabled.
    UserDisabled,
    /// The user has no address.
    UserWithoutEmail,
    /// The address leads to another user or to several.
    UserAmbiguous,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// AWS could not be asked, or does not know what was asked for.
    #[error("nothing was imported, because not everything could be read")]
    Aws(#[from] AwsError),
    /// A read broke off.
    #[error("nothing was imported, because a read broke off; try again")]
    BrokenOff(#[from] tokio::task::JoinError),
}

/// Reads everything that the request asks for.
///
/// # Errors
/// [`ImportError`]; nothing is imported in part.
pub async fn read(
    reader: &Arc<dyn Read>,
    inventory: &Inventory,
    config: &Config,
    policy: Option<&Policy>,
    request: &Request,
) -> Result<Found, ImportError> {
    let instance = reader.instance().await?;
    let direct = request.all || !request.accounts.is_empty() || !request.permission_sets.is_empty();
    let set_names = if direct {
        inventory.permission_sets().await?
    } else {
        BTreeMap::new()
    };
    let pairs = pairs(reader, inventory, request, &set_names).await?;
    let reads = pairs.into_iter().map(|(account, permission_set_arn)| {
        let target = ResolvedTarget::Assignment {
            account: account.clone().into(),
            permission_set_arn: permission_set_arn.clone().into(),
        };
        let reader = Arc::clone(reader);
        async move { Ok(((account, permission_set_arn), reader.holders(&target).await?)) }
    });
    let mut assignments = together(reads).await?;
    assignments.retain(|_, holders| !holders.users.is_empty() || !holders.groups.is_empty());

    let names = group_names(reader, inventory, request).await?;
    let reads = names.into_iter().map(|(id, name)| {
        let target = ResolvedTarget::Group {
            group_id: id.clone().into(),
        };
        let reader = Arc::clone(reader);
        async move { Ok((id, (name, reader.holders(&target).await?))) }
    });
    let groups = together(reads).await?;

    let holding: BTreeSet<String> = assignments
        .values()
        .flat_map(|holders| holders.groups.clone())
        .collect();
    let reads = holding.into_iter().map(|id| {
        let inventory = inventory.clone();
        async move {
            let name = inventory.group_name(&id).await?;
            Ok((id, name))
        }
    });
    let holding_groups = together(reads).await?;

    let holders = assignments.values().chain(groups.values().map(|(_, holders)| holders));
    let users: BTreeSet<PrincipalId> = holders.flat_map(|holders| holders.users.iter().cloned()).collect();
    let identities: Arc<[Identity]> = config.identities.clone().into();
    let reads = users.into_iter().map(|id| {
        let (reader, inventory, identities) = (Arc::clone(reader), inventory.clone(), Arc::clone(&identities));
        async move {
            let who = who(&*reader, &inventory, &identities, &id).await?;
            Ok((id, who))
        }
    });
    let people = together(reads).await?;

    Ok(Found {
        instance,
        assignments,
        groups,
        set_names,
        holding_groups,
        people,
        managed: match policy {
            Some(policy) => managed(reader, policy).await?,
            None => BTreeMap::new(),
        },
    })
}

/// Which permission sets to look at in which accounts.
async fn pairs(
    reader: &Arc<dyn Read>,
    inventory: &Inventory,
    request: &Request,
    set_names: &BTreeMap<String, String>,
) -> Result<BTreeSet<(String, String)>, ImportError> {
    let mut sets = BTreeSet::new();
    for permission_set in &request.permission_sets {
        // The account plays no part in finding a permission set.
        let target = Target::Assignment {
            account: String::new(),
            permission_set: permission_set.clone(),
        };
        if let ResolvedTarget::Assignment { permission_set_arn, .. } = reader.resolve_target(&target).await? {
            sets.insert(permission_set_arn.into());
        }
    }
    if request.all {
        sets = set_names.keys().cloned().collect();
    }
    let both = |account: &String, arn: &String| (account.clone(), arn.clone());
    if !sets.is_empty() && !request.accounts.is_empty() {
        return Ok(request
            .accounts
            .iter()
            .flat_map(|account| sets.iter().map(move |arn| both(account, arn)))
            .collect());
    }
    let reads = sets.into_iter().map(|arn| {
        let inventory = inventory.clone();
        async move { Ok((arn.clone(), inventory.accounts_with(&arn).await?)) }
    });
    let by_set = together(reads).await?;
    let reads = request.accounts.iter().cloned().map(|account| {
        let inventory = inventory.clone();
        async move { Ok((account.clone(), inventory.sets_in(&account).await?)) }
    });
    let by_account = together(reads).await?;
    let of_sets = by_set
        .iter()
        .flat_map(|(arn, accounts)| accounts.iter().map(move |account| both(account, arn)));
    let of_accounts = by_account
        .iter()
        .flat_map(|(account, arns)| arns.iter().map(move |arn| both(account, arn)));
    Ok(of_sets.chain(of_accounts).collect())
}

async fn group_names(
    reader: &Arc<dyn Read>,
    inventory: &Inventory,
    request: &Request,
) -> Result<BTreeMap<String, String>, ImportError> {
    if request.all {
        return Ok(inventory.groups().await?);
    }
    let mut names = BTreeMap::new();
    for group in &request.groups {
        if let ResolvedTarget::Group { group_id } = reader.resolve_target(&Target::Group(group.clone())).await? {
            let name = match group {
                GroupRef::Name(name) => name.clone(),
                GroupRef::Id(id) => inventory.group_name(id).await?.unwrap_or_default(),
            };
            names.insert(group_id.into(), name);
        }
    }
    Ok(names)
}

/// What the policy in force means. What it names and AWS does not know cannot be among what is imported.
async fn managed(
    reader: &Arc<dyn Read>,
    policy: &Policy,
) -> Result<BTreeMap<ResolvedTarget, (EntitlementId, Origin)>, ImportError> {
    let reads = policy.entitlements().map(|entitlement| {
        let (reader, target) = (Arc::clone(reader), entitlement.target.clone());
        let (id, origin) = (entitlement.id.clone(), entitlement.origin.clone());
        async move {
            match reader.resolve_target(&target).await {
                Ok(target) => Ok((id, Some((target, origin)))),
                Err(error) if error.kind == AwsErrorKind::NotFound => Ok((id, None)),
                Err(error) => Err(error),
            }
        }
    });
    let known = together(reads).await?.into_iter();
    Ok(known
        .filter_map(|(id, known)| known.map(|(target, origin)| (target, (id, origin))))
        .collect())
}

/// Finds the address by which a pass would find this very user.
async fn who(
    reader: &dyn Read,
    inventory: &Inventory,
    identities: &[Identity],
    id: &PrincipalId,
) -> Result<Who, AwsError> {
    let Some(user) = inventory.user(id).await? else {
        let words = format!("the user {id} does not exist any more; remove what is left of them in Identity Center");
        return Ok(Who::Nobody(Nobody::OrphanedAssignment, words));
    };
    let called = called(&user, id);
    if !user.enabled {
        let words = format!("{called} is disabled in Identity Center and is granted nothing by a policy");
        return Ok(Who::Nobody(Nobody::UserDisabled, words));
    }
    let pinned = identities.iter().filter(|identity| match &identity.identity_center {
        Some(UserPin::Id(pin)) => pin == id,
        Some(UserPin::UserName(name)) => user.user_name.as_ref() == Some(name),
        None => false,
    });
    let written = user
        .emails
        .iter()
        .chain(&user.user_name)
        .flat_map(|text| Person::parse(text));
    let candidates: Vec<Person> = pinned.map(|identity| identity.person.clone()).chain(written).collect();
    for person in &candidates {
        let pin = identities.iter().find(|identity| identity.person == *person);
        let pin = pin.and_then(|identity| identity.identity_center.as_ref());
        if reader.resolve_person(person, pin).await? == Resolution::Found(id.clone()) {
            return Ok(Who::Person {
                person: person.clone(),
                called,
            });
        }
    }
    Ok(match candidates.first() {
        None => Who::Nobody(
            Nobody::UserWithoutEmail,
            format!("{called} has no e-mail address; give them one, or map one to {id} in [[identity]]"),
        ),
        Some(person) => Who::Nobody(
            Nobody::UserAmbiguous,
            format!("{called}: {person} does not lead to this user alone; map {person} to {id} in [[identity]]"),
        ),
    })
}

/// What to call a user: their display name and where to find them.
fn called(user: &User, id: &PrincipalId) -> String {
    let name = user.display_name.as_ref().filter(|name| !name.trim().is_empty());
    let handle = user.emails.first().or(user.user_name.as_ref());
    match (name, handle) {
        (Some(name), Some(handle)) if name != handle => format!("{name} ({handle})"),
        (Some(one), _) | (None, Some(one)) => one.clone(),
        (None, None) => format!("the user {id}"),
    }
}

/// Does all at the same time, as the limiter lets them; the first failure ends it.
async fn together<K, V, F>(reads: impl Iterator<Item = F>) -> Result<BTreeMap<K, V>, ImportError>
where
    K: Ord + Send + 'static,
    V: Send + 'static,
    F: Future<Output = Result<(K, V), AwsError>> + Send + 'static,
{
    let mut under_way: JoinSet<_> = reads.collect();
    let mut read = BTreeMap::new();
    while let Some(ended) = under_way.join_next().await {
        let (key, value) = ended??;
        read.insert(key, value);
    }
    Ok(read)
}
