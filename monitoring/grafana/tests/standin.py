"""A stand-in for Prometheus: answers every query, with what the test says."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Labels, and the value at a time.
Found = list[tuple[dict[str, str], Callable[[float], float]]]
# From the fields of a query to what it finds, or to the words of an error.
Answer = Callable[[dict[str, str]], Found | str]

_DEADLINE_SECONDS = 10


def _result(path: str, fields: dict[str, str], answer: Answer) -> dict[str, Any]:
    found = answer(fields)
    if isinstance(found, str):
        return {"status": "error", "errorType": "execution", "error": found}
    result: list[dict[str, Any]]
    if path.endswith("/query_range"):
        start, end, step = (float(fields[name]) for name in ("start", "end", "step"))
        times = [start + at * step for at in range(int((end - start) / step) + 1)]
        result = [{"metric": labels, "values": [[at, str(value(at))] for at in times]} for labels, value in found]
    else:
        at = float(fields["time"])
        result = [{"metric": labels, "value": [at, str(value(at))]} for labels, value in found]
    return {"status": "success", "data": {"result": result}}


@contextmanager
def prometheus(answer: Answer) -> Iterator[str]:
    """The address of one that answers like this, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _DEADLINE_SECONDS

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = dict(urllib.parse.parse_qsl(body))
            result = _result(self.path, fields, answer)
            text = json.dumps(result).encode()
            self.send_response(200 if result["status"] == "success" else 422)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(_DEADLINE_SECONDS)
        server.server_close()
