"""A small server for one person on this machine. It answers nobody who does not know its address.

Other pages in the same browser must neither read nor write through it: it listens on 127.0.0.1 only, wants its own name
as Host (against DNS rebinding), its own origin for whatever changes something, and a random token in the path. Nothing
may frame, sniff or keep what it sends.
"""

from __future__ import annotations

import http.server
import secrets
import socketserver
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from selfplay.errors import UsageError

ADDRESS = "127.0.0.1"
MOST_BYTES = 1 << 16
"""Of a request's body."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Routes = Callable[[str, str, bytes], Answer | None]
"""Method, path below the token, and body in; None where nothing is there. Called by several threads."""


class Server(http.server.ThreadingHTTPServer):
    """Listens from the moment it is made; answers while `serve_forever` runs.

    Args:
        port: 0 takes any that is free.

    Raises:
        UsageError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, routes: Routes, port: int = 0) -> None:
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise UsageError(f"--port {port}: {error.strerror}; name another, or leave it out") from None
        self.routes = routes
        self.token = secrets.token_urlsafe(16)
        self.hosts = {f"{name}:{self.server_address[1]}" for name in (ADDRESS, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.token}/"

    def server_bind(self) -> None:
        # Without the look-up of its own name that HTTPServer does.
        socketserver.TCPServer.server_bind(self)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "selfplay", ""
    timeout = 30
    server: Server

    def do_GET(self) -> None:
        # Browsers ask for it by themselves, and complain where it is not there.
        icon = Answer(b"", "image/x-icon") if self.path == "/favicon.ico" else None
        self._send(icon or self._refusal() or self._found(b""))

    def do_POST(self) -> None:
        refused = self._refusal()
        size = self.headers.get("Content-Length", "")
        if refused is None and self.headers.get("Origin") is None:
            refused = _no("no origin")
        if refused is None and self.headers.get_content_type() != "application/json":
            refused = _no("not JSON", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        if refused is None and not (size.isascii() and size.isdecimal() and int(size) <= MOST_BYTES):
            refused = _no("too long", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if refused is not None:
            self.close_connection = True  # its body stays unread
        self._send(refused or self._found(self.rfile.read(int(size))))

    def _refusal(self) -> Answer | None:
        """What is said to whoever is not the page we sent; None to the page."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            return _no("wrong host")
        if any(origin != f"http://{hosts[0]}" for origin in self.headers.get_all("Origin") or []):
            return _no("wrong origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return _no("wrong site")
        token = self.path.split("/")[1] if self.path.count("/") > 1 else ""
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            return _no("wrong address; take the one that selfplay view printed")
        return None

    def _found(self, body: bytes) -> Answer:
        path = self.path.partition("?")[0].split("/", 2)[2]
        return self.server.routes(self.command, path, body) or _no("nothing there", HTTPStatus.NOT_FOUND)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the token stands in every line of it."""


def _no(why: str, status: HTTPStatus = HTTPStatus.FORBIDDEN) -> Answer:
    return Answer(why.encode(), status=status)
