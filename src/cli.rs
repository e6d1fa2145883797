//! The command line: what can be said, and the exit codes that answer.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::commands::{audit, forecast, report};

/// Exit codes, the same for every command.
pub mod exit {
    /// Done; nothing to do; the person holds it.
    pub const OK: u8 = 0;
    /// Something failed; the error on stderr says what.
    pub const ERROR: u8 = 1;
    /// `diff`: there are changes. `explain`: the person does not hold it. `forecast`: there are gaps.
    pub const CHANGES: u8 = 2;
    /// `diff`, `apply`: a guard holds something. `diff`: AWS has not ended something.
    pub const HELD: u8 = 3;
    /// The command line could not be understood.
    pub const USAGE: u8 = 64;
}

/// Access bound to duty: AWS access for exactly as long as people are on call.
#[derive(Debug, Parser)]
#[command(name = "dutybound", version, about, long_about = None, after_help = AFTER_HELP)]
pub struct Cli {
    /// The operator's configuration.
    #[arg(
        long,
        short,
        global = true,
        env = "DUTYBOUND_CONFIG",
        default_value = "config.toml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, nothing to do, holds; 1 error; 2 diff: changes, explain: does not hold, \
forecast: gaps; 3 something is held; 64 usage.\nData goes to stdout, logs to stderr. DUTYBOUND_LOG sets what is logged (default: info).";

/// What dutybound can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate configuration and policy; needs no network and no secrets.
    Check(Formatted),
    /// Read the world and show the plan; writes nothing.
    Diff(Diff),
    /// Make one guarded pass.
    Apply(Apply),
    /// Run the daemon.
    Run,
    /// Take what a person holds at once, whatever the schedule says, and keep it away until lifted.
    Revoke(Revoke),
    /// Write down live access as policy, ready to be edited; changes nothing.
    Import(Import),
    /// Take live access that the policy calls for as our own; shows what, and does it only with --confirm.
    Adopt(Adopt),
    /// Write a copy of the ledger to a new file, also while the daemon runs.
    Backup {
        /// The file to create.
        to: PathBuf,
    },
    /// Show who holds what now, why and until when, and the health of every source.
    Status(Status),
    /// Show why a person holds something or does not, link by link.
    Explain(Explain),
    /// Show the coming days: who will hold what, and the gaps to repair before they matter.
    Forecast(Forecast),
    /// Show what a policy would have granted over past shifts.
    Backtest(Backtest),
    /// Show owners what to look at when access is to be taken away; removes nothing.
    Review(Review),
    /// Show access hours of a period.
    Report(Report),
    /// Prove the record, or export it.
    #[command(subcommand)]
    Audit(Audit),
    /// Draw the projects: owners, limits, delegations, counts and access hours a week.
    Tree(Tree),
    /// Print the CODEOWNERS file that makes Git ask the right owners about each policy file.
    Codeowners {
        /// The repository's directory, to which paths are relative; found when left out.
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Print the minimal IAM policy for the configured entitlements.
    IamPolicy(IamPolicy),
    /// Print a JSON Schema, for editors that complete and validate while you type.
    Schema {
        /// Of which file.
        file: SchemaFile,
    },
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// A command that shows something.
#[derive(Debug, Args)]
pub struct Formatted {
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Only a project, an entitlement such as `payments/prod-admin`, or a person.
    pub about: Option<String>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
    /// Show it again every so many seconds, until Ctrl-C. For terminals.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Show the plan that would be made at this instant against the live state of now.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// Compare the policy with a former one instead: a directory, or a revision of the policy directory's Git repository.
    #[arg(long, value_name = "DIR or REVISION", conflicts_with = "at")]
    pub base: Option<String>,
    /// With --base: how far to look.
    #[arg(long, default_value_t = 14, requires = "base",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(forecast::FARTHEST_DAYS)))]
    pub days: u16,
    /// With --base: ask no provider; the schedules are those that the ledger has.
    #[arg(long, requires = "base")]
    pub offline: bool,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: DiffFormat,
}

/// How a `diff` is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// For people, on a terminal.
    Text,
    /// For programs.
    Json,
    /// With --base: for a comment at a pull request.
    Markdown,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Release the held changes of exactly the plan with this digest.
    #[arg(long, value_name = "DIGEST")]
    pub approve: Option<String>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
pub struct Revoke {
    /// The person's e-mail address.
    #[arg(long, group = "whom", value_name = "PERSON")]
    pub person: Option<String>,
    /// Everybody.
    #[arg(long, group = "whom")]
    pub all: bool,
    /// Why, for the record.
    #[arg(long, default_value = "no reason given")]
    pub reason: String,
    /// End the order instead: from the next pass on, duty earns access again.
    #[arg(long)]
    pub lift: bool,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Import {
    /// Everything assigned in this account; with --permission-set, only that. By id, or by name with --account-names.
    #[arg(long, group = "what", value_name = "ID or NAME")]
    pub account: Vec<String>,
    /// This permission set, wherever it is assigned.
    #[arg(long, group = "what", value_name = "NAME or ARN")]
    pub permission_set: Vec<String>,
    /// The members of this group.
    #[arg(long, group = "what", value_name = "NAME or ID")]
    pub group: Vec<String>,
    /// Every assignment and every group of the instance.
    #[arg(long, group = "what", conflicts_with_all = ["account", "permission_set", "group"])]
    pub all: bool,
    /// Who owns what is imported, until other owners are named.
    #[arg(long, value_name = "EMAIL")]
    pub owner: String,
    /// Below which project the imported ones stand.
    #[arg(long, value_name = "PROJECT")]
    pub parent: Option<String>,
    /// Names of accounts: what `aws organizations list-accounts` prints.
    #[arg(long, value_name = "FILE")]
    pub account_names: Option<PathBuf>,
    /// Write policy that does the same by groups: one for all assignments that the same people hold.
    #[arg(long)]
    pub as_groups: bool,
    /// Write one file for each project into this directory; replaces none.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `adopt`.
#[derive(Debug, Args)]
pub struct Adopt {
    /// Such as `payments/prod-admin`, or a project with all that it owns.
    #[arg(required = true)]
    pub entitlement: Vec<String>,
    /// Take over exactly what was shown with this digest.
    #[arg(long, value_name = "DIGEST")]
    pub confirm: Option<String>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A person's e-mail address, an entitlement such as `payments/prod-admin`, or an AWS account of twelve digits.
    pub subject: String,
    /// After a person: only this entitlement; all that concern them when left out.
    pub entitlement: Option<String>,
    /// At this instant, past or coming.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `forecast`.
#[derive(Debug, Args)]
pub struct Forecast {
    /// A project, an entitlement such as `payments/prod-admin`, or a person; everything when left out.
    pub about: Option<String>,
    /// How far to look.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=i64::from(forecast::FARTHEST_DAYS)))]
    pub days: u16,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: ForecastFormat,
}

/// How a forecast is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ForecastFormat {
    /// For people, on a terminal.
    Text,
    /// For programs.
    Json,
    /// One page that needs nothing else, for a browser or a mail.
    Html,
}

/// Arguments of `backtest`.
#[derive(Debug, Args)]
pub struct Backtest {
    /// The policy to test: a directory, or a revision of the policy directory's Git repository; the one in force when left
    /// out.
    #[arg(long, value_name = "DIR or REVISION")]
    pub policy: Option<String>,
    /// How many days back from `--to`.
    #[arg(long, default_value_t = 28,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(forecast::FARTHEST_DAYS)))]
    pub days: u16,
    /// End of the period; now when left out.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `review`.
#[derive(Debug, Args)]
pub struct Review {
    /// Only what this owner decides about.
    #[arg(long, value_name = "PERSON")]
    pub owner: Option<String>,
    /// How many days to look back.
    #[arg(long, default_value_t = 60,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(forecast::FARTHEST_DAYS)))]
    pub days: u16,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: ReviewFormat,
}

/// How a `review` is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReviewFormat {
    /// For people, on a terminal.
    Text,
    /// For programs.
    Json,
    /// One message for each owner, ready to be mailed.
    Markdown,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Start of the period; a week ago when left out.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["last", "period"])]
    pub from: Option<Timestamp>,
    /// End of the period; now when left out.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["last", "period"])]
    pub to: Option<Timestamp>,
    /// Complete days, weeks or months of the calendar before now: day, week, month, 30d, 4w, 3m.
    #[arg(long, value_name = "UNITS", conflicts_with = "period")]
    pub last: Option<report::Last>,
    /// A stretch of the calendar: 2026, 2026-Q4, 2026-11, 2026-W47 or 2026-11-21.
    #[arg(long, value_name = "CALENDAR")]
    pub period: Option<report::Calendar>,
    /// In which time zone days begin, such as Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE", value_parser = zone)]
    pub zone: TimeZone,
    /// One line for each of these.
    #[arg(long, default_value = "entitlement")]
    pub by: report::GroupBy,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: report::Format,
}

/// What `audit` can do.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Prove that nobody changed the record: the chain of its events, and every row against them.
    Verify(Verify),
    /// Who held what in a period, since when and until when, why, and how it ended.
    Access(AuditAccess),
    /// Write the events of a period to stdout, in the order in which they were recorded.
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
}

const EXPORT_HELP: &str = "Kinds of events: chain_begun, ledger_named, policy_in_force, intent_begun, reference_known, \
intent_completed, access_begun, access_renamed, access_ended, cause_recorded, cause_ended, hold_begun, hold_changed, \
hold_ended, order_given, order_lifted, approval_given, approval_used, schedule_read, schedule_dropped, restoration_found, \
restoration_settled, retention, schedule_change_attributed, totals_carried, row_restated.\nFields of a line of JSON: seq, time, kind, hash, table, row, \
says (what the event itself says), person, entitlement, principal, account, permission_set_arn, group_id, intent, asked, \
reference (AWS's request or membership id), outcome, detail, policy (content hash), context, causes (basis, schedule, \
schedule_user, via_override, duty_from, duty_to, held_from, held_to, project, rule, member, added_by, delegation).";

/// Arguments of `audit access`.
#[derive(Debug, Args)]
pub struct AuditAccess {
    /// Somebody's e-mail address, an entitlement such as payments/prod-admin, or an AWS account; everything when left out.
    pub subject: Option<String>,
    /// With a person: only this entitlement.
    pub entitlement: Option<String>,
    /// Start of the period; a week ago when left out.
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// End of the period; now when left out.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// Only access that stood on for a minute or longer when nothing called for it any more.
    #[arg(long)]
    pub outlived: bool,
    /// Of this file, such as a copy made by `backup`, instead of the ledger in use.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `audit export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Events recorded from this instant on.
    #[arg(long, value_name = "TIME")]
    pub from: Timestamp,
    /// Events recorded before this instant; now when left out.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// Of this file, such as a copy made by `backup`, instead of the ledger in use.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// As what.
    #[arg(long, default_value = "jsonl")]
    pub format: audit::export::Format,
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Also prove that a head which was published earlier is part of the chain: a file of heads, a hash, or event:hash.
    #[arg(long, value_name = "FILE or HASH")]
    pub head: Vec<String>,
    /// Of this file, such as a copy made by `backup`, instead of the ledger in use.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("there is no time zone {name:?}; write one such as Europe/Berlin or UTC"))
}

/// Arguments of `tree`.
#[derive(Debug, Args)]
pub struct Tree {
    /// Only this project and what stands below it.
    pub project: Option<String>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `iam-policy`.
#[derive(Debug, Args)]
pub struct IamPolicy {
    /// Look names up in AWS, so that the policy names exact ARNs.
    #[arg(long)]
    pub resolve: bool,
    /// What `import` needs instead, which reads everything and changes nothing; needs no policy.
    #[arg(long, conflicts_with = "resolve")]
    pub import: bool,
}

/// Text for people or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaFile {
    /// `config.toml`
    Config,
    /// `access.d/*.toml`
    Project,
}

/// The definition of the command line, from which completions and the manual page are made.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}
