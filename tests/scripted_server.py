"""A server on 127.0.0.1 that answers what a test tells it to, faults included."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What to send: `body` bytes or a JSON value; `cut` bytes of it only, and then the connection is dropped."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang: float = 0.0


@dataclass
class Scripted:
    """A running server. `seen` holds (path, payload) of every request in order of arrival."""

    url: str
    seen: list[tuple[str, Any]]
    answer: Callable[[str, Any], Answer]
    stopped: threading.Event

    def payloads(self, path: str = "/generate") -> list[Any]:
        return [payload for seen, payload in self.seen if seen == path]


@contextmanager
def scripted(answer: Callable[[str, Any], Answer], port: int = 0) -> Iterator[Scripted]:
    """Serves `answer(path, payload)` until the block ends."""
    server: Scripted

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            self._serve(None)

        def do_POST(self) -> None:
            self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null"))

        def _serve(self, payload: Any) -> None:
            server.seen.append((self.path, payload))
            # Connections kept alive outlast the listening socket; a dead server answers on none of them.
            reply = Answer(cut=0) if server.stopped.is_set() else server.answer(self.path, payload)
            if reply.hang:
                server.stopped.wait(reply.hang)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                if reply.cut == 0:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: reply.cut])
                if reply.cut is not None:
                    self.close_connection = True
            except OSError:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 128

        def handle_error(self, *args: Any) -> None: ...

    with Server(("127.0.0.1", port), Handler) as http:
        server = Scripted(f"http://127.0.0.1:{http.server_address[1]}", [], answer, threading.Event())
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            http.shutdown()
            thread.join()


def closed_port() -> int:
    """A port that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
