//! Make before break: how long a revoke waits for the grants of its target.

use dutybound_sandbox::Call;
use dutybound_sandbox::world::aws::{Matching, OperationKind};
use jiff::SignedDuration;

use crate::harness::*;

/// The installation with the account assignment only, alice on call for hours, and this timing.
async fn admin_site(more: &str) -> Site {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.configure(|s| more.clone_into(&mut s.more));
    site
}

/// Found by a test that failed on a machine under load: the time that AWS took for a grant counted as that for which the
/// revoke after it had waited, so that nobody held the entitlement while the next grant failed.
#[tokio::test]
async fn how_long_a_grant_took_is_not_taken_off_the_patience_of_its_revoke() {
    let site = admin_site("[timing]\npoll = \"1s\"\nnotice = \"0s\"\npatience = \"8s\"\n").await;
    let bob = site.user_id(BOB);
    let takes = SignedDuration::from_secs(8);
    site.sandbox.edit(|world| {
        world.aws.operation_takes = takes;
        world.aws.fail(Matching::principal(&bob), "no");
    });
    let daemon = site.ready_daemon().await;
    site.until("AWS was asked for alice's access", |view| {
        let asked = |call: &Call| call.operation == "CreateAccountAssignment" && call.performed;
        view.journal.iter().any(asked)
    })
    .await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_secs(1));
    site.shifts(&[("PBOB002", from_now(-5), from_now(3600))]);
    site.until_admin(ALICE, true).await;
    site.until_admin(ALICE, false).await;
    let writes = site.writes();
    let of = |operation: &str| writes.iter().find(|call| call.operation == operation).unwrap().at;
    let stood = of("CreateAccountAssignment") + takes;
    assert!(
        stood + SignedDuration::from_secs(8) <= of("DeleteAccountAssignment"),
        "{}",
        site.story()
    );
    daemon.term().await;
}

#[tokio::test]
async fn patience_ends_to_the_second_while_the_incoming_grant_is_tried_again() {
    let site = admin_site("[timing]\npoll = \"1h\"\nnotice = \"0s\"\npatience = \"10s\"\n").await;
    let bob = site.user_id(BOB);
    site.sandbox
        .edit(|world| world.aws.fail(Matching::principal(&bob), "no"));
    let boundary = from_now(30);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until_admin(ALICE, false).await;
    let writes = site.writes();
    let revoked = writes
        .iter()
        .position(|call| call.operation == "DeleteAccountAssignment")
        .unwrap();
    let patience = boundary + SignedDuration::from_secs(10);
    assert!(patience <= writes[revoked].at, "{}", site.story());
    // bob's grant is tried at once, after five seconds and after ten more: patience ends before that.
    assert!(revoked <= 3, "{}", site.story());
}

#[tokio::test]
async fn an_outgoing_grant_outlives_a_failing_incoming_one_but_not_for_ever() {
    let site = admin_site("[timing]\npoll = \"1s\"\nnotice = \"0s\"\npatience = \"8s\"\n").await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let creation = Matching::kind(OperationKind::Create);
    site.sandbox
        .edit(|world| world.aws.fail(creation, "the account is suspended"));
    let boundary = from_now(3);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_admin(ALICE, false).await;
    let revoked = site
        .writes()
        .into_iter()
        .find(|c| c.operation == "DeleteAccountAssignment")
        .unwrap();
    assert!(
        boundary + SignedDuration::from_secs(8) <= revoked.at,
        "{}",
        site.story()
    );
    daemon.until_says("the account is suspended").await;
    site.sandbox.edit(|world| world.aws.failures.clear());
    site.until_admin(BOB, true).await;
}
