//! A statement as its author writes it, in a policy file or in the configuration.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::document::At;

/// A statement that every plan keeps to: what would break it is held. Exactly one of `max_holders`, `never_together`,
/// `requires`, `domains` and `longest_access` says what must be so.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvariantEntry {
    /// Its name, unique in the file: up to 64 letters, digits, dots, dashes and underscores.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub name: Option<At<String>>,
    /// What must be so and why, in your own words; shown to whoever it holds back.
    #[schemars(required)]
    pub statement: Option<At<String>>,
    /// What it speaks about: entitlements of this project by name, those of projects below as `project/name`. In the
    /// configuration any, as `project/name`. Left out: everything that the project and those below it own; in the
    /// configuration everything.
    pub entitlements: Option<At<Vec<At<String>>>>,
    /// At most so many people hold any of them at the same time.
    pub max_holders: Option<At<u32>>,
    /// `true`: nobody holds two of them at the same time.
    pub never_together: Option<At<bool>>,
    /// Trainings without which nobody is granted any of them, whatever the rule says.
    pub requires: Option<At<Vec<At<String>>>>,
    /// The only domains of e-mail addresses whose people are granted any of them, such as `"example.com"`. A domain below
    /// is another one.
    pub domains: Option<At<Vec<At<String>>>>,
    /// The longest that anybody holds one of them without a break, such as `"12h"`. Goes with `break`.
    pub longest_access: Option<At<String>>,
    /// The shortest time without access that counts as a break, such as `"8h"`. Goes with `longest_access`.
    #[serde(rename = "break")]
    pub rest: Option<At<String>>,
}
