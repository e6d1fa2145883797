//! Tells whoever waits at a terminal what for. Nothing in logs, and nothing where it takes less than a second.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for `work`; from the second second on, a line on stderr says `what` it is and for how long already.
pub(super) async fn telling<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let told = Telling::begin(what);
    let done = work.await;
    drop(told);
    done
}

/// A line on stderr while this lives, and none where stderr is no terminal. A thread of its own writes it, because what is
/// waited for may keep every other one busy.
pub(super) struct Telling(Option<(mpsc::Sender<Order>, JoinHandle<()>)>);

enum Order {
    /// Something is about to be printed, or another thing is waited for from now on.
    Now(&'static str, mpsc::Sender<()>),
}

impl Telling {
    pub(super) fn begin(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        Self::to(io::stderr(), what, PATIENCE)
    }

    /// The line goes away, so that something else can be printed there; later one says this.
    pub(super) fn now(&self, what: &'static str) {
        if let Some((orders, _)) = &self.0 {
            let (cleared, is_clear) = mpsc::channel();
            if orders.send(Order::Now(what, cleared)).is_ok() {
                // Nobody answers once the thread has ended, and then there is no line.
                let _gone = is_clear.recv();
            }
        }
    }

    fn to(out: impl Write + Send + 'static, what: &'static str, every: Duration) -> Self {
        let (orders, ordered) = mpsc::channel();
        let tells = thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || tell(out, what, every, &ordered));
        // Without a thread to spare, nothing is told.
        Self(tells.ok().map(|thread| (orders, thread)))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some((orders, thread)) = self.0.take() {
            drop(orders);
            // What comes next may be printed where the line is.
            drop(thread.join());
        }
    }
}

fn tell(mut out: impl Write, mut what: &'static str, every: Duration, orders: &mpsc::Receiver<Order>) {
    let mut began = Instant::now();
    let mut told = false;
    // Nobody is left to tell when stderr is gone.
    let mut put = |text: &str| drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    loop {
        let order = orders.recv_timeout(every);
        if let Err(RecvTimeoutError::Timeout) = order {
            told = true;
            // The cursor goes back to the line's beginning, so that a warning takes its place.
            put(&format!("{what}: {} s\u{1b}[K\r", began.elapsed().as_secs()));
            continue;
        }
        if std::mem::take(&mut told) {
            put("\r\u{1b}[K");
        }
        match order {
            Ok(Order::Now(next, cleared)) => {
                (what, began) = (next, Instant::now());
                // Whoever asked waits for it, or has gone.
                let _gone = cleared.send(());
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written, and says so.
    struct Screen(Arc<Mutex<String>>, mpsc::Sender<()>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            // Nobody waits for the last ones.
            let _gone = self.1.send(());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_there_while_something_lasts_and_gone_after_it() {
        let (shown, (wrote, written)) = (Arc::new(Mutex::new(String::new())), mpsc::channel());
        let telling = Telling::to(
            Screen(Arc::clone(&shown), wrote),
            "reading schedules",
            Duration::from_millis(1),
        );
        written.recv().unwrap();
        telling.now("waiting for AWS");
        let text = std::mem::take(&mut *shown.lock().unwrap());
        assert!(text.starts_with("reading schedules: 0 s\u{1b}[K\r"), "{text:?}");
        assert!(text.contains("\r\u{1b}[K"), "{text:?}");
        while !shown.lock().unwrap().contains("waiting for AWS: 0 s") {
            written.recv().unwrap();
        }
        drop(telling);
        assert!(shown.lock().unwrap().ends_with("\r\u{1b}[K"), "{shown:?}");
    }

    #[test]
    fn what_does_not_last_is_not_told() {
        let (shown, (wrote, _written)) = (Arc::new(Mutex::new(String::new())), mpsc::channel());
        let telling = Telling::to(Screen(Arc::clone(&shown), wrote), "reading", Duration::from_secs(3600));
        telling.now("writing");
        drop(telling);
        assert_eq!(*shown.lock().unwrap(), "");
    }
}
