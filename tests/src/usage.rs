use std::fs;

/// What a process has used so far, as the kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Most memory that was ever resident, in bytes.
    pub peak_bytes: u64,
    /// Memory that is resident now, in bytes.
    pub resident_bytes: u64,
    /// CPU time of user and system, in seconds.
    pub cpu_s: f64,
}

/// Clock ticks of a second in `/proc`, the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

impl Usage {
    /// Looks at a process; nothing when there is none of that id.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Self::look(pid, 2)
    }

    /// Looks at a process together with all that it has started, those that have ended included.
    /// Memory is that of the largest one of those that run.
    #[must_use]
    pub fn of_family(pid: u32) -> Option<Self> {
        let mut family = Self::look(pid, 4)?;
        for child in children(pid).into_iter().filter_map(Self::of) {
            family.peak_bytes = family.peak_bytes.max(child.peak_bytes);
            family.resident_bytes = family.resident_bytes.max(child.resident_bytes);
            family.cpu_s += child.cpu_s;
        }
        Some(family)
    }

    /// Forgets the peak of a process, so that the next look tells what came after.
    pub fn forget_peak(pid: u32) {
        // Without the right to do so the peak is that of the whole life.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
    }

    /// Returns the most memory that was ever resident, in MiB.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub fn peak_mib(&self) -> f64 {
        self.peak_bytes as f64 / (1024.0 * 1024.0)
    }

    /// Looks at a process and adds up the first `times` of its four CPU times: user, system, and the
    /// same of the children it has waited for.
    fn look(pid: u32, times: usize) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold spaces.
        let ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(times);
        Some(Self {
            // A process that has ended and that nobody has asked for holds no memory any more.
            peak_bytes: bytes("VmHWM:").unwrap_or(0) * 1024,
            resident_bytes: bytes("VmRSS:").unwrap_or(0) * 1024,
            cpu_s: ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS,
        })
    }
}

/// Returns the ids of the processes that `pid` has started and that are still running.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}
