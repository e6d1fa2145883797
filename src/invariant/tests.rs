use std::path::Path;

use super::*;
use crate::identity_center::ChangeKind;
use crate::model::{PrincipalId, ResolvedTarget};
use crate::plan::{Change, Foresight};
use crate::policy::{self, Policy, PolicyContext};
use crate::problem::ProblemKind;
use jiff::Timestamp;

const PROJECTS: &str = r#"
[project]
name   = "bank"
owners = ["mira@example.com"]

[[entitlement]]
name  = "writer"
group = "writers"

[[entitlement]]
name  = "approver"
group = "approvers"

[[member]]
email     = "ann@example.com"
completed = [{ training = "pci", since = 2026-01-01, until = 2026-06-30 }]

[[member]]
email = "bob@example.com"
"#;

const CHILD: &str = r#"
[project]
name   = "vault"
parent = "bank"
owners = ["zoe@example.com"]

[[entitlement]]
name  = "key"
group = "key"

[[member]]
email     = "cat@elsewhere.example"
completed = ["pci"]
"#;

fn policy(statements: &str) -> Policy {
    let files = vec![
        ("bank.toml".to_owned(), format!("{PROJECTS}{statements}").into_bytes()),
        ("vault.toml".to_owned(), CHILD.as_bytes().to_vec()),
        (
            "list.csv".to_owned(),
            b"email,training\nbob@example.com,aml\nann@example.com,aml\n".to_vec(),
        ),
    ];
    policy::parse(Path::new("access.d"), files, &PolicyContext::default())
        .unwrap_or_else(|report| panic!("{}", report.to_text(false)))
        .0
}

fn statement(keys: &str) -> String {
    format!("[[invariant]]\nname = \"s\"\nstatement = \"So it is.\"\n{keys}\n")
}

fn id(text: &str) -> EntitlementId {
    EntitlementId::try_from(text.to_owned()).unwrap()
}

fn at(hour: i64) -> Timestamp {
    let base: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
    base + SignedDuration::from_hours(hour)
}

fn span_of(from: i64, to: i64) -> Interval {
    Interval::new(at(from), at(to)).unwrap()
}

fn holder(name: &str) -> Holder {
    let host = if name == "cat" {
        "elsewhere.example"
    } else {
        "example.com"
    };
    Holder {
        principal: PrincipalId(format!("u-{name}").into()),
        person: Some(Person::parse(&format!("{name}@{host}")).unwrap()),
    }
}

fn grant(name: &str, entitlement: &str, due: i64) -> Change {
    let holder = holder(name);
    Change {
        kind: ChangeKind::Grant,
        entitlement: id(entitlement),
        person: holder.person,
        target: ResolvedTarget::Group {
            group_id: entitlement.into(),
        },
        principal: holder.principal,
        causes: Vec::new(),
        rests_on: BTreeSet::new(),
        due: at(due),
        foresight: Foresight::Predicted,
        context: None,
    }
}

/// Who is held, and why, when this is held already and that is to be granted.
fn held(policy: &Policy, held: &[(&str, &str)], grants: &[Change], now: Timestamp) -> Vec<String> {
    let ground = Ground {
        invariants: &policy.invariants,
        held: held
            .iter()
            .map(|(name, entitlement)| (id(entitlement), holder(name)))
            .collect(),
        past: Past::new(),
    };
    let held = hold_back(&ground, grants, &crate::desired::Timeline::default(), now);
    held.into_iter()
        .map(|(key, obstacle)| format!("{}: {}", key.1, obstacle.why))
        .collect()
}

#[test]
fn whose_turn_began_earlier_comes_first_and_then_by_person() {
    let two = policy(&statement("entitlements = [\"writer\"]\nmax_holders = 2"));
    let grants = [
        grant("cat", "bank/writer", 8),
        grant("bob", "bank/writer", 9),
        grant("ann", "bank/writer", 9),
    ];
    let words = "at most 2 holders is allowed, and ann@example.com, cat@elsewhere.example hold it";
    assert_eq!(held(&two, &[], &grants, at(9)), [format!("u-bob: {words}")]);
    // Whoever holds it already takes a place whoever gave it, and needs no second one.
    let words = "at most 2 holders is allowed, and cat@elsewhere.example, eve@example.com hold it";
    assert_eq!(
        held(&two, &[("eve", "bank/writer")], &grants, at(9)),
        [format!("u-ann: {words}"), format!("u-bob: {words}")]
    );
    let both = policy(&statement("max_holders = 1"));
    assert_eq!(
        held(&both, &[("ann", "bank/writer")], &[grant("ann", "vault/key", 9)], at(9)),
        [""; 0]
    );
    assert_eq!(
        held(&both, &[("ann", "bank/writer")], &[grant("bob", "vault/key", 9)], at(9)).len(),
        1
    );
}

#[test]
fn nobody_is_granted_two_things_that_are_kept_apart() {
    let apart = policy(&statement(
        "entitlements = [\"writer\", \"approver\"]\nnever_together = true",
    ));
    let grants = [
        grant("ann", "bank/approver", 9),
        grant("ann", "bank/writer", 8),
        grant("bob", "bank/approver", 9),
    ];
    assert_eq!(
        held(&apart, &[], &grants, at(9)),
        ["u-ann: ann@example.com holds bank/writer"]
    );
    let free = [grant("bob", "vault/key", 9)];
    assert_eq!(held(&apart, &[("bob", "bank/writer")], &free, at(9)), [""; 0]);
}

#[test]
fn trainings_count_where_the_statement_can_see_them_and_only_while_they_last() {
    let trained = policy(&statement("requires = [\"pci\", \"aml\"]"));
    let words = |name: &str, now| held(&trained, &[], &[grant(name, "bank/writer", 0)], now);
    assert_eq!(words("ann", at(0)), [""; 0]);
    assert_eq!(
        words("ann", "2026-08-01T00:00:00Z".parse().unwrap()),
        ["u-ann: ann@example.com \"aml\", \"pci\" counted only until 2026-07-01T00:00:00Z"]
    );
    assert_eq!(
        words("bob", at(0)),
        ["u-bob: bob@example.com has not completed \"aml\", \"pci\""]
    );
    assert_eq!(
        trained.invariants[0].covers.len(),
        3,
        "the project and what is below it"
    );
}

#[test]
fn domains_are_compared_whole() {
    let house = policy(&statement("domains = [\"Example.COM\"]"));
    assert_eq!(held(&house, &[], &[grant("bob", "vault/key", 0)], at(0)), [""; 0]);
    assert_eq!(
        held(&house, &[], &[grant("cat", "vault/key", 0)], at(0)),
        ["u-cat: cat@elsewhere.example is outside example.com"]
    );
}

#[test]
fn access_counts_as_one_until_a_break_has_really_taken_place() {
    let hours = SignedDuration::from_hours;
    let (past, turn) = ([span_of(0, 2), span_of(4, 10)], span_of(14, 20));
    // Two hours, then four: both are less than a break of five.
    assert_eq!(stretch(&past, turn, at(14), hours(5)), span_of(0, 20));
    assert_eq!(stretch(&past, turn, at(14), hours(3)), turn);
    assert_eq!(
        stretch(&past, turn, at(14), hours(4)),
        turn,
        "a break of exactly that length is one"
    );
    assert_eq!(
        stretch(&past, turn, at(15), hours(5)),
        turn,
        "it was held until the break had taken place"
    );
    assert_eq!(stretch(&[], turn, at(14), hours(5)), turn);
}

#[test]
fn what_stands_too_long_is_reported_with_how_long() {
    let rest = policy(&statement(
        "entitlements = [\"writer\"]\nlongest_access = \"12h\"\nbreak = \"8h\"",
    ));
    let mut ground = Ground {
        invariants: &rest.invariants,
        held: [(id("bank/writer"), holder("ann"))].into(),
        past: Past::new(),
    };
    let cell = (id("bank/writer"), holder("ann").person.unwrap());
    ground.past.insert(cell.clone(), vec![span_of(0, 5), span_of(6, 12)]);
    assert_eq!(broken(&ground, |_, _| false, at(12)), []);
    ground.past.insert(cell, vec![span_of(0, 5), span_of(6, 13)]);
    let problems = broken(&ground, |_, _| false, at(13));
    assert_eq!(problems[0].kind, ProblemKind::InvariantBroken);
    assert_eq!(
        problems[0].message,
        "\"So it is.\" (bank/s, access.d/bank.toml:20) is broken by access that stands: at most 12h without a break of 8h \
         is allowed, and ann@example.com has held bank/writer for 13h since 2026-03-02T00:00:00Z; nothing is revoked for it"
    );
    assert_eq!(broken(&ground, |_, _| true, at(13)), [], "it is being taken back");
}

#[test]
fn a_statement_is_tighter_when_it_allows_nothing_that_was_not_allowed() {
    use Tightness::{Different, Looser, Same, Tighter};
    let one = |keys: &str| policy(&statement(keys)).invariants.remove(0);
    let cases = [
        ("max_holders = 2", "max_holders = 1", Tighter),
        (
            "max_holders = 1",
            "max_holders = 1\nentitlements = [\"writer\"]",
            Looser,
        ),
        (
            "max_holders = 2\nentitlements = [\"writer\"]",
            "max_holders = 1",
            Tighter,
        ),
        (
            "max_holders = 2",
            "max_holders = 1\nentitlements = [\"writer\"]",
            Different,
        ),
        ("requires = [\"pci\"]", "requires = [\"pci\", \"aml\"]", Tighter),
        (
            "domains = [\"a.example\"]",
            "domains = [\"a.example\", \"b.example\"]",
            Looser,
        ),
        ("domains = [\"a.example\"]", "domains = [\"b.example\"]", Different),
        (
            "longest_access = \"12h\"\nbreak = \"8h\"",
            "longest_access = \"12h\"\nbreak = \"9h\"",
            Tighter,
        ),
        (
            "longest_access = \"12h\"\nbreak = \"8h\"",
            "longest_access = \"13h\"\nbreak = \"9h\"",
            Different,
        ),
        (
            "longest_access = \"12h\"\nbreak = \"8h\"",
            "longest_access = \"720m\"\nbreak = \"8h\"",
            Same,
        ),
        ("max_holders = 2", "never_together = true", Different),
    ];
    for (was, is, expected) in cases {
        assert_eq!(one(is).against(&one(was)), expected, "{was} / {is}");
    }
}
