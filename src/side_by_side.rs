//! Does the same to many things on several cores at once, and keeps their order.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

/// More threads than this bring little, and a service may have only so many tasks.
const MOST_THREADS: usize = 8;

/// What `work` makes of each item, in their order. Every `worth_a_thread` of them are worth one more thread; one that the
/// system refuses is done without.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, worth_a_thread: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(MOST_THREADS).min(items.len() / worth_a_thread.max(1));
    if threads < 2 {
        return items.into_iter().map(work).collect();
    }
    let mut made = Vec::with_capacity(items.len());
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let all = || {
        let mut made = Vec::new();
        while let Some((place, item)) = next() {
            made.push((place, work(item)));
        }
        made
    };
    thread::scope(|scope| {
        let begin = |_| Builder::new().spawn_scoped(scope, all).ok();
        let helpers: Vec<_> = (1..threads).map(begin).collect();
        made.extend(all());
        for helper in helpers.into_iter().flatten() {
            made.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    made.sort_unstable_by_key(|(place, _)| *place);
    made.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_nothing_is_left_out_or_done_twice() {
        for many in [0, 1, 15, 16, 1000] {
            let items: Vec<usize> = (0..many).collect();
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(map(items, 8, |item| item * 2), doubled, "{many}");
        }
    }

    #[test]
    #[should_panic(expected = "of one of them")]
    fn a_panic_is_not_lost() {
        map((0..1000).collect(), 8, |item| assert_ne!(item, 777, "of one of them"));
    }
}
