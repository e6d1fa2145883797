//! The command line: what can be said, and the exit codes that answer.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::commands::report;

/// Exit codes, the same for every command.
pub mod exit {
    /// Done; nothing to do; the person holds it.
    pub const OK: u8 = 0;
    /// Something failed; the error on stderr says what.
    pub const ERROR: u8 = 1;
    /// `diff`: there are changes. `explain`: the person does not hold it.
    pub const CHANGES: u8 = 2;
    /// `diff`, `apply`: a guard holds something.
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

const AFTER_HELP: &str = "Exit codes: 0 done, nothing to do, holds; 1 error; 2 diff: changes, explain: does not hold; \
3 something is held; 64 usage.\nData goes to stdout, logs to stderr. DUTYBOUND_LOG sets what is logged (default: info).";

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
    /// Write a copy of the ledger to a new file, also while the daemon runs.
    Backup {
        /// The file to create.
        to: PathBuf,
    },
    /// Show who holds what now, why and until when, and the health of every source.
    Status(Formatted),
    /// Show why a person holds something or does not, link by link.
    Explain(Explain),
    /// Show access hours of a period.
    Report(Report),
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

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Show the plan that would be made at this instant against the live state of now.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
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

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The person's e-mail address.
    pub person: String,
    /// Such as `payments/prod-admin`; all that concern the person when left out.
    pub entitlement: Option<String>,
    /// At this instant, past or coming.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Start of the period; a week ago when left out.
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// End of the period; now when left out.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// One line for each of these.
    #[arg(long, default_value = "entitlement")]
    pub by: report::GroupBy,
    /// How to show it.
    #[arg(long, default_value = "text")]
    pub format: report::Format,
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
