//! The main job in one command: simulated PagerDuty, Opsgenie and Identity Center, a small organisation's policy, and
//! the real daemon handing access over every twenty seconds.
//!
//! `cargo run --example demo`. With `-- --hand-offs 1` it ends after the first hand-off.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use dutybound_sandbox::{Call, Sandbox, World};
use jiff::{SignedDuration, Timestamp, Unit};

/// How long each turn on call lasts.
const SHIFT: SignedDuration = SignedDuration::from_secs(20);

#[derive(Parser)]
struct Arguments {
    /// End after this many hand-offs instead of running until Ctrl-C.
    #[arg(long)]
    hand_offs: Option<usize>,
    /// Run this dutybound command instead: how the demo starts the daemon as a process of its own.
    #[arg(last = true)]
    dutybound: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = if arguments.dutybound.is_empty() {
        runtime.block_on(demo(arguments.hand_offs)).map(|()| 0)
    } else {
        tracing_subscriber::fmt()
            .with_env_filter("warn")
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .with_writer(std::io::stderr)
            .init();
        runtime.block_on(dutybound::app::run(dutybound::cli::Cli::parse_from(
            arguments.dutybound,
        )))
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn demo(hand_offs: Option<usize>) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("dutybound-demo-").tempdir()?;
    let mut world = World::small_organisation(Timestamp::now(), SHIFT);
    world.aws.operation_takes = SignedDuration::from_secs(2);
    let sandbox = Sandbox::start(world).await?;
    // The port is free at this moment; the daemon binds it right away.
    let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    write_files(folder.path(), &sandbox, &metrics.to_string())?;
    let config = folder.path().join("config.toml");
    let mut daemon = start_daemon(&config)?;
    introduce(&config, &metrics.to_string());

    let narrated = narrate(&sandbox, &mut daemon, hand_offs).await;
    stop(&mut daemon)?;
    println!("\nThe daemon has ended; {} is removed.", folder.path().display());
    narrated
}

fn write_files(folder: &Path, sandbox: &Sandbox, metrics: &str) -> anyhow::Result<()> {
    std::fs::create_dir(folder.join("access.d"))?;
    std::fs::write(folder.join("key"), "test-key\n")?;
    restrict(&folder.join("key"))?;
    let config = format!(
        r#"mode = "sync"
owner_id = "demo"
policy_dir = "access.d"
ledger = "ledger.db"

[source.pagerduty]
kind = "pagerduty"
base_url = "{pagerduty}"
token = {{ file = "key" }}

[source.opsgenie]
kind = "opsgenie"
base_url = "{opsgenie}"
api_key = {{ file = "key" }}

[identity_center]
region = "eu-central-1"
expected_account_id = "999999999999"
endpoint_url = "{aws}"

[timing]
poll = "5s"
notice = "5s"

[http]
listen = "{metrics}"
"#,
        pagerduty = sandbox.pagerduty_url(),
        opsgenie = sandbox.opsgenie_url(),
        aws = sandbox.aws_url(),
    );
    std::fs::write(folder.join("config.toml"), config)?;
    for (name, text) in POLICY {
        std::fs::write(folder.join("access.d").join(name), text)?;
    }
    Ok(())
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

const POLICY: [(&str, &str); 3] = [
    (
        "commerce.toml",
        r#"[project]
name   = "commerce"
owners = ["vera@example.com"]
"#,
    ),
    (
        "payments.toml",
        r#"[project]
name    = "payments"
parent  = "commerce"
owners  = ["mira@example.com"]
context = "PCI scope: card data never leaves the account."

[[entitlement]]
name           = "prod-admin"
account        = "111122223333"
permission_set = "AdministratorAccess"

[[entitlement]]
name  = "prod-readers"
group = "payments-prod-readers"

[[member]]
email     = "alice@example.com"
added_by  = "mira@example.com"
reason    = "payments engineer"
completed = ["incident-training"]

[[member]]
email     = "bob@example.com"
added_by  = "mira@example.com"
reason    = "payments engineer"
completed = ["incident-training"]

[[rule]]
entitlement = "prod-admin"
on_call     = "pagerduty/PABC123"
requires    = ["member", "incident-training"]

[[rule]]
entitlement = "prod-readers"
members     = true
"#,
    ),
    (
        "data.toml",
        r#"[project]
name   = "data"
owners = ["mira@example.com"]

[[entitlement]]
name  = "on-call"
group = "data-oncall"

[[member]]
email    = "dave@example.com"
added_by = "mira@example.com"

# Erin is on the rotation too, but nobody has made her a member: being on call is one key, membership the other.

[[rule]]
entitlement = "on-call"
on_call     = "opsgenie/6fce1fd0-bbbb-4000-8000-000000000001"
"#,
    ),
];

/// The simulated AWS takes any key; a real one comes from the ordinary credential chain.
const AWS_KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "demo"), ("AWS_SECRET_ACCESS_KEY", "demo")];

fn start_daemon(config: &Path) -> anyhow::Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--", "dutybound", "run", "--config"])
        .arg(config)
        .envs(AWS_KEYS)
        .stdin(Stdio::null())
        .spawn()?;
    Ok(child)
}

fn introduce(config: &Path, metrics: &str) {
    let config = config.display();
    println!(
        r#"dutybound runs against a simulated PagerDuty, Opsgenie and AWS. Turns last {SHIFT:#}.

In another terminal, from this folder:
  cargo run -- --config {config} status
  cargo run -- --config {config} explain alice@example.com
  cargo run -- --config {config} explain erin@example.com
  curl http://{metrics}/metrics
The same in a browser, with the coming week and the access hours: http://{metrics}/
Edit {policy}, for example add erin as a member of data; see what it would do:
  AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo cargo run -- --config {config} diff
The daemon takes up a good edit by itself within seconds, and refuses a bad one.

What AWS was asked for, as it happens (Ctrl-C ends):
"#,
        policy = config.to_string().replace("config.toml", "access.d/data.toml"),
    );
}

/// Says every change as AWS sees it, until Ctrl-C, the daemon's end, or enough hand-offs.
async fn narrate(sandbox: &Sandbox, daemon: &mut Child, hand_offs: Option<usize>) -> anyhow::Result<()> {
    let mut seen = 0;
    let mut revoked = 0;
    let mut names = BTreeMap::new();
    // One for all turns of the loop: a signal between two would be lost, and the daemon, which a terminal tells too, gone.
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let news = |calls: &[Call]| calls.iter().any(|call| seen < call.seq && ended(call));
        let wait = sandbox.wait_for(|view| news(view.journal), Duration::from_secs(1));
        tokio::select! {
            biased;
            _ = &mut interrupt => return Ok(()),
            _ = wait => {}
        }
        if let Some(status) = daemon.try_wait()? {
            anyhow::bail!("the daemon ended by itself: {status}");
        }
        let journal = sandbox.journal();
        names.extend(sandbox.edit(|world| names_in(world)));
        for call in journal.iter().filter(|call| seen < call.seq && ended(call)) {
            println!(
                "{}  {}",
                call.at.round(Unit::Second).unwrap_or(call.at),
                describe(call, &names)
            );
            revoked += usize::from(call.operation == "DeleteAccountAssignment");
        }
        seen = journal
            .iter()
            .filter(|call| ended(call))
            .map(|call| call.seq)
            .max()
            .unwrap_or(seen);
        if hand_offs.is_some_and(|enough| enough <= revoked) {
            return Ok(());
        }
    }
}

/// A change that AWS has answered.
fn ended(call: &Call) -> bool {
    call.is_write() && call.status.is_some()
}

/// Ids to the names that people know.
fn names_in(world: &World) -> BTreeMap<String, String> {
    let aws = &world.aws;
    let mut names: BTreeMap<_, _> = aws.users.iter().map(|u| (u.id.clone(), u.user_name.clone())).collect();
    names.extend(
        aws.groups
            .iter()
            .map(|g| (g.id.clone(), format!("group {}", g.display_name))),
    );
    names.extend(aws.permission_sets.iter().map(|p| (p.arn.clone(), p.name.clone())));
    let name = |id: &String| names.get(id).cloned().unwrap_or_default();
    let memberships: Vec<_> = aws
        .memberships
        .iter()
        .map(|m| (m.id.clone(), format!("{} to {}", name(&m.group), name(&m.user))))
        .collect();
    names.extend(memberships);
    names
}

fn describe(call: &Call, names: &BTreeMap<String, String>) -> String {
    let field = |name: &str| {
        let value = call.body[name].as_str().unwrap_or_default();
        names.get(value).map_or(value, String::as_str).to_owned()
    };
    match call.operation.as_str() {
        "CreateAccountAssignment" => {
            format!(
                "+ grant   {} in {} to {}",
                field("PermissionSetArn"),
                field("TargetId"),
                field("PrincipalId")
            )
        }
        "DeleteAccountAssignment" => format!(
            "- revoke  {} in {} from {}  (after the incoming grant was confirmed)",
            field("PermissionSetArn"),
            field("TargetId"),
            field("PrincipalId")
        ),
        "CreateGroupMembership" => {
            let member = call.body["MemberId"]["UserId"].as_str().unwrap_or_default();
            format!(
                "+ grant   {} to {}",
                field("GroupId"),
                names.get(member).map_or(member, String::as_str)
            )
        }
        _ => format!("- revoke  {}", field("MembershipId").replace(" to ", " from ")),
    }
}

/// Ends the daemon as systemd would, and waits for it.
fn stop(daemon: &mut Child) -> anyhow::Result<()> {
    if daemon.try_wait()?.is_none() {
        // Without unsafe code or a dependency, the ordinary way to send a signal is the ordinary program for it.
        Command::new("kill")
            .args(["-TERM", &daemon.id().to_string()])
            .status()?;
        daemon.wait()?;
    }
    Ok(())
}
