//! Trainings that count for some time, in members' entries and in lists.

use super::*;

const P: &str = "[project]\nname = 'p'\nowners = ['o@example.com']\n[[entitlement]]\nname = 'e'\ngroup = 'g'\n\
    [[rule]]\nentitlement = 'e'\non_call = 'pagerduty/P1'\nrequires = ['pci']\n[[member]]\nemail = 'a@example.com'\n";

fn with_list(list: &str) -> Vec<String> {
    said(&[("p.toml", P), ("trainings.csv", list)])
}

#[test]
fn entries_and_lists_add_up() {
    let entry = format!("{P}completed = ['old', {{ training = 'pci', since = 2026-01-01, until = 2026-06-30 }}]\n");
    let list = "name,training,email,until,since\r\n\
                Somebody,pci,A@example.com,2027-06-30,2026-07-01\r\n\
                Nobody,pci,nobody@example.com,,\r\n\
                Somebody,\"first, aid\",a@example.com,2026-12-31T18:00:00+01:00,\r\n";
    let (policy, warnings) = load_all(&[("p.toml", &entry), ("trainings.csv", list)]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let members = &policy.projects[&ProjectName("p".into())].members;
    let alice = &members[&Person::parse("a@example.com").unwrap()];
    let spans = |training: &str| -> Vec<String> { alice.trained(training).iter().map(ToString::to_string).collect() };
    // Both halves of the year touch, so they are one span.
    assert_eq!(spans("pci"), ["[2026-01-01T00:00:00Z, 2027-07-01T00:00:00Z)"]);
    assert_eq!(alice.trained("old"), [crate::model::Interval::ALWAYS]);
    assert!(
        spans("first, aid")[0].ends_with("2026-12-31T17:00:00Z)"),
        "{:?}",
        spans("first, aid")
    );
    assert_eq!(spans("unknown"), [""; 0]);
    assert_eq!(alice.completed["pci"][1].origin.to_string(), "access.d/trainings.csv:2");
    assert_eq!(members.len(), 1, "a list makes nobody a member");
}

#[test]
fn a_list_is_read_whole_or_not_at_all() {
    let half = "the list ends in the middle of a line | another system may still be writing it";
    for (list, expected) in [
        ("email,training\na@example.com,pci\n", vec![]),
        ("\u{feff}email,training\na@example.com,pci\n", vec![]),
        (
            "",
            vec!["trainings.csv:1:1: bad-training: this is no list of completed trainings | the first line names"],
        ),
        (
            "email;training\na@example.com;pci\n",
            vec!["trainings.csv:1:1: bad-training: this is no list"],
        ),
        (
            "email,training\n",
            vec!["trainings.csv:1:1: bad-training: the list names nobody | an empty list would take"],
        ),
        ("email,training\na@example.com,pc", vec![half]),
        (
            "email,training\na@example.com\n",
            vec!["trainings.csv:2:1: bad-training: this line has another number"],
        ),
        (
            "email,training,until\na,pci,\n\nb@example.com, ,\nc@example.com,pci,soon\nd@example.com,pci,2027-01-01T10:00:00\n",
            vec![
                "trainings.csv:2:1: bad-training: \"a\" is not an e-mail address",
                "trainings.csv:4:1: bad-training: this is not the name of a training",
                "trainings.csv:5:1: bad-training: `until` is \"soon\": this is no date | write one such as 2027-03-31",
                "trainings.csv:6:1: bad-training: `until` is \"2027-01-01T10:00:00\": a date with a time needs an offset",
            ],
        ),
        (
            "email,training,since,until\na@example.com,pci,2027-01-01,2026-01-01\n",
            vec!["trainings.csv:2:1: bad-training: this training ends before it begins | exchange"],
        ),
        (
            "email,training,until\na@example.com,pci,2026-02-30\n",
            vec![
                "trainings.csv:2:1: bad-training: `until` is \"2026-02-30\", and there is no such day | write a day of",
            ],
        ),
    ] {
        let errors: Vec<String> = with_list(list)
            .into_iter()
            .filter(|l| !l.contains(" warning "))
            .collect();
        let lines: Vec<String> = errors.into_iter().filter(|l| !l.contains("warning")).collect();
        assert_eq!(lines.len(), expected.len(), "{list}\n{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{list}\n{line}\n{expected}");
        }
    }
    let only_a_list = load_all(&[("trainings.csv", "email,training\na@example.com,pci\n")]).unwrap_err();
    assert!(
        only_a_list
            .to_text(false)
            .contains("there is no policy file in this directory")
    );
    let dir = directory(&[("p.toml", P), ("trainings.csv", "email,training\na@example.com,pci\n")]);
    let root = dir.path().join("access.d");
    let first = fingerprint(&root).unwrap();
    fs::write(root.join("trainings.csv"), "email,training\nb@example.com,pci\n").unwrap();
    assert_ne!(fingerprint(&root).unwrap(), first, "a new list is a new policy");
}

#[test]
fn what_nobody_has_or_what_has_ended_is_pointed_out() {
    let nobody = "p.toml:10:13: warning unmet-training: no member of p has completed `pci` | \
        so nobody earns this; list it under a member's `completed`";
    assert_eq!(said(&[("p.toml", P)]), [nobody]);
    assert_eq!(with_list("email,training\nb@example.com,pci\n"), [nobody]);
    let completed = |text: &str| said(&[("p.toml", &format!("{P}completed = [{text}]\n"))]);
    assert_eq!(
        completed("{ training = 'pci', until = 2026-05-30 }"),
        ["p.toml:13:42: warning ended: the training `pci` has ended | extend it once it is renewed, or remove it"]
    );
    for (text, expected) in [
        (
            "{ training = 'pci', since = 2027-01-01, until = 2026-07-01 }",
            "bad-date: this training ends before it begins",
        ),
        (
            "{ until = 2027-01-01 }, 'pci'",
            "missing-key: `completed` has no `training`",
        ),
        (
            "{ training = 'member' }, 'pci'",
            "bad-training: `member` is no training",
        ),
        (
            "5, 'pci'",
            "wrong-type: expected a training's name or a table with `training`, found the number `5`",
        ),
    ] {
        let lines = completed(text);
        assert!(lines.iter().any(|line| line.contains(expected)), "{text}\n{lines:#?}");
    }
}

const ANN: &str = "[project]\nname = 'p'\nowners = ['o@example.com']\n[[entitlement]]\nname = 'e'\ngroup = 'g'\n\
    [[rule]]\nentitlement = 'e'\non_call = 'pagerduty/P1'\nrequires = ['incident-drill']\n\
    [[member]]\nemail = 'annabel@example.com'\n[[member]]\nemail = 'robert@example.com'\n";

fn said_of_list(name: &str, list: &str) -> Vec<String> {
    let said = said(&[("p.toml", ANN), (name, list)]);
    said.into_iter().filter(|line| line.starts_with(name)).collect()
}

#[test]
fn slips_in_a_list_are_named_with_their_line() {
    let list = "email,training\nannabel@example.com,incident-drill\nrobert@example.com,incident-dril\n\
                anabel@example.com,incident-drill\nzoe@example.com,incident-drill\nrobert@example.com,first-aid\n\
                annabel@example.com,incident-drill\n";
    assert_eq!(
        said_of_list("t.csv", list),
        [
            "t.csv:3:1: warning unknown-training: nothing requires a training `incident-dril` | did you mean `incident-drill`?",
            "t.csv:4:1: warning unknown-person: anabel@example.com is a member of no project | did you mean `annabel@example.com`?",
            "t.csv:7:1: warning said-twice: line 2 says the same of annabel@example.com | remove one of the two",
        ]
    );
    // Everybody's list is mostly about others; one about members is not.
    let ours = "email,training\nannabel@example.com,incident-drill\nrobert@example.com,incident-drill\n\
                zoe@example.com,incident-drill\n";
    assert_eq!(
        said_of_list("t.csv", ours),
        [
            "t.csv:4:1: warning unknown-person: zoe@example.com is a member of no project | correct the address, or add [[member]] where they belong"
        ]
    );
}

#[test]
fn a_list_in_json_is_as_good_as_one_in_csv() {
    let list = r#"[
  { "email": "annabel@example.com", "training": "incident-drill", "until": "2099-01-01", "by": { "id": 5 } },
  { "email": "robert@example.com",
    "training": "incident-drill", "since": null }
]"#;
    let (policy, warnings) = load_all(&[("p.toml", ANN), ("t.json", list)]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let members = &policy.projects[&ProjectName("p".into())].members;
    let completed = |who: &str| {
        let completion = &members[&Person::parse(who).unwrap()].completed["incident-drill"][0];
        format!("{} {}", completion.origin, completion.valid)
    };
    assert_eq!(
        completed("annabel@example.com"),
        "access.d/t.json:2 [-009999-01-02T01:59:59Z, 2099-01-02T00:00:00Z)"
    );
    assert!(completed("robert@example.com").starts_with("access.d/t.json:3 "));

    let wrong = "[\n {\"email\": \"x\", \"training\": \"pci\"},\n {\"email\": 5},\n {\"email\": \"robert@example.com\"},\n \
                 {\"email\": \"robert@example.com\", \"training\": \"incident-drill\", \"since\": \"2026-02-30\"},\n 7\n]";
    let lines = said_of_list("t.json", wrong);
    for (line, expected) in lines.iter().zip([
        "t.json:2:2: bad-training: \"x\" is not an e-mail address: it needs one @ with something on both sides | write the address",
        "t.json:3:2: bad-training: invalid type: integer `5`, expected a string | a list is an array of objects",
        "t.json:4:2: bad-training: this is not the name of a training | write the name",
        "t.json:5:2: bad-training: `since` is \"2026-02-30\", and there is no such day | write a day",
        "t.json:6:2: bad-training: invalid type: integer `7`, expected struct Said | a list is",
    ]) {
        assert!(line.contains(expected), "{line}\n{expected}");
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for (list, expected) in [
        ("[]", "the list names nobody"),
        (
            "[ { \"email\": \"robert@exam",
            "the list ends in the middle | another system may still be writing it",
        ),
        ("", "the list ends in the middle"),
        ("{}", "invalid type: map, expected a sequence | a list is an array"),
        ("[{},]", "trailing comma"),
    ] {
        let lines = said_of_list("t.json", list);
        assert!(lines.len() == 1 && lines[0].contains(expected), "{list}\n{lines:#?}");
    }
}

#[test]
fn a_training_that_was_renewed_is_not_said_to_have_ended() {
    let old = "completed = [{ training = 'pci', until = 2026-05-30 }";
    let ended = |text: &str, list: Option<&str>| {
        let policy = format!("{P}{text}\n");
        let mut files = vec![("p.toml", policy.as_str())];
        files.extend(list.map(|list| ("t.csv", list)));
        said(&files).iter().filter(|line| line.contains("ended")).count()
    };
    assert_eq!(ended(&format!("{old}]"), None), 1);
    assert_eq!(
        ended(&format!("{old}, {{ training = 'pci', since = 2026-05-31 }}]"), None),
        0
    );
    let list = "email,training,until\na@example.com,pci,2099-01-01\n";
    assert_eq!(ended(&format!("{old}]"), Some(list)), 0);
}

#[test]
fn a_project_that_is_defined_twice_says_nothing_else() {
    let first = format!("{P}completed = ['pci']\n");
    let said = said(&[("p.toml", &first), ("q.toml", P)]);
    assert_eq!(
        said,
        [
            "q.toml:2:8: duplicate-project: the project `p` is already defined at access.d/p.toml:2:8 | rename one, or remove the file that should not be there"
        ]
    );
}

proptest::proptest! {
    /// Whatever another system writes, the answer is a policy or a mistake that can be shown.
    #[test]
    fn any_list_is_understood_or_refused(list in r#"(email,training(,until)?\n)?([a@.,"\n\r\x00\x1b\u{202e}é -]|pci|2027-01-01){0,40}"#) {
        match load_all(&[("p.toml", P), ("t.csv", &list)]) {
            Ok((policy, _)) => proptest::prop_assert_eq!(policy.projects.len(), 1),
            Err(report) => {
                let shown = report.to_text(false);
                proptest::prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", shown);
            }
        }
    }
}
