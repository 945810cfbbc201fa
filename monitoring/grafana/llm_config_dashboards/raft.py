"""The dashboard of the cluster itself: who leads, whether a majority agrees, how far behind the others are."""

from __future__ import annotations

from .panels import (
    LOG_SCALE,
    SYMLOG_SCALE,
    Board,
    Json,
    dashed,
    query,
    right,
    stat,
    state_timeline,
    steps,
    timeseries,
    values,
)


def _quantile(share: float, metric: str, by: str, matchers: str = "@node", span: str = "$__rate_interval") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))"


def _rate(metric: str, by: str, matchers: str = "@node") -> str:
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def _cluster(board: Board) -> None:
    leader = stat(
        "Leader",
        "The node that leads. Two names for longer than a moment: a deposed leader that does not know it yet.",
        query("llm_config_raft_is_leader{@cluster} == 1", "{{instance}}", instant=True),
        unit="none",
        text="name",
        noValue="none",
        thresholds=steps("blue"),
    )
    quorum = stat(
        "Quorum",
        "Whether a node is in contact with a working majority. Without, writes and linearizable reads fail. Of "
        "several clusters, the worst.",
        query("min(max by (job, cluster) (llm_config_raft_has_quorum{@cluster}))", "quorum", instant=True),
        unit="none",
        text="value",
        noValue="lost",
        mappings=values((0, "lost", "red"), (1, "in contact", "green")),
        thresholds=steps("red", (1, "green")),
    )
    tolerance = stat(
        "Failures Tolerated",
        "How many more nodes may fail before the majority is lost. Of several clusters, the fewest.",
        query(
            "min(sum by (job, cluster) (llm_config_ready{@cluster})"
            " - max by (job, cluster) (llm_config_raft_learners{@cluster})"
            " - floor(max by (job, cluster) (llm_config_raft_voters{@cluster}) / 2) - 1)",
            "nodes",
            instant=True,
        ),
        unit="none",
        text="value",
        thresholds=steps("red", (0, "orange"), (1, "green")),
    )
    members = stat(
        "Members",
        "Nodes that are ready, that vote, and that only follow (learners).",
        query("sum(llm_config_ready{@cluster})", "ready", instant=True),
        query("max(llm_config_raft_voters{@cluster})", "voters", instant=True),
        query("max(llm_config_raft_learners{@cluster})", "learners", instant=True),
        unit="none",
        color="value",
        text="value_and_name",
        thresholds=steps("blue"),
    )
    term = stat(
        "Term",
        "Raft's term. Each election raises it; one that climbs without end is an election storm.",
        query("max(llm_config_raft_term{@cluster})", "term"),
        unit="none",
        text="value",
        graph=True,
        color="value",
        thresholds=steps("blue"),
    )
    changes = stat(
        "Leader Changes, 1 Hour",
        "Changes of the leader within an hour, as the node that saw most of them counted.",
        query("max(increase(llm_config_raft_leader_changes_total{@cluster}[1h]))", "changes"),
        unit="none",
        decimals=0,
        text="value",
        thresholds=steps("green", (1, "yellow"), (4, "red")),
    )
    roles = state_timeline(
        "Roles",
        "What each node was: leader, ready follower, or not ready (it knows no leader or has not caught up). A gap: "
        "it did not answer.",
        query("llm_config_ready{@node} + llm_config_raft_is_leader{@node}", "{{instance}}"),
        mappings=values((0, "not ready", "red"), (1, "follower", "blue"), (2, "leader", "green")),
        thresholds=steps("red", (1, "blue"), (2, "green")),
    )
    health = state_timeline(
        "Health",
        "What the nodes' own checks say of each of their parts; of several nodes, the worst.",
        query("min by (component) (health_check_status{@node})", "{{component}}"),
        mappings=values((0, "unhealthy", "red"), (1, "degraded", "orange"), (2, "healthy", "green")),
        thresholds=steps("red", (1, "orange"), (2, "green")),
    )
    elections = timeseries(
        "Elections",
        "Elections in which each node stood, and changes of the leader that it saw, within five minutes.",
        query("increase(llm_config_raft_elections_total{@node}[5m])", "stood: {{instance}}"),
        query("max(increase(llm_config_raft_leader_changes_total{@node}[5m]))", "leader changes"),
        unit="short",
    )
    board.section("Cluster")
    board.row(4, (5, leader), (4, quorum), (4, tolerance), (4, members), (3, term), (4, changes))
    board.row(7, (8, roles), (8, health), (8, elections))


def _writes(board: Board) -> None:
    proposals = timeseries(
        "Writes",
        "Writes a second that the leader proposed, that followers passed on to it, and that failed or may have, by "
        "reason.",
        query(_rate("llm_config_raft_proposals_total", ""), "proposed"),
        query(_rate("llm_config_raft_proposals_forwarded_total", ""), "forwarded"),
        query(_rate("llm_config_raft_proposals_failed_total", "reason"), "failed: {{reason}}"),
        unit="ops",
    )
    commit = timeseries(
        "Commit Latency",
        "Time from proposing a write to its answer: half of them, and 99 %, take at most this long. Alert: P99 above "
        "250 ms.",
        query(_quantile(0.5, "llm_config_raft_proposal_duration_seconds", ""), "P50"),
        query(_quantile(0.99, "llm_config_raft_proposal_duration_seconds", "instance"), "P99 {{instance}}"),
        unit="s",
        lines=((0.25, "orange"),),
        top=0.3,
    )
    waiting = timeseries(
        "Writes in Flight",
        "Writes that wait for their answer. Alert: more than 100 for five minutes.",
        query("llm_config_raft_proposals_in_flight{@node}", "{{instance}}"),
        unit="short",
        lines=((100, "orange"),),
        top=120,
    )
    sync = timeseries(
        "Log Sync P99",
        "99 % of the synced writes of the log take at most this long; the disk's own number. Alerts at 500 ms and "
        "1 s. Logarithmic.",
        query(_quantile(0.99, "llm_config_raft_log_fsync_duration_seconds", "instance"), "{{instance}}"),
        unit="s",
        lines=((0.5, "orange"), (1, "red")),
        top=2,
        scale=LOG_SCALE,
    )
    apply = timeseries(
        "Apply P99",
        "99 % of the runs of entries are applied to the state and stored within this time. Logarithmic.",
        query(_quantile(0.99, "llm_config_raft_apply_duration_seconds", "instance"), "{{instance}}"),
        unit="s",
        scale=LOG_SCALE,
    )
    batch = timeseries(
        "Entries per Sync",
        "How many log entries one synced write makes durable: more under load, which is what keeps it fast.",
        query(
            "rate(llm_config_raft_log_entries_appended_total{@node}[$__rate_interval])"
            " / (rate(llm_config_raft_log_fsync_duration_seconds_count{@node}[$__rate_interval]) > 0)",
            "{{instance}}",
        ),
        unit="short",
    )
    board.section("Writes")
    board.row(7, (8, proposals), (8, commit), (8, waiting))
    board.row(7, (8, sync), (8, apply), (8, batch))


def _replication(board: Board) -> None:
    lag = timeseries(
        "Replication Lag",
        "Log entries that each peer is behind, as the leader knows. Alert above 5000. Logarithmic.",
        query("max by (cluster, peer) (llm_config_raft_peer_lag_entries{@cluster})", "peer {{peer}}"),
        unit="short",
        lines=((5000, "orange"),),
        top=10000,
        scale=SYMLOG_SCALE,
        min=0,
    )
    apply_lag = timeseries(
        "Apply Lag",
        "Entries that are known to be committed and that a node has not applied. Alert above 5000. Logarithmic.",
        query("llm_config_raft_committed_index{@node} - llm_config_raft_applied_index{@node}", "{{instance}}"),
        unit="short",
        lines=((5000, "orange"),),
        top=10000,
        scale=SYMLOG_SCALE,
        min=0,
    )
    contact = timeseries(
        "Time Since Contact",
        "How long ago a follower heard from the leader, the leader from a majority, and any two nodes from each "
        "other. Alert above 10 s. Logarithmic.",
        query("llm_config_raft_leader_contact_age_seconds{@node} > 0", "leader, by {{instance}}"),
        query("max(llm_config_raft_quorum_ack_age_seconds{@node}) > 0", "majority"),
        query("max by (peer) (llm_config_raft_peer_contact_age_seconds{@node}) > 0", "peer {{peer}}"),
        unit="s",
        lines=((10, "orange"),),
        top=20,
        scale=LOG_SCALE,
    )
    rpc = timeseries(
        "Message Time P99",
        "99 % of the messages to each peer are answered within this time. Alert: appending above 150 ms.",
        query(_quantile(0.99, "llm_config_raft_rpc_duration_seconds", "rpc, peer"), "{{rpc}} to {{peer}}"),
        unit="s",
        lines=((0.15, "orange"),),
        top=0.2,
    )
    failures = timeseries(
        "Message Failures",
        "Messages to each peer within five minutes that got no answer, or an error.",
        query("sum by (peer) (increase(llm_config_raft_rpc_failures_total{@node}[5m]))", "to {{peer}}"),
        unit="short",
    )
    reachable = timeseries(
        "Reachable Peers",
        "With how many of the others each node exchanged a message recently. Absent on a cluster of one.",
        query("sum by (instance) (llm_config_raft_peer_reachable{@node})", "{{instance}}"),
        unit="none",
    )
    board.section("Replication")
    board.row(7, (8, lag), (8, apply_lag), (8, contact))
    board.row(7, (8, rpc), (8, failures), (8, reachable))


def _reads(board: Board) -> None:
    kinds = timeseries(
        "Reads",
        "Reads of entries a second, by the consistency that was asked for.",
        query(_rate("config_reads_total", "consistency"), "{{consistency}}"),
        unit="ops",
    )
    rounds = timeseries(
        "Read Confirmations",
        "How often the leadership was confirmed for linearizable reads, how many reads that served, and how often "
        "it failed. Alert: more than one failure a second.",
        query(_rate("llm_config_raft_read_index_rounds_total", ""), "confirmations"),
        query(_rate("llm_config_raft_read_index_reads_total", ""), "reads served"),
        query(_rate("llm_config_raft_read_index_failures_total", ""), "failures"),
        unit="ops",
    )
    time = timeseries(
        "Read Confirmation Time",
        "Time of a confirmation, as the node that asked saw it. Logarithmic.",
        query(_quantile(0.5, "llm_config_raft_read_index_duration_seconds", ""), "P50"),
        query(_quantile(0.99, "llm_config_raft_read_index_duration_seconds", ""), "P99"),
        unit="s",
        scale=LOG_SCALE,
    )
    revision = timeseries(
        "Revision Lag",
        "How far the revision of each node is behind the newest. Prometheus reads the nodes one after another, so "
        "under load a part of it is what was written between two readings.",
        query(
            "max by (job, cluster) (llm_config_revision{@cluster})"
            " - on (job, cluster) group_right llm_config_revision{@node}",
            "{{instance}}",
        ),
        unit="short",
    )
    board.section("Reads")
    board.row(7, (6, kinds), (6, rounds), (6, time), (6, revision))


def _log(board: Board) -> None:
    entries = timeseries(
        "Log Entries",
        "Entries in the log. Snapshots cut it. Alert above 100,000.",
        query("llm_config_raft_log_entries{@node}", "{{instance}}"),
        unit="short",
        lines=((100_000, "orange"),),
        top=120_000,
    )
    size = timeseries(
        "Log Size",
        "Size of the log on the disk.",
        query("llm_config_raft_log_size_bytes{@node}", "{{instance}}"),
        unit="bytes",
    )
    since = timeseries(
        "Entries Since Snapshot",
        "Entries behind the newest snapshot: what a node would have to read again, or be sent, without another.",
        query("llm_config_raft_last_log_index{@node} - llm_config_raft_snapshot_index{@node}", "{{instance}}"),
        unit="short",
    )
    snapshots = timeseries(
        "Snapshots, 1 Hour",
        "Snapshots that were built, sent to a peer or installed within an hour, those that failed, and on the "
        "right the time that they took.",
        query("sum by (op) (increase(llm_config_raft_snapshot_duration_seconds_count{@node}[1h]))", "{{op}}"),
        query("sum by (op) (increase(llm_config_raft_snapshot_failures_total{@node}[1h]))", "{{op}} failed"),
        query("sum(increase(llm_config_raft_snapshot_duration_seconds_sum{@node}[1h]))", "time"),
        unit="short",
        overrides=[right("C", "s")],
    )
    board.section("Log and snapshots")
    board.row(7, (6, entries), (6, size), (6, since), (6, snapshots))


def _engine(board: Board) -> None:
    name = "{{instance}} {{database}}"
    stalls = state_timeline(
        "Write Stalls",
        "Whether RocksDB slows writes down, or stops them, until compaction has caught up.",
        query(
            "max by (instance) (2 * rocksdb_write_stopped{@node}) + max by (instance) (rocksdb_write_delayed{@node})",
            "{{instance}}",
        ),
        mappings=values((0, "none", "green"), (1, "delayed", "orange"), (2, "stopped", "red"), (3, "stopped", "red")),
        thresholds=steps("green", (1, "orange"), (2, "red")),
    )
    level0 = timeseries(
        "Level 0 Files",
        "Files that were flushed and not compacted. From 20 on the engine slows writes down.",
        query("rocksdb_level0_files{@node}", name),
        unit="none",
        lines=((20, "orange"),),
        top=24,
    )
    memtables = timeseries(
        "Memtables",
        "Memory of writes that are not in files yet.",
        query("rocksdb_memtable_bytes{@node}", name),
        unit="bytes",
    )
    pending = timeseries(
        "Compaction",
        "Bytes that compaction still has to rewrite, as far as the engine can tell; on the right, compactions and "
        "flushes under way over all nodes.",
        query("sum by (instance) (rocksdb_pending_compaction_bytes{@node})", "{{instance}}"),
        query("sum(rocksdb_running_compactions{@node})", "compactions"),
        query("sum(rocksdb_running_flushes{@node})", "flushes"),
        unit="bytes",
        overrides=[right("B", "none"), right("C", "none")],
    )
    data = timeseries(
        "Live Data",
        "Data without what is deleted or replaced; on the right, keys. Both are estimates.",
        query("sum by (instance) (rocksdb_live_data_bytes{@node})", "{{instance}}"),
        query("max by (database) (rocksdb_estimated_keys{@node})", "keys in {{database}}"),
        unit="bytes",
        overrides=[right("B", "short")],
    )
    errors = timeseries(
        "Background Errors",
        "Errors of flushes and compactions since the database was opened, and writes refused for want of room "
        "within five minutes. Anything but 0 needs a look at the log of the node.",
        query("sum by (instance) (rocksdb_background_errors{@node})", "{{instance}}"),
        query("sum(increase(llm_config_storage_refused_total{@node}[5m]))", "refused writes"),
        unit="short",
        lines=((1, "red"),),
        top=2,
    )
    disk = timeseries(
        "Disk Usage",
        "How full the file system is that holds the data directory, and how much of its quota the node uses (broken "
        "lines; not without a quota). Alerts at 85 % and 90 %.",
        query("instance:storage_usage:ratio{@node}", "{{instance}}"),
        query("storage_size_bytes{@node} / (storage_quota_bytes{@node} > 0)", "quota {{instance}}"),
        unit="percentunit",
        lines=((0.85, "orange"), (0.9, "red")),
        max=1,
        overrides=[dashed("B")],
    )
    backups = stat(
        "Newest Backup",
        "Age of the newest backup in the data directory of each node.",
        query(
            "time() - (backup_last_success_timestamp_seconds{@node} > 0)"
            " or backup_last_success_timestamp_seconds{@node} - 1",
            "{{instance}}",
            instant=True,
        ),
        unit="s",
        decimals=1,
        color="value",
        text="value_and_name",
        mappings=values((-1, "none", "orange")),
        thresholds=steps("green", (26 * 3600, "orange")),
    )
    board.section("Storage engine")
    board.row(7, (8, stalls), (8, level0), (8, memtables))
    board.row(7, (8, pending), (8, data), (8, errors))
    made = timeseries(
        "Backups",
        "Size of the newest backup in the data directory of each node; on the right, backups of the last day that failed.",
        query("backup_size_bytes{@node}", "{{instance}}"),
        query("sum(increase(backup_failures_total{@node}[1d]))", "failed"),
        unit="bytes",
        overrides=[right("B", "none", decimals=0)],
    )
    board.row(7, (8, disk), (8, backups), (8, made))


def _requests(board: Board) -> None:
    errors = timeseries(
        "Errors",
        "Operations within five minutes that ended with an error, by its code. Some are answers, such as NOT_FOUND.",
        query("sum by (code) (increase(config_errors_total{@node}[5m]))", "{{code}}"),
        unit="short",
        decimals=0,
        legend="right",
    )
    operations = timeseries(
        "Operation Time P99",
        "99 % of the operations take at most this long in the service, by their type. Logarithmic.",
        query(_quantile(0.99, "config_operation_duration_seconds", "operation", span="5m"), "{{operation}}"),
        unit="s",
        scale=LOG_SCALE,
        legend="right",
    )
    calls = timeseries(
        "HTTP and gRPC Time P99",
        "99 % of the HTTP requests and gRPC calls are answered within this time, without watches. Logarithmic.",
        query(
            _quantile(0.99, "http_request_duration_seconds", "", '@node, route!="/api/v1/watch"'),
            "HTTP",
        ),
        query(
            _quantile(0.99, "grpc_request_duration_seconds", "", '@node, method!~".*Watch.*"'),
            "gRPC",
        ),
        unit="s",
        scale=LOG_SCALE,
    )
    refused = timeseries(
        "Overload",
        "Requests a second that were refused because a bound was reached, by the bound.",
        query(_rate("llm_config_overloaded_total", "bound"), "{{bound}}"),
        unit="reqps",
    )
    board.section("Requests")
    board.row(8, (8, errors), (8, operations), (4, calls), (4, refused))


def _process(board: Board) -> None:
    watches = timeseries(
        "Watches",
        "Open watches; on the right, changes a second that were given to them.",
        query("llm_config_watchers{@node}", "{{instance}}"),
        query(_rate("llm_config_watch_events_total", ""), "changes"),
        unit="short",
        overrides=[right("B", "eps")],
    )
    runtime = timeseries(
        "Worker Threads",
        "How busy the threads are that run the tasks of the process; on the right, tasks that wait for a thread.",
        query("rate(tokio_busy_seconds_total{@node}[$__rate_interval]) / tokio_workers{@node}", "{{instance}}"),
        query("sum(tokio_global_queue_depth{@node})", "waiting tasks"),
        unit="percentunit",
        max=1,
        overrides=[right("B", "none", max=None)],
    )
    cache = timeseries(
        "Cache Memory",
        "Memory of each tier as a share of what it may use, on the node that uses most.",
        query("max by (tier) (cache_size_bytes{@node} / cache_capacity_bytes{@node})", "{{tier}}"),
        unit="percentunit",
        max=1,
    )
    files = timeseries(
        "File Descriptors",
        "Open file descriptors as a share of those allowed. Alert above 80 %.",
        query("process_open_fds{@node} / process_max_fds{@node}", "{{instance}}"),
        unit="percentunit",
        lines=((0.8, "orange"),),
        max=1,
    )
    board.section("Process")
    board.row(7, (6, watches), (6, runtime), (6, cache), (6, files))


def raft() -> Json:
    board = Board(
        "llmcfg-raft",
        "Raft",
        "The cluster: leader, quorum, replication, log, and the storage engine below.",
        refresh="10s",
    )
    _cluster(board)
    _writes(board)
    _replication(board)
    _reads(board)
    _log(board)
    _engine(board)
    _requests(board)
    _process(board)
    return board.json()
