//! The values of one member entry: who, vouched for by whom, from when until when, and trained in what.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{
    super::{
        Completion, Member,
        file::{CompletedTable, MemberEntry, TextOr},
    },
    Lowering, MEMBER,
};
use crate::{
    document::{At, Entry, Since, Until},
    model::{Interval, MemberRef},
};

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
        let valid = self.valid("this membership", m.since.as_ref(), m.until.as_ref());
        let mut completed: BTreeMap<String, Vec<Completion>> = BTreeMap::new();
        for value in m.completed.iter().flat_map(|list| &list.value) {
            if let Some((training, completion)) = self.completion(value) {
                completed.entry(training).or_default().push(completion);
            }
        }
        Some(Member {
            person: person?,
            entry: Arc::new(MemberRef {
                origin: self.origin(at),
                added_by,
            }),
            reason,
            since: valid.0,
            until: valid.1,
            completed,
        })
    }

    /// Both ends, the second of which must come later.
    fn valid(
        &mut self,
        what: &str,
        since: Option<&At<Since>>,
        until: Option<&At<Until>>,
    ) -> (Option<Timestamp>, Option<Timestamp>) {
        let begin = since.and_then(|since| self.date(since.span(), since.value.instant()));
        let end = self.until(until);
        if let (Some(at), Some(begin), Some(end)) = (since, begin, end)
            && end <= begin
        {
            let message = format!("{what} ends before it begins");
            self.found
                .error("bad-date", at.span(), message, "put `since` before `until`");
        }
        (begin, end)
    }

    fn completion(&mut self, value: &At<TextOr<CompletedTable>>) -> Option<(String, Completion)> {
        let at = value.span();
        let (name, name_at, valid) = match &value.value {
            TextOr::Text(name) => (name, at, (None, None)),
            TextOr::Table(table) => {
                let name = self.found.required(
                    table.training.as_ref(),
                    at,
                    "`completed`",
                    "training",
                    "\"incident-training\"",
                );
                let valid = self.valid("this training", table.since.as_ref(), table.until.as_ref());
                (&name?.value, name?.span(), valid)
            }
        };
        if name == MEMBER {
            let message = "`member` is no training: being listed here is the membership";
            self.found.error("bad-training", name_at, message, "remove it");
        }
        let begin = valid.0.unwrap_or(Timestamp::MIN);
        let completion = Completion {
            valid: Interval::new(begin, valid.1.unwrap_or(Timestamp::MAX))?,
            origin: self.origin(at),
        };
        self.training(name, name_at).map(|name| (name, completion))
    }
}
