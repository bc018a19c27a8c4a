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
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            peak_bytes: bytes("VmHWM")? * 1024,
            resident_bytes: bytes("VmRSS")? * 1024,
            cpu_s: (ticks(11)? + ticks(12)?) / TICKS,
        })
    }

    /// Returns the most memory that was ever resident, in MiB.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub fn peak_mib(&self) -> f64 {
        self.peak_bytes as f64 / (1024.0 * 1024.0)
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
