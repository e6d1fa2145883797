//! Places for assignment operations under way: so many at once, and one per target account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// Hands out places for assignment operations. Cloning shares them.
///
/// AWS allows ten operations under way, and works on one role per account at a time.
#[derive(Debug, Clone)]
pub struct Slots {
    all: Arc<Semaphore>,
    accounts: Arc<Mutex<HashMap<String, Arc<Turn<()>>>>>,
}

/// A place; dropping it frees it. Keep it until AWS has said how the operation ended.
#[derive(Debug)]
pub struct SlotGuard {
    _account: OwnedMutexGuard<()>,
    _any: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// `in_flight` operations at once; 0 counts as 1.
    #[must_use]
    pub fn new(in_flight: u32) -> Self {
        Self {
            all: Arc::new(Semaphore::new(usize::try_from(in_flight.max(1)).unwrap_or(1))),
            accounts: Arc::default(),
        }
    }

    /// Waits for a place for this account, first come, first served within the account. Waiting for a busy account
    /// takes no place from the others.
    pub async fn acquire(&self, account: &str) -> SlotGuard {
        let turn = {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            accounts.entry(account.to_owned()).or_default().clone()
        };
        let of_account = turn.lock_owned().await;
        // An error would mean that the semaphore was closed, which nothing does.
        let any = self.all.clone().acquire_owned().await.ok();
        SlotGuard {
            _account: of_account,
            _any: any,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(future: Pin<&mut impl Future<Output = SlotGuard>>) -> Option<SlotGuard> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_per_account_in_order_and_so_many_at_once() {
        let slots = Slots::new(2);
        let (mut a1, mut a2, mut a3) = (
            pin!(slots.acquire("111111111111")),
            pin!(slots.acquire("111111111111")),
            pin!(slots.acquire("111111111111")),
        );
        let first = poll(a1.as_mut()).expect("the account is free");
        assert!(
            poll(a2.as_mut()).is_none() && poll(a3.as_mut()).is_none(),
            "the account is busy"
        );

        // Two of the first account wait, yet the second place is free for another account.
        let mut b = pin!(slots.acquire("222222222222"));
        let other = poll(b.as_mut()).expect("a place is free");
        let mut c = pin!(slots.acquire("333333333333"));
        assert!(poll(c.as_mut()).is_none(), "both places are taken");

        drop(other);
        let third = poll(c.as_mut()).expect("the place was freed");
        drop(third);
        drop(first);
        assert!(poll(a3.as_mut()).is_none(), "the earlier of two waiters goes first");
        let second = poll(a2.as_mut()).expect("its turn");
        assert!(poll(a3.as_mut()).is_none());
        drop(second);
        assert!(poll(a3.as_mut()).is_some());
    }
}
