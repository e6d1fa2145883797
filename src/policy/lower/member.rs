//! The values of one member entry: who, vouched for by whom, from when until when, and trained in what.

use std::collections::BTreeSet;

use super::{
    super::{Member, file::MemberEntry},
    Lowering, MEMBER,
};
use crate::document::Entry;

impl Lowering<'_> {
    pub(super) fn member(&mut self, entry: &Entry<MemberEntry>) -> Option<Member> {
        let at = entry.span();
        let m = &entry.value;
        let email = self
            .found
            .required(m.email.as_ref(), at, "[[member]]", "email", "\"alice@example.com\"");
        let person = email.and_then(|email| self.found.person(email));
        let added_by = m.added_by.as_ref().and_then(|email| self.found.person(email));
        let reason = self.text(m.reason.as_ref());
        let since = m
            .since
            .as_ref()
            .and_then(|since| self.date(since.span(), since.value.instant()));
        let until = self.until(m.until.as_ref());
        if let (Some(at), Some(since), Some(until)) = (&m.since, since, until)
            && until <= since
        {
            let message = "this membership ends before it begins";
            self.found
                .error("bad-date", at.span(), message, "put `since` before `until`");
        }
        let mut completed = BTreeSet::new();
        for training in m.completed.iter().flat_map(|list| &list.value) {
            if training.value == MEMBER {
                let message = "`member` is no training: being listed here is the membership";
                self.found.error("bad-training", training.span(), message, "remove it");
            }
            completed.extend(self.training(training));
        }
        Some(Member {
            person: person?,
            added_by,
            reason,
            since,
            until,
            completed,
            origin: self.origin(at),
        })
    }
}
