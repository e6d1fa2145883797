//! Duty without access over incremental scrapes: each takes in no more than what changed, and says what one says that has
//! seen nothing before.

use super::*;
use crate::ledger::OnDuty;

/// Scrapes that follow each other.
struct Scrapes {
    ledger: Ledger,
    running: access::AccessTime,
}

impl Scrapes {
    /// Uncovered seconds, and how many are on duty without access, by entitlement.
    async fn shown(&mut self, now: i64) -> Vec<(String, i64, u32)> {
        let said = |held: &BTreeMap<EntitlementId, Held>| -> Vec<(String, i64, u32)> {
            let each = held.iter().filter(|(_, held)| !held.uncovered.is_zero());
            each.map(|(id, held)| (id.name.to_string(), held.uncovered.as_secs(), held.unheld))
                .collect()
        };
        let shown = said(self.running.read(&self.ledger, t(now)).await.unwrap());
        let mut fresh = access::AccessTime::default();
        assert_eq!(shown, said(fresh.read(&self.ledger, t(now)).await.unwrap()), "at {now}");
        shown
    }

    async fn note(&self, who: &[(&str, &str)], at: i64) {
        let on_duty = who.iter().map(|(entitlement, who)| OnDuty {
            entitlement: id(entitlement),
            person: person(who),
            duty: span(0, 10_000),
            why: "granting".into(),
        });
        let on_duty: Vec<OnDuty> = on_duty.collect();
        self.ledger.note_unheld(&on_duty, false, t(at)).await.unwrap();
    }
}

fn admin(seconds: i64, people: u32) -> Vec<(String, i64, u32)> {
    vec![("admin".to_owned(), seconds, people)]
}

#[tokio::test]
async fn what_began_what_ended_and_what_was_cut_short_are_taken_in() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    let mut scrapes = Scrapes {
        ledger: ledger.clone(),
        running: access::AccessTime::default(),
    };
    let (alice, bob) = (
        ("payments/admin", "alice@example.com"),
        ("payments/admin", "bob@example.com"),
    );
    scrapes.note(&[alice], 1).await;
    assert_eq!(scrapes.shown(1300).await, admin(1000, 1));
    scrapes.note(&[alice, bob], 1301).await;
    assert_eq!(scrapes.shown(1301).await, admin(2 * 1001, 2), "somebody else came");

    let turn = shift(0, 10_000);
    grant(&ledger, alice.0, alice.1, vec![turn.clone()], 1400).await;
    assert_eq!(scrapes.shown(2300).await, admin(1400 + 2000, 1), "access cuts it short");
    scrapes.note(&[bob], 2301).await;
    assert_eq!(scrapes.shown(2301).await, admin(1400 + 2001, 1), "and it ended");

    // The entry that ended is still within the time that counts behind.
    revoke(&ledger, alice.0, alice.1, 2310).await;
    assert_eq!(scrapes.shown(2320).await, admin(1400 + 2020, 1));

    grant(&ledger, bob.0, bob.1, vec![turn.clone()], 2400).await;
    assert_eq!(scrapes.shown(2500).await, admin(1400 + 2200, 0));
    let mut renamed = turn.clone();
    std::sync::Arc::make_mut(&mut renamed.right).entitlement = id("payments/other");
    let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
    let of_bob = rows.iter().find(|row| row.person.as_str() == bob.1).unwrap();
    let renamed = Kept {
        person: person(bob.1),
        ..kept(of_bob.id, &[turn], &[renamed])
    };
    ledger.update_kept(&[renamed], t(2600)).await.unwrap();
    assert_eq!(
        scrapes.shown(2900).await,
        admin(1400 + 2600, 1),
        "what he holds is something else now"
    );
    scrapes.note(&[], 3000).await;
    assert_eq!(scrapes.shown(4000).await, admin(1400 + 3000, 0));
}
