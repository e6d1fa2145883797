//! Who is told what, and when reviews and reports are made: the section `[notify]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use croner::Cron;
use jiff::{SignedDuration, tz::TimeZone};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::check::Checking;
use super::file::{DestinationKind, DestinationTable, NotifyTable, ReportTable, ReviewTable};
use crate::commands::report::{Format, GroupBy};
use crate::document::{At, Entry};
use crate::model::ProjectName;
use crate::notify::look::Pace;
use crate::notify::message::Kind;
use crate::policy::window::parse_cron;

/// Slack's Web API.
const SLACK: &str = "https://slack.com/api";

/// What a Slack bot is told where the file does not say: what concerns its readers, and not what they know already. Who
/// was told until when needs no second message at the end.
pub(super) const BOT: [Kind; 6] = [
    Kind::Grant,
    Kind::Handoff,
    Kind::Gap,
    Kind::Held,
    Kind::Health,
    Kind::Review,
];
/// The same for a webhook of one channel, where nobody is alone.
pub(super) const CHANNEL: [Kind; 4] = [Kind::Handoff, Kind::Gap, Kind::Held, Kind::Health];

/// Who is told what.
#[derive(Debug, Clone)]
pub struct Notify {
    /// By name.
    pub destinations: BTreeMap<String, Destination>,
    /// The zone of times where nobody has a zone of their own.
    pub zone: TimeZone,
    /// When things are told.
    pub pace: Pace,
    /// How many messages may wait for one destination.
    pub max_messages: u32,
    /// Reviews and reports.
    pub jobs: Vec<Job>,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            destinations: BTreeMap::new(),
            zone: TimeZone::UTC,
            pace: Pace {
                digest: SignedDuration::from_mins(1),
                health_after: SignedDuration::from_mins(2),
                windows: false,
                max_age: SignedDuration::from_hours(24),
            },
            max_messages: 10_000,
            jobs: Vec::new(),
        }
    }
}

impl Notify {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.destinations.is_empty() && self.jobs.is_empty()
    }
}

/// Somewhere that messages go.
#[derive(Debug, Clone)]
pub struct Destination {
    /// How it is reached.
    pub api: Api,
    /// What it is told.
    pub tells: BTreeSet<Kind>,
    /// Only about these projects; `None` is everything.
    pub projects: Option<BTreeSet<ProjectName>>,
    /// The zone of its times, for projects without one of their own.
    pub zone: Option<TimeZone>,
}

/// How a destination is reached.
#[derive(Debug, Clone)]
pub enum Api {
    /// A Slack incoming webhook, which posts into one channel.
    SlackWebhook {
        /// Its URL, which is its credential.
        url: SecretString,
    },
    /// A Slack app.
    SlackBot {
        /// The bot token.
        token: SecretString,
        /// Slack's Web API, or what stands for it.
        base_url: Url,
        /// The operator's channel, also for projects that name none.
        channel: String,
    },
    /// Anything else that takes signed JSON.
    Webhook {
        /// Where to.
        url: Url,
        /// Signs every message.
        key: SecretString,
    },
}

impl Api {
    /// Where it is; `None` where that is not known.
    #[must_use]
    pub fn url(&self) -> Option<Url> {
        match self {
            Self::SlackWebhook { url } => Url::parse(url.expose_secret()).ok(),
            Self::SlackBot { base_url: url, .. } | Self::Webhook { url, .. } => Some(url.clone()),
        }
    }
}

/// A review or a report on a cron schedule.
#[derive(Debug, Clone)]
pub struct Job {
    /// When.
    pub cron: Cron,
    /// The pattern's zone.
    pub zone: TimeZone,
    /// Where files go; `None` writes none.
    pub directory: Option<PathBuf>,
    /// What.
    pub kind: JobKind,
}

/// What is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobKind {
    /// A review for each owner.
    Review {
        /// How many days it looks back.
        days: u16,
    },
    /// Access hours from the time before to this one.
    Report {
        /// What a line is about.
        by: GroupBy,
        /// The files that are written.
        formats: Vec<Format>,
    },
}

impl Checking<'_> {
    pub(super) fn notify(&mut self, table: Option<&Entry<NotifyTable>>) -> Notify {
        let default = Notify::default();
        let Some(t) = table.map(|table| &table.value) else {
            return default;
        };
        let day = SignedDuration::from_hours(24);
        let hour = SignedDuration::from_hours(1);
        let zone = t
            .zone
            .as_ref()
            .and_then(|name| self.found.zone(name))
            .unwrap_or(default.zone);
        let pace = Pace {
            digest: self.length(t.digest.as_ref(), SignedDuration::ZERO..=hour, default.pace.digest),
            health_after: self.length(
                t.health_after.as_ref(),
                SignedDuration::ZERO..=hour,
                default.pace.health_after,
            ),
            windows: t.windows.as_ref().is_some_and(|windows| windows.value),
            max_age: self.length(t.max_age.as_ref(), hour..=day * 7, default.pace.max_age),
        };
        let max_messages = self.number(t.max_messages.as_ref(), 1..=1_000_000, default.max_messages);
        let mut destinations = BTreeMap::new();
        for (name, table) in &t.destination {
            let valid = self.found.name(name, table.span()).is_some();
            if let Some(destination) = self.destination(table)
                && valid
            {
                destinations.insert(name.clone(), destination);
            }
        }
        let reviews: Vec<_> = t.review.iter().flat_map(|table| self.review(table, &zone)).collect();
        let reports: Vec<_> = t.report.iter().flat_map(|table| self.report(table, &zone)).collect();
        Notify {
            destinations,
            zone,
            pace,
            max_messages,
            jobs: reviews.into_iter().chain(reports).collect(),
        }
    }

    fn destination(&mut self, table: &Entry<DestinationTable>) -> Option<Destination> {
        let (at, t) = (table.span(), &table.value);
        let example = "\"slack-bot\", \"slack-webhook\" or \"webhook\"";
        let kind = self
            .found
            .required(t.kind.as_ref(), at, "the destination", "kind", example);
        let zone = t.zone.as_ref().and_then(|name| self.found.zone(name));
        let projects = t.projects.as_ref().map(|list| {
            let names = list
                .value
                .iter()
                .flat_map(|name| self.found.name(&name.value, name.span()));
            names.map(|name| ProjectName(name.into())).collect()
        });
        let kind = kind?.value;
        self.idle_keys(t, kind);
        let api = match kind {
            DestinationKind::SlackWebhook => self.slack_webhook(at, t),
            DestinationKind::SlackBot => self.slack_bot(at, t),
            DestinationKind::Webhook => self.webhook(at, t),
        };
        let usual: &[Kind] = match kind {
            DestinationKind::SlackBot => &BOT,
            DestinationKind::SlackWebhook => &CHANNEL,
            DestinationKind::Webhook => &Kind::ALL,
        };
        let tells = t
            .tells
            .as_ref()
            .map(|list| list.value.iter().map(|kind| kind.value).collect());
        Some(Destination {
            api: api?,
            tells: tells.unwrap_or_else(|| usual.iter().copied().collect()),
            projects,
            zone,
        })
    }

    fn slack_webhook(&mut self, at: &Range<usize>, t: &DestinationTable) -> Option<Api> {
        let example = "{ env = \"SLACK_WEBHOOK_URL\" }";
        let secret = self
            .found
            .required(t.secret_url.as_ref(), at, "a slack-webhook", "secret_url", example)?;
        let url = self.secret(secret)?;
        // Its value is not shown, whatever is wrong with it; with secrets skipped there is none.
        let usable = url.expose_secret().is_empty()
            || Url::parse(url.expose_secret())
                .is_ok_and(|url| url.scheme() == "https" || (url.scheme() == "http" && loopback(&url)));
        if !usable {
            let hint = "it looks like https://hooks.slack.com/services/...";
            self.found
                .error("bad-url", secret.span(), "the secret there is not an https URL", hint);
        }
        usable.then_some(Api::SlackWebhook { url })
    }

    fn slack_bot(&mut self, at: &Range<usize>, t: &DestinationTable) -> Option<Api> {
        let example = "{ env = \"SLACK_BOT_TOKEN\" }";
        let token = self
            .found
            .required(t.token.as_ref(), at, "a slack-bot", "token", example);
        let token = token.and_then(|token| self.secret(token));
        let channel = self
            .found
            .required(t.channel.as_ref(), at, "a slack-bot", "channel", "\"#access\"");
        if let Some(channel) = channel {
            self.id(channel, "a channel's name or id");
        }
        let base_url = match &t.base_url {
            Some(url) => self.url(url),
            None => Url::parse(SLACK).ok(),
        };
        Some(Api::SlackBot {
            token: token?,
            base_url: base_url?,
            channel: channel?.value.clone(),
        })
    }

    fn webhook(&mut self, at: &Range<usize>, t: &DestinationTable) -> Option<Api> {
        let url = self.found.required(
            t.url.as_ref(),
            at,
            "a webhook",
            "url",
            "\"https://example.com/dutybound\"",
        );
        let url = url.and_then(|url| self.url(url));
        let example = "{ env = \"WEBHOOK_KEY\" }, with which the receiver checks the signature";
        let key = self.found.required(t.key.as_ref(), at, "a webhook", "key", example);
        let key = key.and_then(|key| self.secret(key));
        Some(Api::Webhook { url: url?, key: key? })
    }

    fn idle_keys(&mut self, t: &DestinationTable, kind: DestinationKind) {
        use DestinationKind::{SlackBot, SlackWebhook, Webhook};
        let keys = [
            ("token", t.token.as_ref().map(At::span), SlackBot, "slack-bot"),
            ("channel", t.channel.as_ref().map(At::span), SlackBot, "slack-bot"),
            ("base_url", t.base_url.as_ref().map(At::span), SlackBot, "slack-bot"),
            (
                "secret_url",
                t.secret_url.as_ref().map(At::span),
                SlackWebhook,
                "slack-webhook",
            ),
            ("url", t.url.as_ref().map(At::span), Webhook, "webhook"),
            ("key", t.key.as_ref().map(At::span), Webhook, "webhook"),
        ];
        for (key, span, of, name) in keys {
            if let Some(span) = span.filter(|_| of != kind) {
                let hint = if key == "url" {
                    "the URL of a slack-webhook is a secret: write secret_url = { env = \"NAME\" }"
                } else {
                    ""
                };
                self.found
                    .error("idle-key", span, format!("`{key}` belongs to kind = \"{name}\""), hint);
            }
        }
    }

    fn review(&mut self, table: &Entry<ReviewTable>, zone: &TimeZone) -> Option<Job> {
        let t = &table.value;
        let days = self.number(t.days.as_ref(), 1..=365, 90);
        let (cron, zone) = self.cron(
            table.span(),
            "[[notify.review]]",
            t.cron.as_ref(),
            t.zone.as_ref(),
            zone,
        )?;
        Some(Job {
            cron,
            zone,
            directory: self.directory(t.directory.as_ref()),
            kind: JobKind::Review {
                days: u16::try_from(days).unwrap_or(90),
            },
        })
    }

    fn report(&mut self, table: &Entry<ReportTable>, zone: &TimeZone) -> Option<Job> {
        let t = &table.value;
        let by = t.by.as_ref().map_or(Some(GroupBy::Project), |by| self.word(by));
        let formats = match &t.formats {
            Some(list) => list.value.iter().map(|format| self.word(format)).collect(),
            None => Some(vec![Format::Json, Format::Csv]),
        };
        let (cron, zone) = self.cron(
            table.span(),
            "[[notify.report]]",
            t.cron.as_ref(),
            t.zone.as_ref(),
            zone,
        )?;
        Some(Job {
            cron,
            zone,
            directory: self.directory(t.directory.as_ref()),
            kind: JobKind::Report {
                by: by?,
                formats: formats?,
            },
        })
    }

    /// A word that the command line knows as well.
    fn word<T: clap::ValueEnum>(&mut self, text: &At<String>) -> Option<T> {
        let known = || {
            T::value_variants()
                .iter()
                .flat_map(|v| v.to_possible_value())
                .map(|v| v.get_name().to_owned())
        };
        let found = T::from_str(&text.value, false).ok();
        if found.is_none() {
            let names: Vec<String> = known().collect();
            let hint = format!("write one of {}", names.join(", "));
            self.found
                .error("unknown-word", text.span(), "there is no such value", hint);
        }
        found
    }

    fn directory(&mut self, path: Option<&At<String>>) -> Option<PathBuf> {
        let path = path?;
        if path.value.is_empty() || crate::document::unprintable(&path.value) {
            self.found.error("bad-path", path.span(), "this is not a path", "");
        }
        Some(self.base.join(&path.value))
    }

    fn cron(
        &mut self,
        at: &Range<usize>,
        place: &str,
        cron: Option<&At<String>>,
        zone: Option<&At<String>>,
        usual: &TimeZone,
    ) -> Option<(Cron, TimeZone)> {
        let zone = match zone {
            Some(name) => self.found.zone(name),
            None => Some(usual.clone()),
        };
        let pattern = self.found.required(cron, at, place, "cron", "\"0 8 * * MON\"")?;
        match parse_cron(&pattern.value) {
            Ok(cron) => Some((cron, zone?)),
            Err(message) => {
                let hint = "such as \"0 8 * * MON\": minute, hour, day of month, month, day of week";
                self.found.error("bad-cron", pattern.span(), message, hint);
                None
            }
        }
    }
}

fn loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
