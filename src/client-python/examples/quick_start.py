"""Write, read, watch and transact: the calls in the order in which one meets them.

Endpoints come from LLM_CONFIG_ENDPOINTS, a token from LLM_CONFIG_TOKEN; `make run` serves the default. It checks what it
says, and exits with another status than 0 when something is not so.
"""

from __future__ import annotations

import os
import sys
import uuid

from llm_config import Client, LlmConfigError, Txn, VersionConflict

ENDPOINTS = os.environ.get("LLM_CONFIG_ENDPOINTS", "http://127.0.0.1:8080")


def check(holds: bool, words: str) -> None:
    if not holds:
        sys.exit(f"error: not so: {words}")
    print(f"ok: {words}")


def main() -> None:
    namespace = f"examples/quick-start-{uuid.uuid4().hex[:8]}"
    with Client(ENDPOINTS, token=os.environ.get("LLM_CONFIG_TOKEN")) as client:
        entry = client.set(namespace, "temperature", 0.2, comment="first rollout")
        check(entry.version == 1, "a new entry has version 1")
        check(client.get(namespace, "temperature").value == 0.2, "a write is seen by the next read")

        try:
            client.set(namespace, "temperature", 0.9, expected_version=0)
        except VersionConflict as conflict:
            check(conflict.current_version == 1, "a conflict names the version that is there")
        else:
            sys.exit("error: two writers made the same entry")

        key = str(uuid.uuid4())
        client.set(namespace, "model", "claude", env="production", idempotency_key=key)
        again = client.set(namespace, "model", "claude", env="production", idempotency_key=key)
        check(again.version == 1, "a retry is not a second write")

        txn = Txn().compare(namespace, "temperature", 1)
        txn.success.set(namespace, "temperature", 0.3).set(namespace, "top_p", 0.9)
        check(client.commit(txn).succeeded, "a transaction changes two entries at once")

        resolved = client.resolve(namespace, env="production")
        check(
            dict(resolved.sources)
            == {"model": "production", "temperature": "base", "top_p": "base"},
            "production falls back to base",
        )

        with client.watch(namespace, from_revision=entry.revision) as watch:
            seen = [next(watch) for _ in range(4)]
        check(
            [event.entry.key for event in seen if event.entry is not None]
            == ["temperature", "model", "temperature", "top_p"],
            "a watch has every change once, in order",
        )


if __name__ == "__main__":
    try:
        main()
    except LlmConfigError as error:
        sys.exit(f"error: {error}")
