//! What a parent lets its children do, and what an owner lets other projects do.

use super::*;

const ROOT: &str = "[project]\nname = 'acme'\nowners = ['ceo@example.com']\n\
    [project.children]\naccounts = ['111111111111', '222222222222']\npermission_sets = ['ReadOnly*', 'Support']\n\
    groups = []\nlongest_membership = '180d'\nmay_drop_member = false\n";

/// A middle project that is stricter.
const SHOP: &str = "[project]\nname = 'shop'\nparent = 'acme'\nowners = ['cto@example.com', 'ceo@example.com']\n\
    [project.children]\naccounts = ['111111111111']\n";

fn project(name: &str, parent: &str, rest: &str) -> String {
    format!("[project]\nname = '{name}'\nparent = '{parent}'\nowners = ['mira@example.com']\n{rest}")
}

#[test]
fn what_stands_below_stays_inside_every_limit_above() {
    let pay = project(
        "pay",
        "shop",
        "[[entitlement]]\nname = 'fine'\naccount = '111111111111'\npermission_set = 'ReadOnlyAccess'\n\
         [[entitlement]]\nname = 'far'\naccount = '222222222222'\npermission_set = 'Support'\n\
         [[entitlement]]\nname = 'admin'\naccount = '333333333333'\npermission_set = 'AdministratorAccess'\n\
         [[entitlement]]\nname = 'readers'\ngroup = 'pay-readers'\n\
         [[member]]\nemail = 'a@example.com'\nsince = 2026-06-01\nuntil = 2026-11-27\n\
         [[member]]\nemail = 'b@example.com'\nsince = 2026-06-01\nuntil = 2026-11-28\n\
         [[member]]\nemail = 'c@example.com'\nuntil = 2026-11-28\n\
         [[member]]\nemail = 'd@example.com'\n\
         [[rule]]\nentitlement = 'fine'\non_call = 'pagerduty/P1'\nrequires = []\n",
    );
    let lines = said(&[("acme.toml", ROOT), ("pay.toml", &pay), ("shop.toml", SHOP)]);
    let ceo = "ask ceo@example.com";
    let cto = "ask cto@example.com or ceo@example.com";
    let expected = [
        format!(
            "pay.toml:11:11: beyond-limits: account 222222222222 is not among those that shop allows below it | \
             {cto} to add it to `accounts` at access.d/shop.toml:6:12"
        ),
        format!(
            "pay.toml:15:11: beyond-limits: account 333333333333 is not among those that acme allows below it | \
             {ceo} to add it to `accounts` at access.d/acme.toml:5:12"
        ),
        format!(
            "pay.toml:15:11: beyond-limits: account 333333333333 is not among those that shop allows below it | \
             {cto} to add it to `accounts` at access.d/shop.toml:6:12"
        ),
        format!(
            "pay.toml:16:18: beyond-limits: permission set AdministratorAccess is not among those that acme allows \
             below it | {ceo} to add it to `permission_sets` at access.d/acme.toml:6:19"
        ),
        format!(
            "pay.toml:19:9: beyond-limits: group pay-readers is not among those that acme allows below it | \
             {ceo} to add it to `groups` at access.d/acme.toml:7:10"
        ),
        format!(
            "pay.toml:27:9: beyond-limits: the membership of b@example.com lasts 181d; below acme memberships last at \
             most 180d | shorten it, or {ceo} about `longest_membership` at access.d/acme.toml:8:22"
        ),
        format!(
            "pay.toml:29:9: beyond-limits: the membership of c@example.com has no `since`; below acme memberships last \
             at most 180d | add what is missing, or {ceo} about `longest_membership` at access.d/acme.toml:8:22"
        ),
        format!(
            "pay.toml:32:9: beyond-limits: the membership of d@example.com has no `since` and no `until`; below acme \
             memberships last at most 180d | add what is missing, or {ceo} about `longest_membership` at \
             access.d/acme.toml:8:22"
        ),
        format!(
            "pay.toml:36:12: beyond-limits: acme does not let on-call rules drop the membership key | \
             write requires = [\"member\"], or {ceo} about `may_drop_member` at access.d/acme.toml:9:19"
        ),
        "pay.toml:36:12: warning one-key: whoever can edit this schedule can give anybody this entitlement | \
         write requires = [\"member\"] unless that is intended"
            .to_owned(),
    ];
    assert_eq!(lines, expected, "{lines:#?}");
}

#[test]
fn a_delegation_is_no_way_around_the_limits() {
    let pay = project(
        "pay",
        "acme",
        "[[entitlement]]\nname = 'ro'\naccount = '111111111111'\npermission_set = 'ReadOnly'\ndelegate_to = ['ops', 'acme']\n\
         [[rule]]\nentitlement = 'ops/all'\nmembers = true\n",
    );
    let ops = "[project]\nname = 'ops'\nowners = ['olga@example.com']\n\
        [[entitlement]]\nname = 'all'\naccount = '999999999999'\npermission_set = 'Support'\ndelegate_to = ['pay']\n\
        [[member]]\nemail = 'x@example.com'\n[[member]]\nemail = 'y@example.com'\n\
        [[rule]]\nentitlement = 'pay/ro'\non_call = 'pagerduty/P1'\nrequires = []\n\
        [[rule]]\nentitlement = 'pay/ro'\nmembers = true\n\
        [[rule]]\nentitlement = 'all'\non_call = 'pagerduty/P1'\nrequires = []\n";
    // The owners of what set the limit are not bound by it.
    let root = format!("{ROOT}[[rule]]\nentitlement = 'pay/ro'\non_call = 'pagerduty/P2'\nrequires = []\n");
    let lines = said(&[("acme.toml", &root), ("ops.toml", ops), ("pay.toml", &pay)]);
    let errors: Vec<&String> = lines.iter().filter(|l| !l.contains(": warning ")).collect();
    assert_eq!(
        errors,
        [
            "ops.toml:16:12: beyond-limits: acme does not let on-call rules such as this one for `pay/ro` drop the \
             membership key | write requires = [\"member\"], or ask ceo@example.com about `may_drop_member` at \
             access.d/acme.toml:9:19",
            "ops.toml:18:15: beyond-limits: `pay/ro` stands below acme, where memberships last at most 180d; that of \
             x@example.com has no `since` and no `until` (and 1 more) | correct access.d/ops.toml:10:9, \
             or ask ceo@example.com about `longest_membership` at access.d/acme.toml:8:22",
            "pay.toml:11:15: beyond-limits: `ops/all` is account 999999999999, which is not among those that acme \
             allows below it | ask ceo@example.com to add it to `accounts` at access.d/acme.toml:5:12",
        ],
        "{lines:#?}"
    );
}

#[test]
fn limits_are_checked_themselves_and_invent_no_mistakes_below() {
    let root = "[project]\nname = 'acme'\nowners = ['ceo@example.com']\n[project.children]\naccounts = ['12', '111111111111']\n\
        permission_sets = ['']\ngroups = [5]\nlongest_membership = '2h'\nmay_drop = false\n";
    let pay = project(
        "pay",
        "acme",
        "[[entitlement]]\nname = 'x'\naccount = '333333333333'\npermission_set = 'Support'\n\
         [[entitlement]]\nname = 'g'\ngroup = 'g'\n[[member]]\nemail = 'a@example.com'\n",
    );
    let lines = said(&[("acme.toml", root), ("pay.toml", &pay)]);
    let starts = [
        "acme.toml:5:13: bad-account",
        "acme.toml:6:20: bad-pattern: nothing has such a name",
        "acme.toml:7:11: wrong-type: expected text in quotes",
        "acme.toml:8:22: bad-duration: 2h is too short | write between 24h and 87840h",
        "acme.toml:9:1: unknown-key: unknown key `may_drop` | did you mean `may_drop_member`?",
        "pay.toml:8:18: beyond-limits: permission set Support is not among those that acme allows below it",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn a_childs_limits_that_are_wider_say_nothing() {
    let shop = project(
        "shop",
        "acme",
        "[project.children]\naccounts = ['111111111111', '333333333333']\nlongest_membership = '200d'\nmay_drop_member = true\n",
    );
    assert_eq!(
        said(&[("acme.toml", ROOT), ("shop.toml", &shop)]),
        [
            "shop.toml:6:29: warning idle-limit: nothing below can have account 333333333333: acme does not allow it | \
             remove it, or ask ceo@example.com to add it to `accounts` at access.d/acme.toml:5:12",
            "shop.toml:7:22: warning idle-limit: acme already limits memberships to 180d | \
             remove it, or ask ceo@example.com about `longest_membership` at access.d/acme.toml:8:22",
            "shop.toml:8:19: warning idle-limit: acme does not let on-call rules drop the membership key | \
             remove it, or ask ceo@example.com about `may_drop_member` at access.d/acme.toml:9:19",
        ]
    );
    let strict = shop
        .replace(", '333333333333'", "")
        .replace("200d", "90d")
        .replace("true", "false");
    assert_eq!(said(&[("acme.toml", ROOT), ("shop.toml", &strict)]), [""; 0]);
}

fn lender(delegations: &str) -> String {
    format!(
        "[project]\nname = 'pay'\nparent = 'acme'\nowners = ['mira@example.com']\n\
         [[entitlement]]\nname = 'admin'\ngroup = 'g'\ndelegate_to = [{delegations}]\n"
    )
}

const ACME: &str = "[project]\nname = 'acme'\nowners = ['ceo@example.com']\n";

fn borrower(rules: &[&str]) -> String {
    let mut text =
        "[project]\nname = 'sre'\nowners = ['sam@example.com']\n[[member]]\nemail = 'a@example.com'\n".to_owned();
    for rule in rules {
        text += &format!("[[rule]]\nentitlement = 'pay/admin'\n{rule}\n");
    }
    text
}

fn lent(delegations: &str, rules: &[&str]) -> Vec<String> {
    said(&[
        ("acme.toml", ACME),
        ("pay.toml", &lender(delegations)),
        ("sre.toml", &borrower(rules)),
    ])
}

#[test]
fn a_delegation_allows_what_it_names_and_no_more() {
    let p1 = "on_call = 'pagerduty/P1'";
    let e1 = "on_call = { escalation_policy = 'pagerduty/P1' }";
    let members = "members = true";
    let ask = "ask mira@example.com (or above them ceo@example.com) to widen the delegation at access.d/pay.toml:8:16";
    for (delegations, rules) in [
        ("'sre'", vec![p1, e1, members]),
        ("{ project = 'sre' }", vec![p1, e1, members]),
        ("{ project = 'sre', rules = 'on-call' }", vec![p1, e1]),
        ("{ project = 'sre', rules = 'members' }", vec![members]),
        ("{ project = 'sre', schedules = ['pagerduty/P1'] }", vec![p1]),
        (
            "{ project = 'sre', schedules = ['pagerduty/P2'], escalation_policies = ['pagerduty/P1'] }",
            vec![e1],
        ),
        (
            "{ project = 'sre', schedules = ['pagerduty/P1'] }, { project = 'sre', rules = 'members' }",
            vec![p1, members],
        ),
    ] {
        assert_eq!(lent(delegations, &rules), [""; 0], "{delegations}");
    }
    assert_eq!(
        lent("{ project = 'sre', schedules = ['pagerduty/P1'] }", &[p1, e1, members]),
        [
            format!(
                "sre.toml:10:15: outside-delegation: `pay/admin` is delegated to sre for on-call rules in pagerduty/P1 only | {ask}"
            ),
            format!(
                "sre.toml:13:15: outside-delegation: `pay/admin` is delegated to sre for on-call rules in pagerduty/P1 only | {ask}"
            ),
        ]
    );
    assert_eq!(
        lent("{ project = 'sre', rules = 'members' }", &[p1, members]),
        [format!(
            "sre.toml:7:15: outside-delegation: `pay/admin` is delegated to sre for membership rules only | {ask}"
        )]
    );
    let refused = "sre.toml:7:15: no-consent: `pay/admin` belongs to pay, which has not delegated it to sre | \
        ask mira@example.com (or above them ceo@example.com) to write delegate_to = [\"sre\"] in the entitlement at \
        access.d/pay.toml:5:1";
    assert_eq!(lent("", &[p1]), [refused]);
}

#[test]
fn mistakes_in_a_delegation_are_its_own() {
    let p1 = "on_call = 'pagerduty/P1'";
    for (delegations, expected) in [
        (
            "{ until = 2027-03-31 }",
            "pay.toml:8:16: missing-key: `delegate_to` has no `project` | add project = \"sre\"",
        ),
        (
            "{ project = 'sre', rules = 'oncall' }",
            "pay.toml:8:43: wrong-value: `oncall` is not known here | did you mean `on-call`?",
        ),
        (
            "{ project = 'sre', for = '1d' }",
            "pay.toml:8:35: unknown-key: unknown key `for`",
        ),
        (
            "{ project = 'sre', schedules = ['P1'] }",
            "pay.toml:8:48: bad-schedule: this does not name a schedule",
        ),
        (
            "{ project = 'sre', schedules = [] }",
            "pay.toml:8:47: bad-schedule: no rule would ever be allowed",
        ),
        (
            "{ project = 'sre', schedules = ['pagrduty/P1', 'pagerduty/P1'] }",
            "unknown-source: there is no on-call source",
        ),
        (
            "'sre', { project = 'sre', schedules = ['pagerduty/P1'], rules = 'members' }",
            "idle-key: `schedules` narrows on-call rules, and only membership rules are delegated",
        ),
        (
            "{ project = 'sr' }, 'sre'",
            "pay.toml:8:28: unknown-delegate: there is no project `sr` | did you mean `sre`?",
        ),
        (
            "{ project = 'pay' }, 'sre'",
            "unknown-delegate: a project need not delegate to itself",
        ),
        (
            "5, 'sre'",
            "pay.toml:8:16: wrong-type: expected a project's name or a table with `project`, found the number `5`",
        ),
        (
            "{ project = 'sre', until = '2027-03-31' }",
            "dates are written without quotes",
        ),
    ] {
        let errors: Vec<String> = lent(delegations, &[p1])
            .into_iter()
            .filter(|l| !l.contains("warning"))
            .collect();
        assert_eq!(errors.len(), 1, "{delegations}: {errors:#?}");
        assert!(errors[0].contains(expected), "{delegations}: {errors:#?}");
    }
}

#[test]
fn ends_and_idleness_are_pointed_out_on_both_sides() {
    let p1 = "on_call = 'pagerduty/P1'";
    let ask = "ask mira@example.com (or above them ceo@example.com) to extend it at access.d/pay.toml:8:16";
    assert_eq!(
        lent("{ project = 'sre', until = 2026-05-30 }", &[p1]),
        [
            "pay.toml:8:43: warning ended: the delegation of `pay/admin` to sre has ended | extend it, or remove it"
                .to_owned(),
            format!(
                "sre.toml:7:15: warning ended: the delegation of `pay/admin` that this rule rests on has ended | {ask}, or remove the rule"
            ),
        ]
    );
    assert_eq!(
        lent("{ project = 'sre', until = 2026-06-15 }", &[p1]),
        [
            "pay.toml:8:43: warning ends-soon: the delegation of `pay/admin` to sre ends at 2026-06-16T00:00:00Z | \
             extend it if that is too early, or remove it"
                .to_owned(),
            format!(
                "sre.toml:7:15: warning ends-soon: the delegation of `pay/admin` that this rule rests on ends at \
             2026-06-16T00:00:00Z | {ask} if that is too early, or remove the rule"
            ),
        ]
    );
    assert_eq!(lent("{ project = 'sre', until = 2026-09-30 }", &[p1]), [""; 0]);
    // What lasts longest counts.
    assert_eq!(
        lent("'sre', { project = 'sre', until = 2026-05-30 }", &[p1]),
        ["pay.toml:8:50: warning ended: the delegation of `pay/admin` to sre has ended | extend it, or remove it"]
    );
    assert_eq!(
        lent("{ project = 'sre', rules = 'members' }, 'sre'", &[p1]),
        [
            "pay.toml:8:16: warning unused-delegation: no rule of sre uses this delegation of `pay/admin` | \
          remove it, or ask sam@example.com what it is for"
        ]
    );
}

#[test]
fn a_rule_ends_with_the_delegation_that_it_rests_on() {
    let load = |delegations: &str, rule: &str| {
        let (policy, _) = load_all(&[
            ("acme.toml", ACME),
            ("pay.toml", &lender(delegations)),
            ("sre.toml", &borrower(&[rule])),
        ])
        .unwrap();
        let rule = policy.projects[&ProjectName("sre".into())].rules[0].clone();
        (
            rule.until.map(|t| t.to_string()),
            rule.delegation.unwrap().origin.to_string(),
        )
    };
    let (p1, place) = ("on_call = 'pagerduty/P1'", "access.d/pay.toml:8".to_owned());
    let until = |text: &str| Some(text.to_owned());
    assert_eq!(load("'sre'", p1), (None, place.clone()));
    // A date counts through its day; an instant to the second.
    let dated = "{ project = 'sre', until = 2027-03-31 }";
    assert_eq!(load(dated, p1), (until("2027-04-01T00:00:00Z"), place.clone()));
    let instant = "{ project = 'sre', until = 2027-03-31T18:00:00+02:00 }";
    assert_eq!(load(instant, p1), (until("2027-03-31T16:00:00Z"), place.clone()));
    // The earlier of both ends.
    let earlier = format!("{p1}\nuntil = 2026-12-31");
    assert_eq!(load(dated, &earlier), (until("2027-01-01T00:00:00Z"), place.clone()));
    // The longest of those that allow it.
    let several = "{ project = 'sre', rules = 'members' }, { project = 'sre', until = 2027-03-31 }, \
        { project = 'sre', until = 2028-03-31, schedules = ['pagerduty/P2'] }";
    assert_eq!(load(several, p1), (until("2027-04-01T00:00:00Z"), place.clone()));
    assert_eq!(load(&format!("{dated}, 'sre'"), p1), (None, place));
}

#[test]
fn a_lineage_is_the_project_and_those_above() {
    let (policy, _) = load_all(&[
        ("acme.toml", ACME),
        ("shop.toml", &project("shop", "acme", "")),
        ("pay.toml", &project("pay", "shop", "")),
    ])
    .unwrap();
    let line = |name: &str| -> Vec<String> {
        policy
            .lineage(&ProjectName(name.into()))
            .map(|p| p.name.to_string())
            .collect()
    };
    assert_eq!(line("pay"), ["pay", "shop", "acme"]);
    assert_eq!(line("acme"), ["acme"]);
    assert_eq!(line("nobody"), [""; 0]);
}
