//! The way from standing access: `import` writes it down as policy, `adopt` takes it for our own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::progress::{Telling, telling};
use super::write::operator;
use super::{
    build_sources, closing, context, load_config, load_policy, open_if_there, print, print_json, reconciler, say,
    show_report_of_mistakes, system_clock, width,
};
use crate::cli::{self, Format, exit};
use crate::commands::adopt::{self, Proposal, View};
use crate::commands::{apply, diff};
use crate::config::{Config, Mode};
use crate::diagnostics::did_you_mean;
use crate::document::{AccountId, identity_store_id};
use crate::identity_center::Client;
use crate::import::{self, Draft, Imported, Owner, Request};
use crate::layout::wrap;
use crate::ledger::{Ledger, LedgerError};
use crate::model::{EntitlementId, GroupRef, PermissionSetRef, Person, ProjectName};
use crate::policy::{self, Policy};
use crate::secret::Secrets;
use crate::survey::Survey;
use crate::telemetry::ApiCalls;
use crate::text::clean;

pub(super) async fn import(path: &Path, args: &cli::Import) -> anyhow::Result<u8> {
    let clock = system_clock();
    let now = clock.now();
    let config = load_config(path, Secrets::Skip)?;
    let policy = if has_policy(&config.policy_dir)? {
        Some(load_policy(&config, now)?)
    } else {
        None
    };
    let owner = owner(args, &config, policy.as_ref())?;
    let request = request(args, &owner)?;
    let client = Client::connect(&config.identity_center, ApiCalls::new()?, clock).await;
    let reader = client.reader();
    let inventory = client.inventory();
    let reading = Box::pin(import::read(&reader, &inventory, &config, policy.as_ref(), &request));
    let found = telling("reading live access", reading).await?;
    let known = policy.iter().flat_map(|policy| policy.projects.keys());
    let imported = import::draft(&found, &owner, known.map(|name| name.0.to_string()));
    for note in &imported.notes {
        // Beside the policy on stdout; nobody is left to tell when stderr is gone.
        drop(writeln!(anstream::stderr(), "note: {}", clean(note)));
    }
    if imported.projects.is_empty() {
        bail!(
            "there is nothing to import: nobody holds anything of what was asked for that the policy does not have already"
        );
    }
    let files: Vec<(String, String)> = imported
        .projects
        .iter()
        .map(|draft| (draft.file(), draft.toml(now)))
        .collect();
    match (&args.out, args.format) {
        (Some(folder), _) => {
            check(&config, &files, now)?;
            write_files(folder, &files)?;
        }
        (None, Format::Text) => {
            let one = files.len() == 1;
            for (number, (name, text)) in files.iter().enumerate() {
                if !one {
                    print(format!("{}# ======== {name}\n", if 0 < number { "\n" } else { "" }))?;
                }
                print(text)?;
            }
        }
        (None, Format::Json) => {}
    }
    if args.format == Format::Json {
        print_json(&imported.view(now))?;
    } else {
        summarise(&imported, args);
    }
    if args.out.is_none() {
        check(&config, &files, now)?;
    }
    Ok(exit::OK)
}

/// Whether there is a policy already. On the first day there is none, and that is no mistake here.
fn has_policy(folder: &Path) -> anyhow::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries.with_context(|| format!("cannot read the policy directory {}", folder.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read the policy directory {}", folder.display()))?;
        if policy::is_policy_file(&entry.file_name().to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn owner(args: &cli::Import, config: &Config, policy: Option<&Policy>) -> anyhow::Result<Owner> {
    let mut accounts = std::collections::BTreeMap::new();
    if let Some(file) = &args.account_names {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        accounts = import::account_names(&text).map_err(|why| {
            anyhow::anyhow!(
                "{}: this is not what `aws organizations list-accounts` prints: {why}",
                file.display()
            )
        })?;
    }
    let parent = args.parent.as_deref().map(|name| ProjectName(name.into()));
    if let Some(parent) = &parent
        && policy.is_none_or(|policy| !policy.projects.contains_key(parent))
    {
        let known = policy
            .iter()
            .flat_map(|policy| policy.projects.keys().map(|name| name.0.as_str()));
        let hint = did_you_mean(&parent.0, known).unwrap_or_else(|| "write its file first".to_owned());
        bail!("--parent: there is no project `{}`; {hint}", clean(&parent.0));
    }
    if parent.is_none() && config.roots.is_some() {
        bail!("the configuration has `roots`, so a project needs a parent: say which with --parent");
    }
    Ok(Owner {
        owner: Person::parse(&args.owner).context("--owner")?,
        parent,
        as_groups: args.as_groups,
        accounts,
    })
}

/// What the command line asks for.
fn request(args: &cli::Import, owner: &Owner) -> anyhow::Result<Request> {
    let mut accounts = BTreeSet::new();
    for text in &args.account {
        if AccountId(text.clone()).is_valid() {
            accounts.insert(text.clone());
            continue;
        }
        let named: Vec<_> = owner
            .accounts
            .iter()
            .filter(|(_, name)| *name == text)
            .map(|(id, _)| id)
            .collect();
        match named.as_slice() {
            [id] => accounts.insert((*id).clone()),
            [] if args.account_names.is_none() => bail!(
                "--account {}: this is not an account id of twelve digits; for names, give --account-names FILE with what \
                 `aws organizations list-accounts` prints",
                clean(text)
            ),
            [] => {
                let hint = did_you_mean(text, owner.accounts.values().map(String::as_str));
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                bail!(
                    "--account {}: no account of --account-names has this name{hint}",
                    clean(text)
                )
            }
            _ => bail!(
                "--account {}: several accounts have this name; give the id",
                clean(text)
            ),
        };
    }
    let permission_set = |text: &String| match text.starts_with("arn:") {
        true => PermissionSetRef::Arn(text.clone()),
        false => PermissionSetRef::Name(text.clone()),
    };
    let group = |text: &String| match identity_store_id(text) {
        true => GroupRef::Id(text.clone()),
        false => GroupRef::Name(text.clone()),
    };
    Ok(Request {
        accounts,
        permission_sets: args.permission_set.iter().map(permission_set).collect(),
        groups: args.group.iter().map(group).collect(),
        all: args.all,
    })
}

/// Writes new files and replaces none. Each comes into being whole, because a daemon may read the directory.
fn write_files(folder: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, _) in files {
        let file = folder.join(name);
        if file.exists() {
            bail!(
                "{} exists already; nothing was written. Move it away, or give another --out",
                file.display()
            );
        }
    }
    for (name, text) in files {
        let (file, fresh) = (folder.join(name), folder.join(format!(".{name}.new")));
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &file))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn summarise(imported: &Imported, args: &cli::Import) {
    let unexplained = |draft: &Draft| {
        let of_entitlements = draft
            .entitlements
            .iter()
            .flat_map(|entitlement| &entitlement.unexplained);
        let all = draft.unexplained.iter().chain(of_entitlements);
        all.filter(|one| !one.is_known()).count()
    };
    let projects = &imported.projects;
    let text = format!(
        "{} projects, {} entitlements, {} members; {} not explained{}. Nothing was changed in AWS or in the ledger.\n",
        projects.len(),
        projects.iter().map(|draft| draft.entitlements.len()).sum::<usize>(),
        projects.iter().map(|draft| draft.members.len()).sum::<usize>(),
        projects.iter().map(unexplained).sum::<usize>(),
        args.out
            .as_ref()
            .map_or_else(String::new, |folder| format!(", written to {}", folder.display())),
    );
    drop(anstream::stderr().write_all(wrap(&text, width()).as_bytes()));
}

/// What was imported loads beside the policy that there is, or its reader hears at once why not.
fn check(config: &Config, files: &[(String, String)], now: jiff::Timestamp) -> anyhow::Result<()> {
    let mut all = Vec::new();
    if has_policy(&config.policy_dir)? {
        for entry in fs::read_dir(&config.policy_dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_new = files.iter().any(|(new, _)| *new == name);
            if policy::is_policy_file(&name) && !is_new {
                all.push((name, fs::read(entry.path())?));
            }
        }
    }
    all.extend(
        files
            .iter()
            .map(|(name, text)| (name.clone(), text.clone().into_bytes())),
    );
    if let Err(report) = policy::parse(&config.policy_dir, all, &context(config, now)) {
        show_report_of_mistakes(&report);
        bail!("what was imported does not load beside the policy in force; the errors above say why");
    }
    Ok(())
}

pub(super) async fn adopt(path: &Path, args: &cli::Adopt) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Read)?;
    let policy = Arc::new(load_policy(&config, clock.now())?);
    let selected = adopt::selected(&policy, &args.entitlement).map_err(|why| anyhow::anyhow!(why))?;
    let by = operator();
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let Some(digest) = &args.confirm else {
        let reader = Client::connect(&config.identity_center, calls, Arc::clone(&clock))
            .await
            .reader();
        let ledger = open_if_there(&config).await?;
        let now = clock.now();
        let reading = diff::look(&config, &policy, &sources, &reader, ledger.as_ref(), now, None);
        let (survey, _) = telling("reading schedules and live access", reading).await?;
        refuse_mistakes(&survey, &selected)?;
        return show(&adopt::propose(&survey, &policy, &selected, &by), false, args);
    };
    let ledger = match Ledger::open(&config.ledger, &config.owner_id, clock.now()).await {
        Err(LedgerError::Locked { .. }) => bail!(
            "the daemon is running, and only one program at a time may write the ledger; nothing was recorded. Stop the \
             daemon, give the same command again, and start it"
        ),
        ledger => ledger?,
    };
    closing(ledger, async |ledger| {
        // Under this mode no writer exists: nothing can be asked of AWS.
        let observing = Config {
            mode: Mode::Observe,
            ..config.clone()
        };
        let mut reconciler = reconciler(&observing, calls, &clock, ledger.clone()).await?;
        let told = Telling::begin("reading schedules and live access");
        apply::read_schedules(&reconciler, &config, &policy, &sources, clock.now()).await?;
        let look = reconciler.look(&config, &policy, None).await?;
        drop(told);
        refuse_mistakes(&look.survey, &selected)?;
        let proposal = adopt::propose(&look.survey, &policy, &selected, &by);
        if proposal.digest != *digest {
            bail!(
                "what would become ours is now {}, not {}; nothing was recorded. Look at `dutybound adopt {}` again, \
                 and confirm what it shows",
                proposal.digest,
                clean(digest),
                clean(&args.entitlement.join(" "))
            );
        }
        ledger
            .take_over(&proposal.taken, &by, &policy.revision, clock.now())
            .await?;
        let code = show(&proposal, true, args)?;
        // For `status`, which shows what a pass has seen; the record is complete without it.
        match reconciler.look(&config, &policy, None).await {
            Ok(again) => reconciler.show(&again, &config, &policy).await?,
            Err(error) => tracing::warn!(
                reason = crate::chain(&error),
                "what `status` shows is left to the next pass"
            ),
        }
        Ok(code)
    })
    .await
}

/// Nothing is taken over of what could not be read, or while it is not known whom the policy calls for.
fn refuse_mistakes(survey: &Survey, selected: &BTreeSet<EntitlementId>) -> anyhow::Result<()> {
    let concerned = |p: &&crate::problem::Problem| p.entitlement.as_ref().is_none_or(|id| selected.contains(id));
    let mistakes: Vec<String> = diff::mistaken(survey)
        .filter(concerned)
        .map(ToString::to_string)
        .collect();
    if !mistakes.is_empty() {
        bail!(
            "nothing was recorded, because not everything could be read: {}",
            mistakes.join("; ")
        );
    }
    Ok(())
}

fn show(proposal: &Proposal, recorded: bool, args: &cli::Adopt) -> anyhow::Result<u8> {
    let view = View::new(proposal, recorded);
    match args.format {
        Format::Text => say(view.text(&args.entitlement)),
        Format::Json => print_json(&view),
    }
}
