//! What this process has cost so far.

use std::time::Duration;

/// CPU time of all threads of this process so far.
pub(crate) fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Lets the peak begin anew.
pub(crate) fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// The most that was resident since, in megabytes.
pub(crate) fn peak_mb() -> f64 {
    of_status("VmHWM:")
}

/// What is resident now, in megabytes.
#[allow(dead_code, reason = "not every bench asks")]
pub(crate) fn resident_mb() -> f64 {
    of_status("VmRSS:")
}

fn of_status(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1e3
}
