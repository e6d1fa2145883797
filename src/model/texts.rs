//! Texts that many rows of the record, or many held changes, repeat, each kept in memory once.

use std::sync::Arc;

use foldhash::HashSet;
use smol_str::SmolStr;

use super::{Basis, Cause, EntitlementId, MemberRef, Origin, Person, PrincipalId, ResolvedTarget, Right};

/// The texts met so far, and what a rule and a membership say that many causes rest on. Short texts are no more than a
/// pointer and are not kept here.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    texts: HashSet<SmolStr>,
    rights: HashSet<Arc<Right>>,
    members: HashSet<Arc<MemberRef>>,
}

impl Texts {
    /// How much is kept.
    pub(crate) fn len(&self) -> usize {
        self.texts.len() + self.rights.len() + self.members.len()
    }

    pub(crate) fn share(&mut self, text: &mut SmolStr) {
        if !text.is_heap_allocated() {
            return;
        }
        match self.texts.get(text) {
            Some(known) => *text = known.clone(),
            None => drop(self.texts.insert(text.clone())),
        }
    }

    pub(crate) fn entitlement(&mut self, entitlement: &mut EntitlementId) {
        self.share(&mut entitlement.project.0);
        self.share(&mut entitlement.name);
    }

    pub(crate) fn person(&mut self, person: &mut Person) {
        self.share(&mut person.0);
    }

    pub(crate) fn principal(&mut self, principal: &mut PrincipalId) {
        self.share(&mut principal.0);
    }

    pub(crate) fn target(&mut self, target: &mut ResolvedTarget) {
        match target {
            ResolvedTarget::Assignment {
                account,
                permission_set_arn,
            } => {
                self.share(account);
                self.share(permission_set_arn);
            }
            ResolvedTarget::Group { group_id } => self.share(group_id),
        }
    }

    pub(crate) fn cause(&mut self, cause: &mut Cause) {
        self.person(&mut cause.person);
        if let Some(member) = &mut cause.member {
            self.member(member);
        }
        if let Some(known) = self.rights.get(&cause.right) {
            cause.right = Arc::clone(known);
            return;
        }
        self.right(Arc::make_mut(&mut cause.right));
        self.rights.insert(Arc::clone(&cause.right));
    }

    fn member(&mut self, member: &mut Arc<MemberRef>) {
        if let Some(known) = self.members.get(member) {
            *member = Arc::clone(known);
            return;
        }
        let new = Arc::make_mut(member);
        self.origin(&mut new.origin);
        if let Some(person) = &mut new.added_by {
            self.person(person);
        }
        self.members.insert(Arc::clone(member));
    }

    fn right(&mut self, right: &mut Right) {
        self.entitlement(&mut right.entitlement);
        self.share(&mut right.project.0);
        self.origin(&mut right.rule);
        if let Some(delegation) = &mut right.delegation {
            self.origin(delegation);
        }
        if let Basis::OnCall { schedule, user_id, .. } = &mut right.basis {
            self.share(&mut schedule.source.0);
            self.share(&mut schedule.id);
            self.share(user_id);
        }
    }

    fn origin(&mut self, origin: &mut Origin) {
        self.share(&mut origin.file);
    }
}
