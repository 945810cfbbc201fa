//! The `process_*` family, read from `/proc` when asked.
//!
//! The prometheus crate's own collector rounds processor time to whole seconds, which makes a rate over a minute a
//! staircase; this one keeps the fraction.

use procfs::Current;
use prometheus::proto::MetricFamily;

use super::family::{counter, gauge};

/// What does not change while the process lives.
pub(super) struct Process {
    started_seconds: f64,
    cpu_limit_cores: f64,
    memory_limit_bytes: Option<u64>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            started_seconds: started_seconds().unwrap_or(0.0),
            cpu_limit_cores: cpu_limit_cores(),
            memory_limit_bytes: memory_limit_bytes(),
        }
    }

    /// A number that `/proc` refuses to give is left out rather than reported as zero.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let mut families = vec![
            gauge(
                "process_start_time_seconds",
                "When the process started, since the Unix epoch",
                self.started_seconds,
            ),
            gauge(
                "process_cpu_limit_cores",
                "Processor cores that the process may use",
                self.cpu_limit_cores,
            ),
        ];
        if let Some(limit) = self.memory_limit_bytes {
            families.push(gauge(
                "process_memory_limit_bytes",
                "Memory that the process may use",
                limit as f64,
            ));
        }
        let Ok(process) = procfs::process::Process::myself() else { return families };
        if let Ok(stat) = process.stat() {
            let ticks = procfs::ticks_per_second() as f64;
            families.extend([
                counter(
                    "process_cpu_seconds_total",
                    "Processor time used, user and system",
                    (stat.utime + stat.stime) as f64 / ticks,
                ),
                gauge(
                    "process_resident_memory_bytes",
                    "Memory in use",
                    (stat.rss * procfs::page_size()) as f64,
                ),
                gauge("process_virtual_memory_bytes", "Address space in use", stat.vsize as f64),
                gauge("process_threads", "Threads", stat.num_threads as f64),
            ]);
        }
        if let Ok(open) = process.fd_count() {
            families.push(gauge("process_open_fds", "Open file descriptors", open as f64));
        }
        if let Ok(limits) = process.limits()
            && let procfs::process::LimitValue::Value(max) = limits.max_open_files.soft_limit
        {
            families.push(gauge("process_max_fds", "Open file descriptors allowed", max as f64));
        }
        families
    }
}

fn started_seconds() -> Option<f64> {
    let stat = procfs::process::Process::myself().ok()?.stat().ok()?;
    let booted = procfs::boot_time_secs().ok()?;
    Some(booted as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64)
}

/// The control group's quota, else the cores of the machine.
fn cpu_limit_cores() -> f64 {
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let quota =
        std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| quota_cores(&text));
    quota.map_or(cores, |quota| quota.min(cores))
}

/// `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn quota_cores(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// The control group's limit, in either version of control groups, else the memory of the machine.
fn memory_limit_bytes() -> Option<u64> {
    let machine = procfs::Meminfo::current().ok().map(|memory| memory.mem_total);
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| limit_bytes(&std::fs::read_to_string(path).ok()?));
    match (group, machine) {
        (Some(group), Some(machine)) => Some(group.min(machine)),
        (group, machine) => group.or(machine),
    }
}

/// A number of bytes, or `max`.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_of_control_groups() {
        assert_eq!(quota_cores("150000 100000\n"), Some(1.5));
        assert_eq!(quota_cores("max 100000\n"), None);
        assert_eq!(quota_cores(""), None);
        assert_eq!(quota_cores("1 0"), None);
    }

    #[test]
    fn memory_limits_of_control_groups() {
        assert_eq!(limit_bytes("536870912\n"), Some(512 << 20));
        assert_eq!(limit_bytes("max\n"), None);
        assert_eq!(limit_bytes("0"), None);
        assert!(memory_limit_bytes().is_some_and(|limit| limit > 1 << 20));
    }

    #[test]
    fn the_process_started_in_the_past_and_not_long_ago() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let age = now - Process::new().started_seconds;
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
