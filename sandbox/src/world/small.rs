//! A small believable organisation, for demos and first steps.

use jiff::{SignedDuration, Timestamp};

use super::pagerduty::{EscalationPolicy, Target};
use super::{Rotation, World, opsgenie, pagerduty};

/// The turns that a rotation of the small organisation has. A daemon reads weeks ahead, and a rotation of short
/// shifts without end would answer with hundreds of thousands of them.
const TURNS: u32 = 720;

impl World {
    /// A small organisation. From `now` (its whole second) on, PagerDuty's schedule `PABC123` "payments primary" alternates between
    /// alice and bob, `PABC456` "payments secondary" belongs to carol, and Opsgenie's "data on call" alternates
    /// between dave and erin, each turn lasting `shift`, 720 turns in all. Everybody has the e-mail `name@example.com`
    /// and a user in Identity Center; mira is not on call anywhere. Both providers accept the key `test-key`.
    pub fn small_organisation(now: Timestamp, shift: SignedDuration) -> Self {
        let mut world = Self::default();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let turns = |members: &[&str]| Rotation {
            turns: Some(TURNS),
            ..Rotation::new(members, now, shift)
        };

        let pager = &mut world.pagerduty;
        pager.users = vec![
            pagerduty::User::new("PALICE1", "Alice Adams", "alice@example.com"),
            pagerduty::User::new("PBOB002", "Bob Brown", "bob@example.com"),
            pagerduty::User::new("PCAROL3", "Carol Clark", "carol@example.com"),
        ];
        pager.schedules = vec![
            pagerduty::Schedule::new("PABC123", "payments primary").with_rotation(turns(&["PALICE1", "PBOB002"])),
            pagerduty::Schedule::new("PABC456", "payments secondary").with_rotation(Rotation::new(
                &["PCAROL3"],
                now,
                shift,
            )),
        ];
        pager.escalation_policies = vec![EscalationPolicy {
            id: "PESC789".to_owned(),
            name: "payments".to_owned(),
            levels: vec![
                vec![Target::Schedule("PABC123".to_owned())],
                vec![Target::Schedule("PABC456".to_owned())],
            ],
        }];

        let genie = &mut world.opsgenie;
        let (dave, erin) = (
            "0a1b2c3d-aaaa-4000-8000-000000000001",
            "0a1b2c3d-aaaa-4000-8000-000000000002",
        );
        genie.users = vec![
            opsgenie::User::new(dave, "Dave Davis", "dave@example.com"),
            opsgenie::User::new(erin, "Erin Evans", "erin@example.com"),
        ];
        genie.schedules = vec![
            opsgenie::Schedule::new("6fce1fd0-bbbb-4000-8000-000000000001", "data on call")
                .with_rotation(turns(&[dave, erin])),
        ];

        let aws = &mut world.aws;
        aws.add_account("111122223333", "payments-prod");
        aws.add_account("444455556666", "data-prod");
        for name in ["AdministratorAccess", "ReadOnlyAccess", "BreakGlass"] {
            aws.add_permission_set(name);
        }
        for name in ["payments-prod-readers", "data-oncall"] {
            aws.add_group(name);
        }
        for (name, email) in [
            ("Alice Adams", "alice@example.com"),
            ("Bob Brown", "bob@example.com"),
            ("Carol Clark", "carol@example.com"),
            ("Dave Davis", "dave@example.com"),
            ("Erin Evans", "erin@example.com"),
            ("Mira Moss", "mira@example.com"),
        ] {
            aws.add_user(name, email);
        }
        world
    }
}
