"""An application that starts although no node answers, with the last configuration that it knew.

The first half needs a cluster (LLM_CONFIG_ENDPOINTS, LLM_CONFIG_TOKEN); the second asks where nobody listens. It checks
what it says, and exits with another status than 0 when something is not so.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from llm_config import Client, LiveConfig, LlmConfigError, NotSent

ENDPOINTS = os.environ.get("LLM_CONFIG_ENDPOINTS", "http://127.0.0.1:8080")
NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Assistant:
    model: str
    max_tokens: int = 1024


def check(holds: bool, words: str) -> None:
    if not holds:
        sys.exit(f"error: not so: {words}")
    print(f"ok: {words}")


def main() -> None:
    namespace = f"examples/offline-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "assistant.cache")
        with Client(ENDPOINTS, token=os.environ.get("LLM_CONFIG_TOKEN")) as client:
            client.set(namespace, "model", "claude", env="production")
            with LiveConfig(
                client, namespace, env="production", parse=Assistant, cache_file=cache
            ) as live:
                check(live.value == Assistant("claude"), "the configuration is a dataclass")
                entry = client.set(namespace, "max_tokens", 256)
                check(live.wait_for_revision(entry.revision, 20), "a change arrives by itself")
                check(live.value.max_tokens == 256, "and is what was written")

        with (
            Client(NOBODY, timeout=1.0) as client,
            LiveConfig(
                client, namespace, env="production", parse=Assistant, cache_file=cache
            ) as live,
        ):
            check(live.value == Assistant("claude", 256), "without a node the cache file serves")
            check(live.source == "cache", "and says that it does")
            check(isinstance(live.last_error, NotSent), "and why")
            print(f"the cluster confirmed it {live.age:.1f} s ago")


if __name__ == "__main__":
    try:
        main()
    except LlmConfigError as error:
        sys.exit(f"error: {error}")
