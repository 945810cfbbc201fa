"""The dashboards of the operations guide: Main Operations, Security, Performance, and Key Metrics.

Ratios and quantiles over a whole cluster come from the recording rules, so that a panel and an alert never disagree.
"""

from __future__ import annotations

from .panels import (
    LOG_SCALE,
    SYMLOG_SCALE,
    Board,
    Json,
    barchart,
    dashed,
    gauge,
    heatmap,
    override,
    pie,
    query,
    right,
    stat,
    steps,
    table,
    timeseries,
    values,
)

GIB = 1024**3

# The documented marks, drawn as lines.
SUCCESS = ((0.99, "green"),)
LATENCY = ((0.1, "yellow"), (0.2, "red"))
ERRORS = ((0.05, "orange"), (0.1, "red"))
CPU = ((0.85, "red"),)
MEMORY = ((3.5 * GIB, "red"),)
STORAGE = ((90 * GIB, "red"),)

# A majority is in contact, times 1 and 1 more when every node that should be there says that it is healthy.
_STATUS = (
    "min(max by (job, cluster) (llm_config_raft_has_quorum{@cluster})"
    " * (1 + (sum by (job, cluster) (health_status{@cluster} == bool 2)"
    " == bool count by (job, cluster) (up{@cluster})))"
    " or 0 * max by (job, cluster) (up{@cluster}))"
)


def _quantiles() -> list[Json]:
    return [
        query(
            f"max by (cluster) (job:http_request_duration_seconds:p{percent}_5m{{@cluster}})",
            f"P{percent} {{{{cluster}}}}",
        )
        for percent in (50, 95, 99)
    ]


def _latency(title: str) -> Json:
    return timeseries(
        title,
        "Time to answer an HTTP request: half of the requests, 95 % and 99 % take at most this long. Over the whole "
        "cluster, without watches. Target: P95 below 100 ms; alert above 200 ms.",
        *_quantiles(),
        unit="s",
        lines=LATENCY,
        top=0.25,
    )


def _errors(lines: tuple[tuple[float, str], ...], marks: str) -> Json:
    return timeseries(
        "Error Rate",
        "Share of the operations that failed for a reason on the service's side, over the whole cluster. " + marks,
        query("job:error_rate:5m{@cluster}", "{{cluster}}"),
        unit="percentunit",
        lines=lines,
        top=0.12,
    )


def _hit_rate() -> Json:
    return gauge(
        "Cache Hit Rate",
        "Share of the lookups of entries that memory answered, over the whole cluster. Target: above 80 %; alert "
        "below 70 %.",
        query("min(job:cache_hit_rate:5m{@cluster})", "hit rate", instant=True),
        unit="percentunit",
        thresholds=steps("red", (0.7, "orange"), (0.8, "green")),
        min=0,
        max=1,
        decimals=1,
    )


def _cpu(lines: tuple[tuple[float, str], ...], marks: str) -> Json:
    return timeseries(
        "CPU Usage",
        "Processor time of each node as a share of what it may use. " + marks,
        query("instance:cpu_usage:ratio_rate5m{@node}", "{{instance}}"),
        unit="percentunit",
        lines=lines,
        max=1,
    )


def main_operations() -> Json:
    board = Board("llmcfg-main", "Main Operations", "The health of the system on one page.", refresh="5s")
    status = stat(
        "System Status",
        "Healthy: a majority is in contact and every node says that it is healthy. Degraded: a node is down or says "
        "otherwise. Unhealthy: no majority, writes fail. Of several clusters, the worst.",
        query(_STATUS, "status", instant=True),
        unit="none",
        text="value",
        mappings=values((0, "Unhealthy", "red"), (1, "Degraded", "orange"), (2, "Healthy", "green")),
        thresholds=steps("red", (1, "orange"), (2, "green")),
    )
    uptime = stat(
        "Uptime",
        "How long the node runs that was started first, and the share of the last 30 days in which the nodes "
        "answered Prometheus. Target: above 99.9 %.",
        query("max(time() - process_start_time_seconds{@node})", "running for", instant=True),
        query("avg(avg_over_time(up{@node}[30d]))", "available, 30 days", instant=True),
        unit="s",
        overrides=[
            override(
                "byFrameRefID",
                "B",
                unit="percentunit",
                decimals=2,
                thresholds=steps("red", (0.999, "green")),
            )
        ],
        decimals=1,
    )
    requests = timeseries(
        "Request Rate",
        "Requests a second: HTTP by the node that answered, and gRPC over all nodes.",
        query("sum by (instance) (rate(http_requests_total{@node}[5m]))", "{{instance}}"),
        query("sum(rate(grpc_requests_total{@node}[5m]))", "gRPC"),
        unit="reqps",
    )
    success = gauge(
        "Success Rate",
        "Share of the HTTP requests that were not answered with a status of 500 or more, over the whole cluster. "
        "Target: above 99 %.",
        query("min(job:http_success_rate:5m{@cluster})", "success", instant=True),
        unit="percentunit",
        thresholds=steps("red", (0.99, "green")),
        min=0.9,
        max=1,
        decimals=2,
    )
    active = stat(
        "Active Configurations",
        "Entries that exist, over all environments. While no node leads there is no number, and 0 is shown.",
        query("sum(config_active_total{@cluster})", "entries"),
        unit="short",
        text="value",
        graph=True,
        color="value",
        thresholds=steps("blue"),
    )
    operations = pie(
        "Operations Breakdown",
        "Operations of the last five minutes by their type.",
        *[
            query(f'sum(increase(config_operations_total{{@node, operation{matcher}"}}[5m]))', name)
            for name, matcher in (
                ("SET", '="set'),
                ("GET", '="get'),
                ("DELETE", '="delete'),
                ("LIST", '="list'),
                ("other", '!~"set|get|delete|list'),
            )
        ],
        unit="short",
    )
    memory = timeseries(
        "Memory Usage",
        "Memory in use by each node. Target: below 2 GiB; alert at 3.5 GiB.",
        query("process_resident_memory_bytes{@node}", "{{instance}}"),
        unit="bytes",
        lines=MEMORY,
        top=4 * GIB,
    )
    storage = timeseries(
        "Storage Size",
        "What each node stores: log, state and snapshots. Every node holds the whole; never add them up. Alert at "
        "90 GiB.",
        query("storage_size_bytes{@node}", "{{instance}}"),
        unit="bytes",
        lines=STORAGE,
        top=100 * GIB,
    )
    board.row(6, (4, status), (4, uptime), (4, success), (4, _hit_rate()), (4, active), (4, operations))
    board.row(
        8,
        (8, requests),
        (8, _latency("P95 Latency")),
        (8, _errors(ERRORS, "Alerts at 5 % and 10 %.")),
    )
    board.row(8, (8, _cpu(CPU, "Alert at 85 %.")), (8, memory), (8, storage))
    return board.json(
        order=[
            "System Status",
            "Uptime",
            "Request Rate",
            "Success Rate",
            "P95 Latency",
            "Error Rate",
            "Cache Hit Rate",
            "Active Configurations",
            "Operations Breakdown",
            "CPU Usage",
            "Memory Usage",
            "Storage Size",
        ]
    )


def security() -> Json:
    board = Board("llmcfg-security", "Security", "Who was refused, and who saw secrets.", refresh="10s")
    denials = timeseries(
        "Permission Denials",
        "Requests in five minutes that the caller's roles did not allow, by the node that refused them. A spike is "
        "a wrong role, or somebody who tries doors.",
        query("sum by (instance) (increase(rbac_permission_denials_total{@node}[5m]))", "{{instance}}"),
        unit="short",
        stacked=True,
    )
    limited = timeseries(
        "Rate Limit Hits",
        "Requests a second that were refused because one principal, or one address, made too many.",
        query("sum by (scope) (rate(rate_limited_total{@node}[5m]))", "{{scope}}"),
        unit="reqps",
        stacked=True,
    )
    banned = table(
        "Banned IPs",
        "Addresses that are banned now, why, and for how much longer. A ban holds on every node; of more than 100, "
        "those that end last are shown.",
        query(
            "max by (address, reason) (ban_expiry_timestamp_seconds{@cluster}) - time() > 0",
            instant=True,
            table="table",
        ),
        {"address": "IP", "reason": "Reason", "Value": "Remaining"},
        unit="dthms",
        empty="No address is banned",
    )
    failed = stat(
        "Failed Authentication",
        "Requests that did not show who they are from. Alert: more than 10 in five minutes.",
        query("sum(increase(auth_failures_total{@node}[5m]))", "5 minutes"),
        query("sum(increase(auth_failures_total{@node}[1h]))", "1 hour"),
        unit="short",
        graph=True,
        decimals=0,
        thresholds=steps("green", (10, "red")),
        overrides=[override("byFrameRefID", "B", thresholds=steps("blue"))],
    )
    secrets = timeseries(
        "Secret Access",
        "Secrets a second whose plaintext was sent to a caller (reveal) or that were stored (write). The broken "
        "line is the mean of the last hour: far above it, somebody reads more than usual.",
        query("sum by (operation) (rate(secret_access_total{@node}[5m]))", "{{operation}}"),
        query('sum(rate(secret_access_total{@node, operation="reveal"}[1h]))', "reveal, mean of 1 hour"),
        unit="ops",
        overrides=[dashed("B")],
    )
    audit = timeseries(
        "Audit Events",
        "Audit records a second by their type, and those that could not be written (dropped).",
        query("sum by (type) (rate(audit_events_total{@node}[5m])) > 0", "{{type}}"),
        query("sum(rate(audit_dropped_total{@node}[5m]))", "dropped"),
        unit="eps",
        stacked=True,
        legend="right",
    )
    board.row(8, (12, denials), (12, limited))
    board.row(8, (12, banned), (12, failed))
    board.row(9, (12, secrets), (12, audit))
    return board.json()


def performance() -> Json:
    board = Board("llmcfg-performance", "Performance", "Where time and resources go.", refresh="10s")
    latency = heatmap(
        "Latency Heatmap",
        "How many HTTP requests a second took how long; without watches, which stay open.",
        query(
            'sum by (le) (rate(http_request_duration_seconds_bucket{@node, route!="/api/v1/watch"}[$__rate_interval]))',
            "{{le}}",
            table="heatmap",
        ),
        y_unit="s",
        cell_unit="reqps",
    )
    operations = timeseries(
        "Operations Per Second",
        "Operations taken from clients, by their type; those that do not happen are left out.",
        query("sum by (operation) (rate(config_operations_total{@node}[5m])) > 0", "{{operation}}"),
        unit="ops",
        stacked=True,
        legend="right",
    )
    cache = timeseries(
        "Cache Performance",
        "Share of the lookups that each tier answered: l1 holds entries in memory, l2 is RocksDB's block cache. On "
        "the right, entries that left l1 for want of room. Target for l1: above 80 %; alert below 70 %.",
        query(
            "sum by (tier) (rate(cache_hits_total{@node}[5m]))"
            " / (sum by (tier) (rate(cache_hits_total{@node}[5m]))"
            " + sum by (tier) (rate(cache_misses_total{@node}[5m])) > 0)",
            "{{tier}} hit rate",
        ),
        query('sum(rate(cache_evictions_total{@node, tier="l1"}[5m]))', "l1 evictions"),
        unit="percentunit",
        lines=((0.7, "red"), (0.8, "green")),
        max=1,
        overrides=[right("B", "ops", max=None), dashed("B")],
    )
    database = timeseries(
        "Database Query Time",
        "95 % and 99 % of the storage engine's reads (get, scan), of the synced writes of the log and of the "
        "applied runs of entries take at most this long. Logarithmic.",
        query(
            "histogram_quantile(0.95, sum by (operation, le) "
            "(rate(storage_operation_duration_seconds_bucket{@node}[5m])))",
            "{{operation}} P95",
        ),
        query(
            "histogram_quantile(0.99, sum by (operation, le) "
            "(rate(storage_operation_duration_seconds_bucket{@node}[5m])))",
            "{{operation}} P99",
        ),
        query(
            "histogram_quantile(0.99, sum by (le) "
            "(rate(llm_config_raft_log_fsync_duration_seconds_bucket{@node}[5m])))",
            "log sync P99",
        ),
        query(
            "histogram_quantile(0.99, sum by (le) (rate(llm_config_raft_apply_duration_seconds_bucket{@node}[5m])))",
            "apply P99",
        ),
        unit="s",
        scale=LOG_SCALE,
    )
    resources = timeseries(
        "Resource Utilization",
        "Left: processor time and memory as shares of what a node may use. Right: bytes a second read from and "
        "written to disks, and moved over the network (of the whole machine, unless the node has a network of its "
        "own).",
        query("instance:cpu_usage:ratio_rate5m{@node}", "CPU {{instance}}"),
        query("instance:memory_usage:ratio{@node}", "memory {{instance}}"),
        query(
            "rate(process_io_read_bytes_total{@node}[5m]) + rate(process_io_written_bytes_total{@node}[5m])",
            "disk {{instance}}",
        ),
        query(
            "rate(process_network_receive_bytes_total{@node}[5m])"
            " + rate(process_network_transmit_bytes_total{@node}[5m])",
            "network {{instance}}",
        ),
        unit="percentunit",
        legend="right",
        overrides=[right("C", "binBps"), right("D", "binBps"), dashed("C"), dashed("D")],
    )
    pools = timeseries(
        "Connection Pools",
        "Left, logarithmic: open connections and requests being answered, and how many more are taken (broken "
        "lines). Right: how full the fullest of all these bounds is.",
        query("sum by (listener) (llm_config_connections{@node})", "{{listener}} active"),
        query("sum(llm_config_requests_in_flight{@node})", "requests active"),
        query(
            "sum by (listener) (llm_config_connections_max{@node} - llm_config_connections{@node})",
            "{{listener}} available",
        ),
        query(
            "sum(llm_config_requests_in_flight_max{@node} - llm_config_requests_in_flight{@node})",
            "requests available",
        ),
        query(
            "max(max(llm_config_connections{@node} / llm_config_connections_max{@node})"
            " or label_replace(max(llm_config_requests_in_flight{@node}"
            ' / llm_config_requests_in_flight_max{@node}), "of", "requests", "", "")'
            " or label_replace(max(llm_config_request_bytes_in_flight{@node}"
            ' / llm_config_request_bytes_in_flight_max{@node}), "of", "bytes", "", "")'
            " or label_replace(max(llm_config_watchers{@node}"
            ' / llm_config_watchers_max{@node}), "of", "watches", "", ""))',
            "fullest",
        ),
        unit="short",
        scale=SYMLOG_SCALE,
        legend="right",
        overrides=[
            dashed("C"),
            dashed("D"),
            right(
                "E",
                "percentunit",
                min=0,
                max=1,
                custom__scaleDistribution={"type": "linear"},
                custom__lineWidth=2,
            ),
        ],
    )
    board.row(9, (12, latency), (12, operations))
    board.row(9, (12, cache), (12, database))
    board.row(10, (12, resources), (12, pools))
    return board.json()


def key_metrics() -> Json:
    board = Board(
        "llmcfg-key-metrics",
        "Key Metrics",
        "The ten key metrics of the operations guide, each in the form that the guide gives it.",
        refresh="10s",
    )
    availability = stat(
        "Service Availability",
        "UP: a majority of the nodes answers Prometheus; and each node for itself. Target: 100 %, 99.9 % is "
        "acceptable; alert when the service is down for more than a minute.",
        query(
            "min(sum by (job, cluster) (up{@cluster}) > bool count by (job, cluster) (up{@cluster}) / 2)",
            "service",
            instant=True,
        ),
        query("up{@node}", "{{instance}}", instant=True),
        unit="none",
        text="value_and_name",
        mappings=values((0, "DOWN", "red"), (1, "UP", "green")),
        thresholds=steps("red", (1, "green")),
    )
    used = gauge(
        "Storage Size",
        "What each node stores, of 100 GiB. Target: below 80 %; alert above 90 %.",
        query("storage_size_bytes{@node}", "{{instance}}", instant=True),
        unit="bytes",
        thresholds=steps("green", (80 * GIB, "orange"), (90 * GIB, "red")),
        min=0,
        max=100 * GIB,
        decimals=1,
    )
    success = timeseries(
        "Request Success Rate",
        "Share of the HTTP requests that were not answered with a status of 500 or more, over the whole cluster. "
        "Target: above 99 % (the line).",
        query("job:http_success_rate:5m{@cluster}", "{{cluster}}"),
        unit="percentunit",
        lines=SUCCESS,
        bottom=0.95,
        max=1,
    )
    memory = timeseries(
        "Memory Usage",
        "Memory in use by each node, and what it may use (broken lines). Target: below 2 GiB; alert above 3.5 GiB.",
        query("process_resident_memory_bytes{@node}", "{{instance}}"),
        query("process_memory_limit_bytes{@node}", "limit of {{instance}}"),
        unit="bytes",
        lines=((2 * GIB, "yellow"), *MEMORY),
        top=4 * GIB,
        overrides=[dashed("B")],
    )
    operations = timeseries(
        "Configuration Operations",
        "Operations taken from clients, by their type; those that do not happen are left out.",
        query("sum by (operation) (rate(config_operations_total{@node}[5m])) > 0", "{{operation}}"),
        unit="ops",
        stacked=True,
        legend="right",
    )
    active = barchart(
        "Active Configurations",
        "Entries that exist, by environment.",
        query(
            "sum by (environment) (config_active_total{@cluster})",
            "{{environment}}",
            instant=True,
            table="table",
        ),
        label="environment",
        name="entries",
        unit="short",
    )
    board.row(6, (10, availability), (4, _hit_rate()), (10, used))
    board.row(
        8,
        (8, success),
        (8, _latency("Response Time (P95)")),
        (
            8,
            _errors(((0.01, "yellow"), (0.05, "red")), "Target: below 1 %; alert above 5 %."),
        ),
    )
    board.row(
        8,
        (12, _cpu(((0.7, "yellow"), *CPU), "Target: below 70 %; alert above 85 %.")),
        (12, memory),
    )
    board.row(9, (12, operations), (12, active))
    return board.json(
        order=[
            "Service Availability",
            "Request Success Rate",
            "Response Time (P95)",
            "Error Rate",
            "Cache Hit Rate",
            "Storage Size",
            "CPU Usage",
            "Memory Usage",
            "Configuration Operations",
            "Active Configurations",
        ]
    )
