//! Who is told what, at which destination. Pure.

use std::collections::BTreeMap;

use crate::config::notify::{Api, Destination};
use crate::notify::message::{Kind, Message};

/// The lane of a person, before the address.
pub(super) const PERSON: &str = "person:";
/// The lane of a channel, before its name or id.
pub(super) const CHANNEL: &str = "channel:";

/// The destinations of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    destinations: BTreeMap<String, Destination>,
}

impl Routes {
    /// Routes to these destinations, by name.
    #[must_use]
    pub fn new(destinations: BTreeMap<String, Destination>) -> Self {
        Self { destinations }
    }

    /// Whether anybody is told this sort of message.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        self.destinations.values().any(|d| d.tells.contains(&kind))
    }

    /// Where a message goes: destination and lane.
    #[must_use]
    pub fn of(&self, message: &Message) -> Vec<(String, String, Message)> {
        let concerned = self
            .destinations
            .iter()
            .filter(|(_, d)| d.tells.contains(&message.kind) && reads(d, message));
        concerned
            .map(|(name, d)| (name.clone(), lane(d, message), message.clone()))
            .collect()
    }
}

/// Whether a destination that is only for some projects reads the message.
fn reads(destination: &Destination, message: &Message) -> bool {
    destination
        .projects
        .as_ref()
        .is_none_or(|only| message.project.as_ref().is_some_and(|project| only.contains(project)))
}

fn lane(destination: &Destination, message: &Message) -> String {
    match (&destination.api, &message.person) {
        (Api::SlackBot { .. }, Some(person)) => format!("{PERSON}{person}"),
        (Api::SlackBot { channel, .. }, None) => {
            format!("{CHANNEL}{}", message.channel.as_ref().unwrap_or(channel))
        }
        // Everything of one destination is one conversation.
        (Api::SlackWebhook { .. } | Api::Webhook { .. }, _) => String::new(),
    }
}
