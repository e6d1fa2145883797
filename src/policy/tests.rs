//! What loads, what does not, and what is said about it.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{
    diagnostics::{Diagnostic, Report, Severity},
    model::Person,
};

mod training;
mod tree;

const COMMERCE: &str = "[project]\nname = 'commerce'\nowners = ['cto@example.com']\n";

/// The example of the design, word for word.
const PAYMENTS: &str = r#"
[project]
name    = "payments"
parent  = "commerce"                      # the tree; the parent's owners can justify transitively
owners  = ["mira@example.com"]
context = "PCI scope: card data never leaves the account."

[[entitlement]]
name = "prod-admin"
account = "111122223333"
permission_set = "AdministratorAccess"

[[entitlement]]
name  = "prod-readers"
group = "payments-prod-readers"           # an Identity Center group

[[member]]
email     = "alice@example.com"
added_by  = "mira@example.com"
reason    = "payments engineer"
until     = 2027-03-31
completed = ["incident-training"]

[[rule]]
entitlement = "prod-admin"
on_call     = "pagerduty/PABC123"         # or { schedule = …, levels = [1] }
requires    = ["member", "incident-training"]
lead   = "10m"
linger = "15m"

[[rule]]
entitlement = "prod-readers"
members     = true
during      = { cron = "0 9 * * MON-FRI", for = "9h", zone = "Europe/Berlin" }
"#;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("access.d")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join("access.d").join(name), text).unwrap();
    }
    dir
}

fn context() -> PolicyContext {
    PolicyContext {
        sources: Some(
            [("pagerduty", Provider::Pagerduty), ("opsgenie", Provider::Opsgenie)]
                .map(|(name, provider)| (SourceName(name.into()), Some(provider)))
                .into(),
        ),
        roots: None,
        invariants: Vec::new(),
        now: Some("2026-06-01T00:00:00Z".parse().unwrap()),
    }
}

fn load_all(files: &[(&str, &str)]) -> Result<(Policy, Vec<Diagnostic>), Report> {
    let dir = directory(files);
    load(&dir.path().join("access.d"), &context())
}

/// `file:line:column code message | hint` of everything said about these files.
fn said(files: &[(&str, &str)]) -> Vec<String> {
    let diagnostics = match load_all(files) {
        Ok((_, warnings)) => warnings,
        Err(report) => report.into_diagnostics(),
    };
    let line = |d: &Diagnostic| {
        let place = d.place();
        let place = place.rsplit_once("access.d").map_or(place.as_str(), |(_, rest)| rest);
        let kind = if d.severity == Severity::Warning {
            "warning "
        } else {
            ""
        };
        let message = d.message.replace(&dir_of(d), "");
        let hint = d.hint.as_deref().unwrap_or("").replace(&dir_of(d), "");
        format!(
            "{}: {kind}{}: {message} | {hint}",
            place.trim_start_matches('/'),
            d.code
        )
    };
    diagnostics.iter().map(line).collect()
}

/// The temporary directory in front of file names, which differs in each run.
fn dir_of(d: &Diagnostic) -> String {
    d.source.name().split("access.d").next().unwrap_or_default().to_owned()
}

/// What is said about one project with `text` below its `[project]`.
fn said_about(text: &str) -> Vec<String> {
    let head = "[project]\nname = 'p'\nowners = ['o@example.com']\n";
    said(&[("p.toml", &format!("{head}{text}"))])
}

#[test]
fn the_designs_example_loads_word_for_word() {
    let (policy, warnings) = load_all(&[("commerce.toml", COMMERCE), ("payments.toml", PAYMENTS)]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let payments = &policy.projects[&ProjectName("payments".into())];
    assert_eq!(payments.parent, Some(ProjectName("commerce".into())));
    assert_eq!(payments.origin.to_string(), "access.d/payments.toml:2");
    let alice = &payments.members[&Person::parse("alice@example.com").unwrap()];
    assert_eq!(alice.until.unwrap().to_string(), "2027-04-01T00:00:00Z");
    assert_eq!(alice.entry.origin.line, 17);
    let [admin, readers] = payments.rules.as_slice() else {
        panic!("{:?}", payments.rules)
    };
    assert_eq!(
        (admin.lead, admin.linger),
        (SignedDuration::from_mins(10), SignedDuration::from_mins(15))
    );
    assert!(admin.member && admin.trainings.contains("incident-training") && admin.trainings.len() == 1);
    assert!(matches!(&admin.trigger, Trigger::OnCall(o) if o.schedule.to_string() == "pagerduty/PABC123"));
    assert!(readers.member && matches!(&readers.trigger, Trigger::Members { during: Some(_) }));
    assert_eq!(
        policy.entitlement(&readers.entitlement).unwrap().target.to_string(),
        "group payments-prod-readers"
    );
    assert_eq!(policy.revision.len(), 64);
}

#[test]
fn ten_mistakes_are_ten_messages() {
    let broken = r#"
[project]
name = "payments"
parent = "comerce"
owners = ["mira"]

[[entitlement]]
name = "prod-admin"
acount = "111122223333"
permission_set = "AdministratorAccess"

[[entitlement]]
name = "readers"
group = 5

[[member]]
email = "alice@example.com"
until = "2027-03-31"

[[rule]]
entitlement = "prod-admn"
on_call = "pagerdty/PABC123"

[[rule]]
on_call = "pagerduty/P/../x"
lead = "-5m"

[[rule]]
entitlement = "readers"
members = true
during = { cron = "0 9 * * MON,", for = "0s", zone = "Europe/Berln" }
"#;
    let lines = said(&[("commerce.toml", COMMERCE), ("payments.toml", broken)]);
    let codes: Vec<&str> = lines.iter().map(|l| l.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        codes,
        [
            "unknown-parent",
            "bad-email",
            "unknown-key",
            "wrong-type",
            "wrong-type",
            "unknown-entitlement",
            "unknown-source",
            "missing-key",
            "bad-schedule",
            "bad-duration",
            "bad-cron",
            "bad-duration",
            "unknown-zone",
        ],
        "{lines:#?}"
    );
    assert!(
        lines[0].ends_with("there is no project `comerce` | did you mean `commerce`?"),
        "{}",
        lines[0]
    );
    assert!(lines[5].contains("did you mean `prod-admin`?"), "{}", lines[5]);
    assert!(lines[12].contains("did you mean `Europe/Berlin`?"), "{}", lines[12]);
}

#[test]
fn a_mistake_in_one_file_hides_none_in_another_and_invents_none() {
    let lines = said(&[
        ("a.toml", "[project\nname = 'a'\n"),
        (
            "b.toml",
            "[project]\nname = 'b'\nparent = 'a'\nowners = ['o@example.com']\n[[rule]]\nentitlement = 'a/x'\n",
        ),
        ("c.toml", ""),
    ]);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].starts_with("a.toml:1:9: syntax: "), "{}", lines[0]);
    assert!(
        lines[1].starts_with("b.toml:5:1: missing-key: [[rule]] does not say what earns"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].starts_with("c.toml:1:1: missing-key: the file has no [project]"),
        "{}",
        lines[2]
    );
}

#[test]
fn consent_names_the_owner_and_the_line_to_write() {
    let owner = "[project]\nname = 'pay'\nowners = ['mira@example.com', 'max@example.com']\n\
                 [[entitlement]]\nname = 'admin'\ngroup = 'g'\ndelegate_to = ['audit']\n";
    let taker = |name: &str| {
        format!(
            "[project]\nname = '{name}'\nowners = ['o@example.com']\n\
             [[rule]]\nentitlement = 'pay/admin'\non_call = 'pagerduty/P1'\n"
        )
    };
    let lines = said(&[
        ("audit.toml", &taker("audit")),
        ("pay.toml", owner),
        ("web.toml", &taker("web")),
    ]);
    assert_eq!(
        lines,
        [
            "web.toml:5:15: no-consent: `pay/admin` belongs to pay, which has not delegated it to web | \
          ask mira@example.com or max@example.com to add \"web\" to delegate_to \
          in the entitlement at access.d/pay.toml:4:1"
        ]
    );
    // The bare name does not reach across projects.
    let lines = said(&[
        ("pay.toml", owner),
        ("audit.toml", &taker("audit").replace("pay/admin", "admin")),
    ]);
    assert!(
        lines[0].contains("there is no entitlement `audit/admin` | `pay/admin` exists"),
        "{lines:?}"
    );
}

#[test]
fn the_tree_has_no_circles_and_names_are_unique() {
    let project = |name: &str, parent: &str| {
        format!("[project]\nname = '{name}'\nparent = '{parent}'\nowners = ['o@example.com']\n")
    };
    let lines = said(&[
        ("a.toml", &project("a", "b")),
        ("b.toml", &project("b", "c")),
        ("c.toml", &project("c", "a")),
        ("d.toml", &project("d", "a")),
        ("e.toml", &project("e", "e")),
        ("f.toml", &project("e", "d")),
    ]);
    assert_eq!(
        lines,
        [
            "a.toml:3:10: parent-cycle: the projects are in a circle: a -> b -> c -> a | \
             a parent cannot stand below its own child; remove one of these `parent` lines",
            "e.toml:3:10: parent-cycle: the projects are in a circle: e -> e | \
             a parent cannot stand below its own child; remove one of these `parent` lines",
            "f.toml:2:8: duplicate-project: the project `e` is already defined at access.d/e.toml:2:8 | \
             rename one, or remove the file that should not be there",
        ]
    );
}

#[test]
fn what_is_owned_is_owned_once() {
    let lines = said(&[
        (
            "a.toml",
            "[project]\nname = 'a'\nowners = ['o@example.com']\n\
             [[entitlement]]\nname = 'x'\ngroup = 'g'\n[[entitlement]]\nname = 'x'\ngroup = 'h'\ndelegate_to = ['a', 'zz']\n",
        ),
        (
            "b.toml",
            "[project]\nname = 'b'\nowners = ['o@example.com']\n[[entitlement]]\nname = 'x'\ngroup = 'g'\n",
        ),
    ]);
    let starts = [
        "a.toml:8:8: duplicate-entitlement: the entitlement `x` is already defined | the first is at",
        "a.toml:10:16: unknown-delegate: a project need not delegate to itself",
        "a.toml:10:21: unknown-delegate: there is no project `zz`",
        "b.toml:4:1: owned-twice: group g is already owned, as `a/x`",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn each_bad_value_has_its_own_message() {
    let e = "[[entitlement]]\nname = 'x'\ngroup = 'g'\n";
    let rule = |body: &str| format!("{e}[[rule]]\nentitlement = 'x'\n{body}\n");
    let window = |during: &str| rule(&format!("members = true\nduring = {{ {during} }}"));
    let cases = [
        (
            "[[entitlement]]\nname = '../x'\ngroup = 'g'".to_owned(),
            "bad-name: this is not a name",
        ),
        (
            "[[entitlement]]\nname = 'x'".to_owned(),
            "missing-key: [[entitlement]] does not say what it grants",
        ),
        (
            "[[entitlement]]\nname = 'x'\naccount = '111122223333'".to_owned(),
            "has no `permission_set`",
        ),
        (
            "[[entitlement]]\nname = 'x'\npermission_set = 'A'".to_owned(),
            "has no `account`",
        ),
        (
            "[[entitlement]]\nname = 'x'\npermission_set = 'A'\naccount = '12'".to_owned(),
            "bad-account",
        ),
        (
            "[[entitlement]]\nname = 'x'\npermission_set = 'A'\naccount = 11122223333".to_owned(),
            "write it in quotes with its leading zeros: \"011122223333\"",
        ),
        (
            "[[entitlement]]\nname = 'x'\npermission_set = 'A'\naccount = 012345678901".to_owned(),
            "an account id is text: write it in quotes",
        ),
        (
            "[[entitlement]]\nname = 'x'\npermission_set = 'A B'\naccount = '111122223333'".to_owned(),
            "bad-permission-set",
        ),
        (
            "[[entitlement]]\nname = 'x'\npermission_set = 'A'\naccount = '111122223333'\ngroup = 'g'".to_owned(),
            "two-targets",
        ),
        ("[[member]]\nreason = 'x'".to_owned(), "[[member]] has no `email`"),
        (
            "[[member]]\nemail = 'a@example.com'\nreason = \"\\u001b[31m\"".to_owned(),
            "control-character",
        ),
        (
            "[[member]]\nemail = 'a@example.com'\nuntil = 2027-03-31T10:00:00".to_owned(),
            "needs an offset",
        ),
        (
            "[[member]]\nemail = 'a@example.com'\nuntil = 2026-05-31".to_owned(),
            "warning ended: the membership of a@",
        ),
        (
            "[[member]]\nemail = 'a@example.com'\nsince = 2027-01-01\nuntil = 2026-12-31".to_owned(),
            "bad-date: this membership ends before it begins",
        ),
        (
            "[[member]]\nemail = 'a@example.com'\nadded_by = 'z@example.com'".to_owned(),
            "warning added-by-stranger",
        ),
        (
            "[[member]]\nemail = 'a@example.com'\n[[member]]\nemail = 'A@example.com'".to_owned(),
            "duplicate-member",
        ),
        (
            rule("on_call = { schedule = 'pagerduty/P1', levels = [1] }"),
            "`levels` belongs to escalation policies",
        ),
        (
            rule("on_call = { schedule = 'pagerduty/P1', permanent = true }"),
            "`permanent` belongs to",
        ),
        (
            rule("on_call = { levels = [1] }"),
            "missing-key: `on_call` names nothing",
        ),
        (
            rule("on_call = { escalation_policy = 'pagerduty/P1', levels = [0] }"),
            "levels count from 1",
        ),
        (
            rule("on_call = { escalation_policy = 'pagerduty/P1', levels = [] }"),
            "no level would ever count",
        ),
        (
            rule("on_call = { escalation_policy = 'opsgenie/P1' }"),
            "no-escalation-policies: `opsgenie` is Opsgenie",
        ),
        (rule("on_call = 'pagerduty/P1'\nmembers = true"), "two-triggers"),
        (rule("on_call = 'P1'"), "bad-schedule"),
        (rule("on_call = 'pagerduty/P1?x=y'"), "bad-schedule"),
        (
            rule("on_call = 'pagerduty/P1'\nrequires = []"),
            "warning one-key: whoever can edit this schedule",
        ),
        (
            rule("on_call = 'pagerduty/P1'\nrequires = ['trained']"),
            "warning unmet-training: no member of p",
        ),
        (
            rule("on_call = 'pagerduty/P1'\nlinger = '25h'"),
            "25h is too long | write between 0s and 24h",
        ),
        (
            rule("on_call = 'pagerduty/P1'\nlead = 'soon'"),
            "write a length of time such as",
        ),
        (
            rule("on_call = 'pagerduty/P1'\nduring = { cron = '0 9 * * *', for = '1h', zone = 'UTC' }"),
            "`during` goes with",
        ),
        (rule("members = true\nlead = '5m'"), "`lead` has no meaning here"),
        (rule("members = false"), "`members = false` says nothing"),
        (
            rule("during = ['0 9 * * *']\nmembers = true"),
            "expected a table, found an array",
        ),
        (
            window("cron = '0 0 30 2 *', for = '1h', zone = 'UTC'"),
            "never: this pattern never fires",
        ),
        (
            window("cron = '0 0 29 2 +MON', for = '1h', zone = 'UTC'"),
            "warning never: this pattern does not fire before 20",
        ),
        (
            window("cron = '0 9 * * *', for = '32d', zone = 'UTC'"),
            "32d is too long | write between 1m and 744h",
        ),
        (
            window("cron = '0 9 * * *', for = '1h', until = '10:00', zone = 'UTC'"),
            "two-lengths",
        ),
        (
            window("cron = '0 9 * * *', zone = 'UTC'"),
            "`during` does not say how long",
        ),
        (window("cron = '0 9 * * *', until = '25:00', zone = 'UTC'"), "bad-time"),
        (window("cron = '0 9 * * *', for = '1h'"), "`during` has no `zone`"),
        (
            window("cron = '0 9 * * *', for = '25h', zone = 'UTC'"),
            "warning overlap",
        ),
        (
            window("cron = '0 22 * * *', for = '8h', zone = 'Europe/Berlin'"),
            "warning clock-change: the clocks change during the window of 2026-10-24, which ends at 05:00 instead of 06:00",
        ),
        (
            format!(
                "{}[[rule]]\nmembers = true\nentitlement = 'x'\n",
                rule("members = true")
            ),
            "warning duplicate-rule",
        ),
    ];
    for (text, expected) in cases {
        let lines = said_about(&text);
        assert_eq!(lines.len(), 1, "{text}\n{lines:#?}");
        assert!(lines[0].contains(expected), "{text}\n{lines:#?}");
    }
}

#[test]
fn odd_files_are_named_and_never_an_empty_policy() {
    let dir = directory(&[("commerce.toml", COMMERCE)]);
    let root = dir.path().join("access.d");
    let fails = |what: &str| {
        let report = load(&root, &context()).unwrap_err();
        assert!(report.to_text(false).contains(what), "{}", report.to_text(false));
        report.counts().0
    };
    fs::write(root.join("big.toml"), vec![b'#'; 2 << 20]).unwrap();
    fs::create_dir(root.join("dir.toml")).unwrap();
    fs::write(root.join("latin1.toml"), b"[project]\nname = 'caf\xe9'\n").unwrap();
    fs::write(root.join("empty.toml"), b"").unwrap();
    for what in [
        "big.toml",
        "this is a directory, not a file",
        "byte 21 (0xe9) is not UTF-8",
        "the file has no [project]",
    ] {
        assert_eq!(fails(what), 4);
    }
    fs::remove_dir_all(&root).unwrap();
    fails("the policy directory does not exist");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("README.md"), "x").unwrap();
    fs::write(root.join(".#commerce.toml"), COMMERCE).unwrap();
    fs::write(root.join("commerce.toml~"), COMMERCE).unwrap();
    assert_eq!(fails("there is no policy file in this directory"), 1);
    assert!(fingerprint(&root).is_err());
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, "").unwrap();
    fails("this is not a directory");
}

#[test]
fn line_ends_and_byte_order_marks_are_no_mistakes() {
    let windows = format!("\u{feff}{}", COMMERCE.replace('\n', "\r\n"));
    let (policy, warnings) = load_all(&[("commerce.toml", &windows)]).unwrap();
    assert!(warnings.is_empty() && policy.projects.len() == 1);
    let lines = said(&[("c.toml", &windows.replace("owners", "ownrs"))]);
    assert_eq!(
        lines,
        ["c.toml:3:1: unknown-key: unknown key `ownrs` | did you mean `owners`?"]
    );
}

#[test]
fn the_fingerprint_is_the_revision_and_follows_every_change() {
    let dir = directory(&[("commerce.toml", COMMERCE)]);
    let root = dir.path().join("access.d");
    let first = load(&root, &context()).unwrap().0.revision;
    assert_eq!(fingerprint(&root).unwrap(), first);
    fs::write(root.join("new"), COMMERCE.replace("cto", "ceo")).unwrap();
    assert_eq!(fingerprint(&root).unwrap(), first, "not a policy file");
    fs::rename(root.join("new"), root.join("commerce.toml")).unwrap();
    let second = fingerprint(&root).unwrap();
    assert_ne!(second, first);
    fs::rename(root.join("commerce.toml"), root.join("renamed.toml")).unwrap();
    assert_ne!(fingerprint(&root).unwrap(), second);
}

#[test]
#[cfg(unix)]
fn a_mounted_config_map_is_read_through_its_links() {
    use std::os::unix::fs::symlink;
    let dir = directory(&[]);
    let root = dir.path().join("access.d");
    for (version, text) in [("..v1", COMMERCE.to_owned()), ("..v2", COMMERCE.replace("cto", "ceo"))] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("commerce.toml"), text).unwrap();
    }
    symlink("..v1", root.join("..data")).unwrap();
    symlink("..data/commerce.toml", root.join("commerce.toml")).unwrap();
    let (policy, _) = load(&root, &context()).unwrap();
    assert_eq!(policy.projects.len(), 1);
    symlink("..v2", root.join("..next")).unwrap();
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    assert_ne!(fingerprint(&root).unwrap(), policy.revision);
    fs::remove_dir_all(root.join("..v2")).unwrap();
    let report = load(&root, &context()).unwrap_err();
    assert!(
        report.to_text(false).contains("a symbolic link may point at nothing"),
        "{}",
        report.to_text(false)
    );
}

proptest::proptest! {
    /// Whatever an edit leaves behind, the answer is a policy or at least one mistake that can be shown.
    #[test]
    fn any_edit_is_a_policy_or_a_mistake(
        at in 0..PAYMENTS.len(),
        cut in 0..40_usize,
        put in r#"([a-z"'=\[\]{}#\n.,\\é\x00\x1b 0-9-]|\[\[rule\]\]|true){0,4}"#,
    ) {
        let at = PAYMENTS.floor_char_boundary(at);
        let end = PAYMENTS.floor_char_boundary((at + cut).min(PAYMENTS.len())).max(at);
        let text = format!("{}{put}{}", &PAYMENTS[..at], &PAYMENTS[end..]);
        match load_all(&[("commerce.toml", COMMERCE), ("payments.toml", &text)]) {
            Ok((policy, _)) => proptest::prop_assert_eq!(policy.projects.len(), 2),
            Err(report) => {
                proptest::prop_assert!(report.has_errors());
                let shown = report.to_text(false);
                proptest::prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", shown);
            }
        }
    }
}
