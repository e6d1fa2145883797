//! What configurations load, what is said about the others, and that no secret is ever shown.

use std::{collections::BTreeMap, fs};

use secrecy::ExposeSecret as _;

use super::*;

const MINIMAL: &str = r#"
mode = "observe"
owner_id = "acme"

[source.pagerduty]
kind = "pagerduty"
token = { env = "PD" }

[identity_center]
region = "eu-central-1"
expected_account_id = "111122223333"
"#;

fn env() -> BTreeMap<String, String> {
    [("PD", "pd-key"), ("OG", "og-key")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn load_text(text: &str) -> Result<(Config, Vec<Diagnostic>), Report> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    load(&path, &env(), Secrets::Read)
}

/// `line:column code message | hint` of everything said.
fn said(text: &str) -> Vec<String> {
    let diagnostics = match load_text(text) {
        Ok((_, warnings)) => warnings,
        Err(report) => report.into_diagnostics(),
    };
    let line = |d: &Diagnostic| {
        let place = d.place();
        let place = place.split_once(".toml:").map_or("", |(_, rest)| rest);
        let hint = d.hint.as_deref().unwrap_or("");
        format!("{place} {} {} | {hint}", d.code, d.message)
    };
    diagnostics.iter().map(line).collect()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let (config, warnings) = load_text(MINIMAL).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.mode, Mode::Observe);
    assert!(config.policy_dir.ends_with("access.d") && config.policy_dir.is_absolute());
    let http = config.http.unwrap();
    assert_eq!(http.address, "127.0.0.1:9868".parse().unwrap());
    assert!(http.token.is_none());
    assert_eq!((config.timing, config.limits), (Timing::default(), Limits::default()));
    let source = &config.sources[&SourceName("pagerduty".into())];
    assert_eq!(source.base_url.as_str(), "https://api.pagerduty.com/");
    assert_eq!(
        (source.requests_per_minute, source.timeout),
        (480, Duration::from_secs(30))
    );
    assert!(matches!(&source.api, SourceApi::PagerDutyKey(key) if key.expose_secret() == "pd-key"));
    let aws = &config.identity_center;
    assert_eq!((aws.requests_per_second, aws.assignments_in_flight), (15, 10));
    assert_eq!((aws.operation_timeout.as_secs(), aws.call_timeout.as_secs()), (300, 10));
}

#[test]
fn every_key_arrives() {
    let text = r#"
mode = "sync"
owner_id = "acme"
policy_dir = "/srv/policy"
roots = ["acme"]
ledger = "ledger.db"
[source.pd]
kind = "pagerduty"
region = "eu"
oauth = { client_id = "id", client_secret = { env = "PD" }, subdomain = "acme" }
[source.og]
kind = "opsgenie"
base_url = "http://127.0.0.1:8080/og/"
api_key = { env = "OG" }
requests_per_minute = 7
timeout = "5s"
[identity_center]
region = "us-gov-west-1"
expected_account_id = "000022223333"
endpoint_url = "http://localhost:5000"
[[identity]]
email = "Alice@example.com"
on_call = { pd = "PALICE", og = "alice@example.org" }
user_name = "alice"
[[identity]]
email = "bob@example.com"
identity_center = "906670e2f1-6b0e1b3c-1111-2222-3333-444455556666"
[timing]
poll = "5s"
horizon = "80d"
[limits]
protected = ["root@example.com"]
[http]
enabled = false
[[sink]]
name = "siem"
kind = "http"
format = "ocsf"
url = "https://collector.example.com/v1/events/"
body = "array"
token = { env = "PD" }
header = { name = "X-Api-Key", value = { env = "OG" } }
signing_key = { env = "OG" }
timeout = "5s"
[[sink]]
name = "relay"
kind = "syslog"
to = "tcp://[::1]:601"
facility = "local7"
[[sink]]
name = "journal"
kind = "syslog"
to = "unix:///dev/log"
[[sink]]
name = "disk"
kind = "file"
path = "events.jsonl"
"#;
    let (config, _) = load_text(text).unwrap_or_else(|report| panic!("{}", report.to_text(false)));
    assert_eq!(config.roots, Some([ProjectName("acme".into())].into()));
    let SourceApi::PagerDutyOauth { scope, token_url, .. } = &config.sources[&SourceName("pd".into())].api else {
        panic!("not OAuth");
    };
    assert!(scope.starts_with("as_account-eu.acme oncalls.read "), "{scope}");
    assert_eq!(token_url.as_str(), "https://identity.pagerduty.com/oauth/token");
    assert_eq!(
        config.sources[&SourceName("pd".into())].base_url.as_str(),
        "https://api.eu.pagerduty.com/"
    );
    assert_eq!(
        config.sources[&SourceName("og".into())].base_url.as_str(),
        "http://127.0.0.1:8080/og"
    );
    assert_eq!(config.identities[0].person.as_str(), "alice@example.com");
    assert_eq!(config.identities[0].sources.len(), 2);
    assert_eq!(
        config.identities[0].identity_center,
        Some(UserPin::UserName("alice".into()))
    );
    assert_eq!(config.timing.horizon, SignedDuration::from_hours(80 * 24));
    assert!(config.http.is_none());
    assert!(config.ledger.is_absolute() && config.ledger.ends_with("ledger.db"));
    let [siem, relay, journal, disk] = config.sinks.as_slice() else {
        panic!("{:?}", config.sinks);
    };
    let SinkTarget::Http(http) = &siem.target else {
        panic!("{siem:?}");
    };
    assert_eq!((siem.name.as_str(), siem.format), ("siem", SinkFormat::Ocsf));
    assert_eq!(http.url.as_str(), "https://collector.example.com/v1/events/");
    assert_eq!((http.body, http.timeout.as_secs()), (HttpBody::Array, 5));
    assert_eq!(http.token.as_ref().unwrap().expose_secret(), "pd-key");
    assert_eq!(http.header.as_ref().unwrap().0, "x-api-key");
    let SinkTarget::Syslog { address, facility } = &relay.target else {
        panic!("{relay:?}");
    };
    assert_eq!(
        (address, *facility),
        (&SyslogAddress::Tcp("[::1]:601".into()), Facility::Local7)
    );
    assert_eq!(relay.format, SinkFormat::Structured);
    assert!(
        matches!(&journal.target, SinkTarget::Syslog { address: SyslogAddress::Unix(path), facility: Facility::Authpriv }
            if path.as_os_str() == "/dev/log")
    );
    assert!(matches!(&disk.target, SinkTarget::File(path) if path.is_absolute() && path.ends_with("events.jsonl")));
    let shown = format!("{config:?}");
    assert!(!shown.contains("pd-key") && !shown.contains("og-key"), "{shown}");
}

#[test]
fn each_bad_sink_has_its_own_message() {
    let http = "kind = 'http'\nurl = 'https://example.com/'\n";
    for (sink, expected) in [
        ("kind = 'file'\npath = 'x'\nname = 'a/b'", "bad-name"),
        (
            "kind = 'file'\npath = 'x'",
            "[[sink]] has no `name` | add name = \"siem\"",
        ),
        ("name = 'a'\nkind = 'kafka'", "`kafka` is not known here"),
        (
            "name = 'a'",
            "[[sink]] has no `kind` | add kind = \"file\", \"syslog\" or \"http\"",
        ),
        ("name = 'a'\nkind = 'file'", "the sink has no `path`"),
        ("name = 'a'\nkind = 'file'\npath = 'x/'", "this is not a file's path"),
        (
            "name = 'a'\nkind = 'file'\npath = '/var/lib/dutybound/ledger.sqlite-wal'",
            "a file of the ledger itself",
        ),
        (
            "name = 'a'\nkind = 'file'\npath = 'x'\n[[sink]]\nname = 'b'\nkind = 'file'\npath = './x'",
            "something else is appended to this file already",
        ),
        ("name = 'a'\nkind = 'syslog'", "the sink has no `to`"),
        (
            "name = 'a'\nkind = 'syslog'\nto = 'udp://host'",
            "not an address of a syslog receiver",
        ),
        (
            "name = 'a'\nkind = 'syslog'\nto = 'tls://host:6514'",
            "not an address of a syslog receiver",
        ),
        (
            "name = 'a'\nkind = 'syslog'\nto = 'unix://dev/log'",
            "not an address of a syslog receiver",
        ),
        (
            "name = 'a'\nkind = 'syslog'\nto = 'udp://h:1'\nfacility = 'mail'",
            "`mail` is not known here",
        ),
        (
            "name = 'a'\nkind = 'file'\npath = 'x'\nformat = 'structured'",
            "structured data belongs to syslog",
        ),
        (
            "name = 'a'\nkind = 'file'\npath = 'x'\nto = 'udp://h:1'",
            "`to` belongs to a sink of kind \"syslog\"",
        ),
        ("name = 'a'\nkind = 'http'", "the sink has no `url`"),
        (
            "name = 'a'\nkind = 'http'\nurl = 'http://example.com/'",
            "http is for loopback only",
        ),
        (
            "name = 'a'\nkind = 'http'\nurl = 'https://example.com/?key=x'",
            "a user name, a query or a fragment",
        ),
        (&format!("name = 'a'\n{http}timeout = '1h'"), "1h is too long"),
        (
            &format!("name = 'a'\n{http}token = {{ env = 'NONE' }}"),
            "the environment variable NONE is not set",
        ),
        (
            &format!("name = 'a'\n{http}header = {{ name = 'Host', value = {{ env = 'PD' }} }}"),
            "not the name of a header that a sink may have",
        ),
        (
            &format!("name = 'a'\n{http}header = {{ name = 'x' }}"),
            "`header` has no `value`",
        ),
        (
            &format!("name = 'a'\n{http}[[sink]]\nname = 'a'\n{http}"),
            "there is a sink `a` already | the first is in line 14",
        ),
    ] {
        let lines = said(&format!("{MINIMAL}\n[[sink]]\n{sink}\n"));
        assert_eq!(lines.len(), 1, "{expected}\n{lines:#?}");
        assert!(lines[0].contains(expected), "{expected}\n{lines:#?}");
    }
    for sink in [
        "token = \"hunter2\"",
        "signing_key = 'hunter2'",
        "header = { name = 'x', value = \"hunter2\" }",
    ] {
        let text = format!("{MINIMAL}\n[[sink]]\nname = 'a'\n{http}{sink}\n");
        let report = load_text(&text).unwrap_err();
        let shown = format!("{}{}{report}{report:?}", report.to_text(true), report.to_json());
        assert!(!shown.contains("hunter2"), "{sink}\n{shown}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_shown() {
    for line in [
        "token = \"hunter2\"",
        "token = hunter2",
        "token = \"hunter2",
        "token = \"\"\"\nhunter2\"\"\"",
        "token = [\"hunter2\"]",
        "apitoken = \"hunter2\"",
        "oauth = \"hunter2\"",
        "oauth = { client_id = 'x', client_secret = \"hunter2\", subdomain = 'x' }",
        "token = { value = \"hunter2\" }",
        "base_url = \"https://me:hunter2@example.com\"",
    ] {
        let text = MINIMAL.replace("token = { env = \"PD\" }", line);
        let report = load_text(&text).unwrap_err();
        let shown = format!("{}{}{report}{report:?}", report.to_text(true), report.to_json());
        assert!(!shown.contains("hunter2"), "{line}\n{shown}");
    }
    let lines = said(&MINIMAL.replace("{ env = \"PD\" }", "\"hunter2\""));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("a secret does not belong in this file"), "{lines:?}");
}

#[test]
fn each_bad_value_has_its_own_message() {
    let with = |from: &str, to: &str| MINIMAL.replace(from, to);
    let and = |more: &str| format!("{MINIMAL}{more}\n");
    let person = "[[identity]]\nemail = 'a@example.com'\n";
    let cases = [
        (
            with("mode = \"observe\"\n", ""),
            "the file has no `mode` | add mode = \"observe\"",
        ),
        (
            with("\"observe\"", "\"dry-run\""),
            "`dry-run` is not known here | write `observe`, `grant-only`",
        ),
        (with("\"observe\"", "\"snyc\""), "did you mean `sync`?"),
        (with("\"acme\"", "\"\""), "bad-name"),
        (
            with("kind = \"pagerduty\"", "kind = \"pagerdty\""),
            "did you mean `pagerduty`?",
        ),
        (with("kind = \"pagerduty\"\n", ""), "the source has no `kind`"),
        (with("token = { env = \"PD\" }", ""), "the source has no credential"),
        (
            with("token = { env = \"PD\" }", "api_key = { env = \"PD\" }"),
            "`api_key` belongs to Opsgenie",
        ),
        (
            with("env = \"PD\"", "env = \"NOPE\""),
            "the environment variable NOPE is not set",
        ),
        (
            with("{ env = \"PD\" }", "{ env = \"PD\", file = \"x\" }"),
            "exactly one place",
        ),
        (with("{ env = \"PD\" }", "{}"), "exactly one place"),
        (
            with("{ env = \"PD\" }", "{ credential = \"../x\" }"),
            "not the name of a systemd credential",
        ),
        (
            with("token", "base_url = \"http://example.com\"\ntoken"),
            "this URL is not encrypted",
        ),
        (with("token", "requests_per_minute = 5000\ntoken"), "between 1 and 960"),
        (with("token", "timeout = \"1h\"\ntoken"), "between 1s and 5m"),
        (with("token", "expires = 09:00:00\ntoken"), "a time alone is no date"),
        (with("eu-central-1", "Frankfurt"), "this is not an AWS region"),
        (with("\"111122223333\"", "111122223333"), "write it in quotes"),
        (with("\"111122223333\"", "\"1111\""), "this is not an AWS account id"),
        (
            MINIMAL.split("[identity_center]").next().unwrap().to_owned(),
            "the file has no [identity_center]",
        ),
        (and("requests_per_second = 20"), "between 1 and 19"),
        (and("instance_arn = 'x'"), "bad-arn"),
        (
            and("[timing]\npoll = \"100ms\""),
            "100ms is too short | write between 1s and 1h",
        ),
        (and("[timing]\nhorizon = \"90d\""), "90d is too long"),
        (
            and("[timing]\nmax_staleness = \"20d\""),
            "trusted for longer than it reaches",
        ),
        (and("[limits]\nsurprising_revokes_percent = 101"), "between 0 and 100"),
        (and("[limits]\nprotected = ['x']"), "bad-email"),
        (format!("roots = ['../x']\n{MINIMAL}"), "bad-name"),
        (and("[http]\nlisten = \"0.0.0.0:9868\""), "so it stays on loopback"),
        (
            and("[http]\ntoken = \"0123456789abcdef\""),
            "does not belong in this file",
        ),
        (
            and("[http]\ntoken = { env = \"PD\" }"),
            "fewer than 16 characters can be guessed",
        ),
        (
            and("[http]\nlisten = \"localhost\""),
            "this is not an address with a port",
        ),
        (and(person), "maps the person to nothing"),
        (
            and(&format!("{person}on_call = {{ pagerdty = 'P1' }}")),
            "did you mean `pagerduty`?",
        ),
        (
            and(&format!("{person}identity_center = 'alice'")),
            "for a user name write user_name",
        ),
        (
            and(&format!(
                "{person}user_name = 'a'\n[[identity]]\nemail = 'b@example.com'\nuser_name = 'a'"
            )),
            "the Identity Center user name a has an entry already | the first is in line",
        ),
        (
            and(&format!(
                "{person}user_name = 'a'\n{}user_name = 'b'",
                person.replace("a@", "A@")
            )),
            "the person a@example.com has an entry already",
        ),
        (
            and(&format!(
                "{person}on_call = {{ pagerduty = 'P1' }}\n[[identity]]\nemail = 'b@example.com'\n\
                 on_call = {{ pagerduty = 'P1' }}"
            )),
            "the user P1 of pagerduty has an entry already",
        ),
    ];
    for (text, expected) in cases {
        let lines = said(&text);
        assert_eq!(lines.len(), 1, "{expected}\n{lines:#?}");
        assert!(lines[0].contains(expected), "{expected}\n{lines:#?}");
    }
}

#[test]
fn secrets_can_be_skipped_and_a_broken_file_still_tells_what_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, MINIMAL).unwrap();
    assert!(load(&path, &BTreeMap::new(), Secrets::Read).is_err());
    assert!(load(&path, &BTreeMap::new(), Secrets::Skip).is_ok());
    fs::write(&path, MINIMAL.replace("mode", "mod")).unwrap();
    let inspection = inspect(&path, &BTreeMap::new(), Secrets::Skip);
    assert!(inspection.config.is_none());
    assert_eq!(inspection.policy_dir.unwrap(), dir.path().join("access.d"));
    assert!(
        inspection
            .sources
            .unwrap()
            .contains_key(&SourceName("pagerduty".into()))
    );
    fs::write(&path, "mode = \"\n").unwrap();
    assert!(inspect(&path, &BTreeMap::new(), Secrets::Skip).sources.is_none());
}

#[test]
fn mistakes_in_destinations_and_cron_schedules_are_told() {
    let notify = |text: &str| said(&format!("{MINIMAL}\n{text}"));
    for (text, expected) in [
        (
            "[notify]\nzone = 'Europe/Berln'",
            "14:8 unknown-zone there is no such time zone | did you mean `Europe/Berlin`?",
        ),
        (
            "[notify.destination.x]\nkind = 'slack-bot'\nchannel = '#a'",
            "13:1 missing-key a slack-bot has no `token` | add token = { env = \"SLACK_BOT_TOKEN\" }",
        ),
        (
            "[notify.destination.x]\nkind = 'slack-webhook'\nsecret_url = { env = 'PD' }",
            "15:14 bad-url the secret there is not an https URL | it looks like https://hooks.slack.com/services/...",
        ),
        (
            "[notify.destination.x]\nkind = 'webhook'\nurl = 'http://example.com/'\nkey = { env = 'PD' }",
            "15:7 bad-url this URL is not encrypted | a credential is sent there, so write https; http is for loopback only",
        ),
        ("[[notify.review]]\ncron = '0 25 * * *'", "14:8 bad-cron"),
        (
            "[[notify.report]]\ncron = '0 0 * * *'\nformats = ['pdf']",
            "15:12 unknown-word there is no such value | write one of text, json, csv",
        ),
        (
            "[notify.destination.x]\nkind = 'webhook'\nurl = 'https://example.com/'\nkey = { env = 'PD' }\ntells = ['gap', 'gaps']",
            "17:17",
        ),
    ] {
        let said = notify(text);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{text}\n{said:#?}");
    }
    let sound = "[notify.destination.x]\nkind = 'webhook'\nurl = 'http://127.0.0.1:1/'\nkey = { env = 'PD' }";
    assert!(notify(sound).is_empty());
    let secret = "[notify.destination.x]\nkind = 'slack-webhook'\nsecret_url = 'https://hooks.slack.com/hunter2'";
    let report = load_text(&format!("{MINIMAL}\n{secret}")).unwrap_err().to_text(false);
    assert!(
        !report.contains("hunter2") && report.contains("a secret does not belong in this file"),
        "{report}"
    );
}

#[test]
fn the_example_loads_and_says_what_the_defaults_are() {
    let example = include_str!("../../config.toml.example");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        load(&path, &BTreeMap::new(), Secrets::Skip)
            .unwrap_or_else(|report| panic!("{}", report.to_text(false)))
            .0
    };
    let shipped = read(example);
    assert_eq!(shipped.mode, Mode::Observe);
    assert_eq!(
        (&shipped.timing, &shipped.limits),
        (&Timing::default(), &Limits::default())
    );
    // Lines that begin with "#key =" or "#[section" are the defaults and examples, commented out.
    let is_setting = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or_default();
        rest.starts_with('[')
            || rest
                .split('=')
                .next()
                .is_some_and(|key| !key.is_empty() && !key.trim().contains(' ') && rest.contains(" = "))
    };
    let uncommented: String = example
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(
        uncommented.matches("\nsurprising_grants = 10").count() == 1,
        "{uncommented}"
    );
    let all = read(&uncommented);
    assert_eq!(
        (&all.timing, &all.limits, all.http.as_ref().map(|http| http.address)),
        (
            &shipped.timing,
            &shipped.limits,
            shipped.http.as_ref().map(|http| http.address)
        )
    );
    let told = |c: &Config| (c.notify.pace.clone(), c.notify.max_messages, c.notify.zone.clone());
    assert_eq!(told(&all), told(&shipped));
    let tells = |name: &str| all.notify.destinations[name].tells.clone();
    assert_eq!(tells("slack"), notify::BOT.into());
    assert_eq!(tells("payments-channel"), notify::CHANNEL.into());
    assert_eq!((all.notify.jobs.len(), tells("automation").len()), (2, 8));
    assert_eq!((&all.policy_dir, &all.ledger), (&shipped.policy_dir, &shipped.ledger));
    let aws = |c: &IdentityCenterConfig| {
        (
            c.requests_per_second,
            c.assignments_in_flight,
            c.operation_timeout,
            c.call_timeout,
        )
    };
    assert_eq!(aws(&all.identity_center), aws(&shipped.identity_center));
    for (name, source) in &shipped.sources {
        let other = &all.sources[name];
        assert_eq!(
            (&source.base_url, source.requests_per_minute, source.timeout),
            (&other.base_url, other.requests_per_minute, other.timeout)
        );
    }
    // Every key of the schema is in the example.
    let schema = serde_json::to_value(schemars::schema_for!(file::ConfigFile)).unwrap();
    let tables = std::iter::once(&schema).chain(schema["$defs"].as_object().unwrap().values());
    for key in tables
        .flat_map(|table| table["properties"].as_object())
        .flat_map(|keys| keys.keys())
    {
        let named = [
            format!("{key} = "),
            format!("[{key}"),
            format!("[[{key}"),
            format!(".{key}]"),
            format!(".{key}."),
        ];
        assert!(
            named.iter().any(|text| uncommented.contains(text.as_str())),
            "{key} is not in the example"
        );
    }
}

proptest::proptest! {
    /// However one edit breaks a file that holds a secret by mistake, the secret is not shown. Backslashes are not put
    /// in: one in front of a quote can make the secret a part of the value of another key, as which it is shown.
    #[test]
    fn one_edit_never_shows_a_secret(at in 0..MINIMAL.len(), cut in 0..12_usize, put in r#"[a-z"'=\[\]{}#\n.,é ]{0,3}"#) {
        let place = "{ env = \"PD\" }";
        let before = MINIMAL.find(place).unwrap();
        // The edit is made around the secret, not in it: half a secret is not recognised by this test.
        let (at, cut) = if at <= before { (at, cut.min(before - at)) } else { (at.max(before + place.len()), cut) };
        let mut text = MINIMAL.to_owned();
        let end = (at + cut).min(text.len());
        text.replace_range(at.min(end)..end, &put);
        let text = text.replace(place, "\"hunter2\"");
        let mut report = inspect_text(&text);
        report.sort();
        let shown = format!("{}{}{report}", report.to_text(false), report.to_json());
        proptest::prop_assert!(!shown.contains("hunter2"), "{}\n{}", text, shown);
    }
}

/// Found by the test above: `to` is a key of sinks.
#[test]
fn what_is_left_of_a_slip_in_token_shows_no_secret() {
    for slip in ["to", "by"] {
        let text = MINIMAL.replace("token = { env = \"PD\" }", &format!("{slip} = \"hunter2\""));
        assert!(text.contains("hunter2"), "{text}");
        let report = inspect_text(&text);
        assert!(!report.to_text(false).contains("hunter2"), "{report}");
    }
}

fn inspect_text(text: &str) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    inspect(&path, &env(), Secrets::Read).report
}
