"""A router between models whose list, weights, fallbacks and limits change while it runs.

The namespace has the shape of LiteLLM's router: `router/model_list` and `router/settings`, and beside them the table of
models (name to price, context window, provider). With LiteLLM installed its own Router does the calls, else a small one
with the same settings. The models are a server in this file, so that no network is needed.

Endpoints come from LLM_CONFIG_ENDPOINTS, a token from LLM_CONFIG_TOKEN. It checks what it says, and exits with another
status than 0 when something is not so.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from llm_config import Client, LiveConfig, LlmConfigError, ParseError, Txn

ENDPOINTS = os.environ.get("LLM_CONFIG_ENDPOINTS", "http://127.0.0.1:8080")
CLAUDE = "bedrock/us.anthropic.claude-3:0"
JAMBA = "ai21.jamba-1-5-mini-v1:0"
NOVA = "amazon.nova-lite-v1:0"
TABLE = {
    CLAUDE: {"litellm_provider": "bedrock", "mode": "chat", "max_output_tokens": 4096},
    JAMBA: {"litellm_provider": "bedrock", "mode": "chat", "max_output_tokens": 512},
    NOVA: {"litellm_provider": "bedrock", "mode": "chat", "max_output_tokens": 2048},
}


@dataclass(frozen=True)
class Deployment:
    """One model behind a public name."""

    name: str
    model: str
    weight: int
    max_tokens: int


@dataclass(frozen=True)
class Routing:
    """What the router goes by."""

    deployments: tuple[Deployment, ...]
    fallbacks: Mapping[str, list[str]]
    max_tokens: int


def routing(values: Mapping[str, Any]) -> Routing:
    """The namespace as a routing; refuses one that could not route."""
    deployments = []
    for entry in values["router/model_list"]:
        name, params = entry["model_name"], entry["litellm_params"]
        model, weight = params["model"], params.get("weight", 1)
        if not isinstance(weight, int) or weight < 0:
            raise ParseError(f"router/model_list: {model}: weight must be a whole number from 0")
        if model not in values:
            raise ParseError(f"router/model_list: {model} is not in the table of models")
        deployments.append(Deployment(name, model, weight, values[model]["max_output_tokens"]))
    settings = values["router/settings"]
    fallbacks = {name: names for one in settings["fallbacks"] for name, names in one.items()}
    return Routing(tuple(deployments), fallbacks, settings["max_tokens"])


class SmallRouter:
    """Chooses by weight, and falls back when a model fails."""

    def __init__(self, config: Routing, api_base: str) -> None:
        self._config, self._api_base = config, api_base

    def complete(self, name: str, prompt: str) -> str:
        """The name of the model that answered."""
        for candidate in (name, *self._config.fallbacks.get(name, [])):
            group = [d for d in self._config.deployments if d.name == candidate and d.weight > 0]
            if not group:
                continue
            chosen = random.choices(group, [d.weight for d in group])[0]
            body = {
                "model": chosen.model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": min(self._config.max_tokens, chosen.max_tokens),
            }
            answer = httpx.post(f"{self._api_base}/chat/completions", json=body, timeout=5)
            if answer.status_code == 200:
                return str(answer.json()["model"])
        raise RuntimeError(f"no model answered for {name}")


class LiteLlmRouter:
    """The same by LiteLLM's Router."""

    def __init__(self, config: Routing, api_base: str) -> None:
        from litellm import Router

        model_list = [
            {
                "model_name": one.name,
                "litellm_params": {
                    "model": f"openai/{one.model}",
                    "api_base": api_base,
                    "api_key": "none",
                    "weight": one.weight,
                    "max_tokens": min(config.max_tokens, one.max_tokens),
                },
            }
            for one in config.deployments
            if one.weight > 0
        ]
        fallbacks = [{name: names} for name, names in config.fallbacks.items()]
        self._router = Router(model_list=model_list, fallbacks=fallbacks, num_retries=0)

    def complete(self, name: str, prompt: str) -> str:
        """The name of the model that answered."""
        messages = [{"role": "user", "content": prompt}]
        return str(self._router.completion(model=name, messages=messages).model)


def make_router(config: Routing, api_base: str) -> SmallRouter | LiteLlmRouter:
    """LiteLLM's Router if it is installed."""
    try:
        return LiteLlmRouter(config, api_base)
    except ImportError:
        return SmallRouter(config, api_base)


class Models(ThreadingHTTPServer):
    """A server that answers as every model, but for those that are down."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.down: set[str] = set()
        self.max_tokens_asked = 0


class Answering(BaseHTTPRequestHandler):
    """One request to a model."""

    server: Models

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = body["model"].removeprefix("openai/")
        self.server.max_tokens_asked = body["max_tokens"]
        message = {"role": "assistant", "content": "hello"}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        text = json.dumps(answer).encode()
        self.send_response(500 if model in self.server.down else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def model_list(claude: int, jamba: int) -> list[dict[str, Any]]:
    """Two models behind one name, and one to fall back to."""
    return [
        {"model_name": "chat", "litellm_params": {"model": CLAUDE, "weight": claude}},
        {"model_name": "chat", "litellm_params": {"model": JAMBA, "weight": jamba}},
        {"model_name": "chat-spare", "litellm_params": {"model": NOVA, "weight": 1}},
    ]


def check(holds: bool, words: str) -> None:
    if not holds:
        sys.exit(f"error: not so: {words}")
    print(f"ok: {words}")


def run(client: Client, models: Models) -> None:
    namespace = f"examples/router-{uuid.uuid4().hex[:8]}"
    api_base = f"http://127.0.0.1:{models.server_address[1]}"
    settings: dict[str, Any] = {"fallbacks": [{"chat": ["chat-spare"]}], "max_tokens": 1024}
    txn = Txn()
    for name, about in TABLE.items():
        txn.success.set(namespace, name, about)
    txn.success.set(namespace, "router/model_list", model_list(claude=1, jamba=0))
    txn.success.set(namespace, "router/settings", settings)
    client.commit(txn)

    with LiveConfig(client, namespace, env="production", parse=routing) as live:

        def answers(count: int = 20) -> set[str]:
            router = make_router(live.value, api_base)
            return {router.complete("chat", "hello") for _ in range(count)}

        def change(key: str, value: Any) -> None:
            entry = client.set(namespace, key, value)
            check(live.wait_for_revision(entry.revision, 20), f"{key} was changed while it runs")

        check(answers() == {CLAUDE}, "all requests go to the model that has all the weight")
        check(models.max_tokens_asked == 1024, "with the limit of the settings")
        change("router/model_list", model_list(claude=0, jamba=1))
        check(answers() == {JAMBA}, "all go to the other one now")
        check(models.max_tokens_asked == 512, "within what that model can")
        change("router/model_list", model_list(claude=1, jamba=1))
        check(answers(60) == {CLAUDE, JAMBA}, "both share by their weights")
        models.down = {CLAUDE, JAMBA}
        check(answers() == {NOVA}, "when both fail, the fallback answers")
        models.down = set()
        change("router/settings", {**settings, "max_tokens": 64})
        check(bool(answers()) and models.max_tokens_asked == 64, "the new limit holds")
        change("router/model_list", model_list(claude=-1, jamba=1))
        check(isinstance(live.last_error, ParseError), "a bad weight is told")
        check(answers(60) == {CLAUDE, JAMBA}, "and the last good routing goes on")


def main() -> None:
    models = Models()
    thread = threading.Thread(target=models.serve_forever)
    thread.start()
    try:
        with Client(ENDPOINTS, token=os.environ.get("LLM_CONFIG_TOKEN")) as client:
            run(client, models)
    finally:
        models.shutdown()
        thread.join()
        models.server_close()


if __name__ == "__main__":
    try:
        main()
    except LlmConfigError as error:
        sys.exit(f"error: {error}")
