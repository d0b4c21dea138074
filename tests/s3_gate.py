"""An HTTP server in front of an S3 server: a test sees each request, and may act first or refuse it."""

import contextlib
import dataclasses
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.s3_servers import S3Server

PASS = 200
HANG_UP = 0
_OURS = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request before it reaches the server; `path` is /bucket/key as text."""

    method: str
    path: str
    range: str | None
    signed: bool

    @property
    def span(self) -> tuple[int, int] | None:
        """The first byte asked for and the one after the last."""
        if self.range is None:
            return None
        first, last = self.range.removeprefix("bytes=").split("-")
        return int(first), int(last) + 1


Guard = Callable[[Asked], int]


@dataclass(slots=True)
class Gate:
    """What was asked for, in order; `guard` says PASS, HANG_UP or the status to answer with instead."""

    server: S3Server
    guard: Guard = lambda asked: PASS
    asked: list[Asked] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def gate_before(server: S3Server) -> Iterator[Gate]:
    """Run a gate on loopback; `gate.server` is what a job is told of."""
    gate = Gate(server)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(gate, server.endpoint)) as gatekeeper:
        gatekeeper.daemon_threads = True
        gate.server = dataclasses.replace(server, endpoint=f"http://127.0.0.1:{gatekeeper.server_port}")
        thread = threading.Thread(target=gatekeeper.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield gate
        finally:
            gatekeeper.shutdown()
            thread.join()


def _handler(gate: Gate, endpoint: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path)
            signed = "Authorization" in self.headers
            asked = Asked(self.command, path, self.headers.get("Range"), signed)
            gate.asked.append(asked)
            verdict = gate.guard(asked)
            if verdict == PASS:
                self.pass_on(body)
            elif verdict == HANG_UP:
                self.close_connection = True
            else:
                self.answer(verdict, [], b"<Error><Code>AccessDenied</Code></Error>")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815

        def pass_on(self, body: bytes) -> None:
            with contextlib.closing(http.client.HTTPConnection(urlsplit(endpoint).netloc)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                self.answer(answer.status, answer.getheaders(), answer.read())

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            said = {name.lower(): value for name, value in headers}
            length = said.get("content-length", "0") if self.command == "HEAD" else str(len(body))
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _OURS:
                    self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    return Handler
