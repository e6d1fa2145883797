//! Shows a text on the terminal again and again, in place.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// The other screen, with the cursor hidden; what was on the terminal before comes back when it is left.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// Gives the terminal back, however watching ends.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell when the terminal is gone.
        drop(put(LEAVE));
    }
}

/// Draws what `look` says every so many seconds until SIGINT or SIGTERM. A look that fails is shown in its place.
///
/// # Errors
/// When stdout is no terminal or cannot be written.
pub(super) async fn watch(every: u64, look: impl AsyncFn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        bail!("--watch redraws a terminal, and stdout is none; run it without --watch");
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    put(ENTER)?;
    let _screen = Screen;
    loop {
        let text = look()
            .await
            .unwrap_or_else(|error| format!("error: {}\n", crate::text::clean(&format!("{error:#}"))));
        let height = terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0));
        put(&frame(&text, height))?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(every)) => {}
        }
    }
}

/// The text drawn over the one before: nothing is cleared before something stands in its place, so nothing flickers.
fn frame(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (shown, hidden) = match lines.len().checked_sub(height) {
        None | Some(0) => (&lines[..], 0),
        Some(_) => lines
            .split_at_checked(height.saturating_sub(1))
            .map_or((&lines[..], 0), |(a, b)| (a, b.len())),
    };
    let mut drawn: Vec<String> = shown.iter().map(|line| format!("{line}\u{1b}[K")).collect();
    if 0 < hidden {
        drawn.push(format!("({hidden} more lines)\u{1b}[K"));
    }
    format!("\u{1b}[H{}\u{1b}[J", drawn.join("\r\n"))
}

fn put(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fills_the_terminal_and_no_more() {
        assert_eq!(frame("a\nb\n", 3), "\u{1b}[Ha\u{1b}[K\r\nb\u{1b}[K\u{1b}[J");
        assert_eq!(frame("a\nb\n", 2), "\u{1b}[Ha\u{1b}[K\r\nb\u{1b}[K\u{1b}[J");
        assert_eq!(
            frame("a\nb\nc\n", 2),
            "\u{1b}[Ha\u{1b}[K\r\n(2 more lines)\u{1b}[K\u{1b}[J"
        );
        assert_eq!(frame("", 0), "\u{1b}[H\u{1b}[J");
    }
}
