use std::path::Path;

use super::*;
use crate::accounting::standing;
use crate::desired::Snapshots;
use crate::forecast::{days_from, forecast};
use crate::policy::{self, PolicyContext};

const COMMERCE: &str = r#"[project]
name = "commerce"
owners = ["cto@example.com"]

[[entitlement]]
name = "billing"
group = "billing"
delegate_to = ["payments"]
"#;

const PAYMENTS: &str = r#"[project]
name = "payments"
parent = "commerce"
owners = ["mira@example.com"]

[[member]]
email = "alice@example.com"
"#;

const RULE: &str = r#"
[[rule]]
entitlement = "commerce/billing"
members = true
during = { cron = "0 9 * * MON-FRI", for = "9h", zone = "UTC" }
"#;

fn policy(files: &[(&str, String)]) -> Policy {
    let files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    let loaded = policy::parse(Path::new("access.d"), files.collect(), &PolicyContext::default());
    loaded.unwrap_or_else(|report| panic!("{}", report.to_text(false))).0
}

fn compared(before: &Policy, after: &Policy) -> Comparison {
    let period = days_from("2026-03-02T00:00:00Z".parse().unwrap(), 7).unwrap();
    let look = |policy: &Policy| {
        (
            forecast(policy, &Snapshots::new(), &[], &None, period),
            standing(policy, &Snapshots::new(), &[], period),
        )
    };
    let (old, new) = (look(before), look(after));
    let side = |policy, (forecast, standing)| Side {
        policy,
        forecast,
        standing,
    };
    compare(side(before, (&old.0, &old.1)), side(after, (&new.0, &new.1)))
}

fn two(payments: &str) -> Policy {
    policy(&[
        ("commerce.toml", COMMERCE.to_owned()),
        ("payments.toml", payments.to_owned()),
    ])
}

#[test]
fn a_delegated_entitlement_needs_its_owners_consent_too() {
    let comparison = compared(&two(PAYMENTS), &two(&format!("{PAYMENTS}{RULE}")));
    let asked: Vec<_> = comparison
        .consent
        .iter()
        .map(|c| (c.project.0.as_str(), c.owners[0].as_str(), c.above.len()))
        .collect();
    assert_eq!(
        asked,
        [("commerce", "cto@example.com", 0), ("payments", "mira@example.com", 1)]
    );
    let held = comparison.total.held;
    assert_eq!((held.before, held.after), (0, 45 * 3600));
    assert_eq!(
        (comparison.total.standing.before, comparison.total.standing.after),
        (0, 168 * 3600)
    );
    assert_eq!(comparison.people[0].gains.len(), 5);
}

#[test]
fn a_longer_window_gains_only_what_is_longer() {
    let with = |length: &str| two(&format!("{PAYMENTS}{}", RULE.replace("9h", length)));
    let comparison = compared(&with("9h"), &with("10h"));
    let line = &comparison.people[0];
    assert_eq!((line.gains.len(), line.loses.len()), (5, 0));
    assert_eq!(line.gains[0].duration(), SignedDuration::from_hours(1));
    assert_eq!(
        comparison.edits.iter().map(|e| e.sign).collect::<String>(),
        "~",
        "{:?}",
        comparison.edits
    );
    assert!(compared(&with("9h"), &with("9h")).is_empty());
}

#[test]
fn a_new_project_is_consented_to_by_whoever_owns_above_it() {
    let child = "[project]\nname = \"refunds\"\nparent = \"payments\"\nowners = [\"eve@example.com\"]\n";
    let files = |more: &[(&str, String)]| {
        let mut files = vec![
            ("commerce.toml", COMMERCE.to_owned()),
            ("payments.toml", PAYMENTS.to_owned()),
        ];
        files.extend(more.iter().cloned());
        policy(&files)
    };
    let comparison = compared(&files(&[]), &files(&[("refunds.toml", child.to_owned())]));
    let consent = &comparison.consent[0];
    assert_eq!(
        consent.owners[0].as_str(),
        "mira@example.com",
        "not eve, who would consent to her own"
    );
    assert_eq!(consent.above[0].as_str(), "cto@example.com");
}

#[test]
fn names_made_to_break_markdown_do_not() {
    let odd = PAYMENTS.replace("alice@example.com", "a|b`<b>_*@example.com");
    let comparison = compared(&two(PAYMENTS), &two(&format!("{odd}{RULE}")));
    let page = comparison.markdown();
    assert!(page.contains("a\\|b\\`&lt;b&gt;\\_\\*&#64;example.com"), "{page}");
    assert!(!page.contains("<b>"), "{page}");
}

#[test]
fn limits_delegations_and_trainings_are_edits_too() {
    let looser = format!(
        "{}\n[project.children]\naccounts = [\"111122223333\"]\nmay_drop_member = true\n",
        COMMERCE.split("\n[[entitlement]]").next().unwrap()
    ) + "\n[[entitlement]]\nname = \"billing\"\ngroup = \"billing\"\ndelegate_to = [{ project = \"payments\", until = 2027-03-31 }]\n";
    let trained = format!("{PAYMENTS}since = 2026-01-01\ncompleted = [{{ training = \"pci\", until = 2026-12-31 }}]\n");
    let after = policy(&[("commerce.toml", looser), ("payments.toml", trained)]);
    let edits: Vec<_> = compared(&two(PAYMENTS), &after)
        .edits
        .into_iter()
        .map(|e| e.what)
        .collect();
    assert_eq!(
        edits,
        [
            "what projects below may do: anything becomes account 111122223333, may drop the membership key",
            "entitlement billing: delegated to payments for any rule becomes \
             delegated to payments for any rule until 2027-04-01T00:00:00Z",
            "member alice@example.com: now also since 2026-01-01T00:00:00Z, completed pci \
             from always until 2027-01-01T00:00:00Z",
        ]
    );
}
