//! Order, bounds and memory of the queue.

use super::*;
use crate::notify::message::{Content, Kind};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn message(key: &str, second: i64) -> Message {
    Message {
        kind: Kind::Health,
        key: key.into(),
        at: at(second),
        person: None,
        project: None,
        channel: None,
        zone: None,
        content: Content::Matters {
            begun: Vec::new(),
            over: Vec::new(),
        },
    }
}

fn batch(messages: &[(&str, &str, &str)]) -> Batch {
    Batch {
        messages: messages
            .iter()
            .map(|(d, lane, key)| ((*d).to_owned(), (*lane).to_owned(), message(key, 0)))
            .collect(),
        ..Batch::default()
    }
}

async fn open(dir: &tempfile::TempDir, most: u32) -> Outbox {
    Outbox::open(&dir.path().join("outbox"), most, SignedDuration::from_hours(1))
        .await
        .unwrap()
}

async fn next(outbox: &Outbox, destination: &str, now: Timestamp) -> Option<(i64, String)> {
    outbox
        .next(destination, now)
        .await
        .unwrap()
        .map(|waiting| (waiting.id, waiting.message.key))
}

#[tokio::test]
async fn the_same_message_is_queued_once_also_when_it_was_delivered_and_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10).await;
    outbox
        .write(&batch(&[("a", "", "k"), ("a", "", "k"), ("b", "", "k")]), at(0))
        .await
        .unwrap();
    let (id, _) = next(&outbox, "a", at(0)).await.unwrap();
    outbox.ended(id, at(1)).await.unwrap();
    drop(outbox);
    let outbox = open(&dir, 10).await;
    outbox.write(&batch(&[("a", "", "k")]), at(2)).await.unwrap();
    assert_eq!(next(&outbox, "a", at(2)).await, None);
    assert_eq!(next(&outbox, "b", at(2)).await.unwrap().1, "k");
    outbox.tidy(at(40 * 86_400)).await.unwrap();
    outbox.write(&batch(&[("a", "", "k")]), at(40 * 86_400)).await.unwrap();
    assert!(
        next(&outbox, "a", at(40 * 86_400)).await.is_some(),
        "a month later it is another one"
    );
}

#[tokio::test]
async fn a_lane_keeps_its_order_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10).await;
    outbox
        .write(&batch(&[("a", "x", "1"), ("a", "x", "2"), ("a", "y", "3")]), at(0))
        .await
        .unwrap();
    let (first, key) = next(&outbox, "a", at(0)).await.unwrap();
    assert_eq!(key, "1");
    outbox.put_off(first, at(60)).await.unwrap();
    let (third, key) = next(&outbox, "a", at(0)).await.unwrap();
    assert_eq!(key, "3", "not the second of the lane that waits");
    outbox.ended(third, at(0)).await.unwrap();
    assert_eq!(next(&outbox, "a", at(59)).await, None);
    assert_eq!(outbox.next_try("a").await.unwrap(), Some(at(60)));
    let waiting = outbox.next("a", at(60)).await.unwrap().unwrap();
    assert_eq!((waiting.message.key.as_str(), waiting.tries), ("1", 1));
    outbox.ended(first, at(60)).await.unwrap();
    assert_eq!(next(&outbox, "a", at(60)).await.unwrap().1, "2");
}

#[tokio::test]
async fn too_many_and_too_old_ones_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 2).await;
    let dropped = outbox
        .write(
            &batch(&[("a", "", "1"), ("a", "", "2"), ("a", "", "3"), ("b", "", "4")]),
            at(0),
        )
        .await;
    assert_eq!(dropped.unwrap(), [("a".to_owned(), 1)].into());
    assert_eq!(next(&outbox, "a", at(0)).await.unwrap().1, "2", "the oldest went");
    assert_eq!(outbox.tidy(at(3600)).await.unwrap(), BTreeMap::new());
    assert_eq!(
        outbox.tidy(at(3601)).await.unwrap(),
        [("a".to_owned(), 2), ("b".to_owned(), 1)].into()
    );
    assert_eq!(outbox.waiting().await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn a_batch_that_cannot_be_written_whole_is_not_written_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10).await;
    sqlx::query("CREATE TRIGGER full BEFORE INSERT ON mark BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&outbox.pool)
        .await
        .unwrap();
    let mut all = batch(&[("a", "", "1")]);
    all.taken.push((1, at(0)));
    all.marks.insert("changes".into(), at(0));
    assert!(outbox.write(&all, at(0)).await.is_err());
    assert_eq!(next(&outbox, "a", at(0)).await, None);
    assert!(outbox.taken_since(at(-10)).await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir, 10).await);
    let mode = std::fs::metadata(dir.path().join("outbox"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0);
}
