//! The `process_*` family, read from `/proc` when asked, and what the runtime says of its threads.
//!
//! The prometheus crate's own collector rounds processor time to whole seconds, which makes a rate over a minute a
//! staircase; this one keeps the fraction.

use procfs::Current;
use prometheus::proto::MetricFamily;

use super::control_group;
use super::family::{counter, gauge};

/// What does not change while the process lives.
pub(super) struct Process {
    started_seconds: f64,
    machine_cores: f64,
    machine_memory_bytes: Option<u64>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            started_seconds: started_seconds().unwrap_or(0.0),
            machine_cores: std::thread::available_parallelism()
                .map_or(1.0, |cores| cores.get() as f64),
            machine_memory_bytes: procfs::Meminfo::current().ok().map(|memory| memory.mem_total),
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
                control_group::cpu_limit_cores()
                    .map_or(self.machine_cores, |cores| cores.min(self.machine_cores)),
            ),
        ];
        let limits = [control_group::memory_limit_bytes(), self.machine_memory_bytes];
        if let Some(limit) = limits.into_iter().flatten().min() {
            families.push(gauge(
                "process_memory_limit_bytes",
                "Memory that the process may use",
                limit as f64,
            ));
        }
        families.extend(of_proc());
        families.extend(of_runtime());
        families
    }
}

fn of_proc() -> Vec<MetricFamily> {
    let mut families = Vec::new();
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
    if let Ok(io) = process.io() {
        families.extend([
            counter(
                "process_io_read_bytes_total",
                "Bytes that the process had read from disks",
                io.read_bytes as f64,
            ),
            counter(
                "process_io_written_bytes_total",
                "Bytes that the process had written to disks",
                io.write_bytes as f64,
            ),
        ]);
    }
    if let Ok(interfaces) = process.dev_status() {
        let sum = |bytes: fn(&procfs::net::DeviceStatus) -> u64| {
            interfaces.values().map(bytes).sum::<u64>() as f64
        };
        families.extend([
            counter(
                "process_network_receive_bytes_total",
                "Bytes received by the interfaces that the process sees",
                sum(|interface| interface.recv_bytes),
            ),
            counter(
                "process_network_transmit_bytes_total",
                "Bytes sent by the interfaces that the process sees",
                sum(|interface| interface.sent_bytes),
            ),
        ]);
    }
    families
}

/// Of the runtime that the page is made in; a page that is made outside of one has none of it.
fn of_runtime() -> Vec<MetricFamily> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Vec::new() };
    let runtime = runtime.metrics();
    let workers = runtime.num_workers();
    let busy: f64 =
        (0..workers).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64()).sum();
    vec![
        gauge("tokio_workers", "Threads that run the tasks of the process", workers as f64),
        counter("tokio_busy_seconds_total", "Time that those threads ran tasks", busy),
        gauge("tokio_alive_tasks", "Tasks that have not ended", runtime.num_alive_tasks() as f64),
        gauge(
            "tokio_global_queue_depth",
            "Tasks that wait for a thread",
            runtime.global_queue_depth() as f64,
        ),
    ]
}

fn started_seconds() -> Option<f64> {
    let stat = procfs::process::Process::myself().ok()?.stat().ok()?;
    let booted = procfs::boot_time_secs().ok()?;
    Some(booted as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
