"""Run moto's S3 server in this process, logging each request as one line of JSON."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple


class Logged:
    """The application, with a line for each answer."""

    def __init__(self, application: Callable[..., Iterable[bytes]], path: str) -> None:
        self._application = application
        self._file = open(path, "a", buffering=1)  # noqa: SIM115

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def respond(status: str, *rest: Any) -> Any:
            line = {
                "method": environ["REQUEST_METHOD"],
                "path": environ["PATH_INFO"],
                "query": environ.get("QUERY_STRING", ""),
                "range": environ.get("HTTP_RANGE"),
                "status": int(status.split(maxsplit=1)[0]),
            }
            self._file.write(json.dumps(line) + "\n")
            return start_response(status, *rest)

        return self._application(environ, respond)


class Quiet(WSGIRequestHandler):
    """No line on stderr for each request."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None: ...


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main(port: str, log: str) -> None:
    """Serve until terminated."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    application = Logged(DomainDispatcherApplication(create_backend_app), log)
    run_simple("127.0.0.1", int(port), application, threaded=True, request_handler=Quiet)


if __name__ == "__main__":
    main(*sys.argv[1:])
