"""The pages of reports and days below a root, to be read in a browser on this machine: Prefect's UI opens no files of a disk.

    python -m flows.pages --root /artifacts --host 0.0.0.0      in a container, whose port is published on this machine

Only GET and HEAD of `/reports/ID/report.html`, `/profiles/ID/profile.html` and `/quality/DATASET/quality.html` are answered,
with what lies there, and `/health`. No other path is looked at, and nothing outside the root, by any link. Runs link to where
$OVERNIGHT_PAGES says that a browser finds them: `overnight serve` sets it, and so does compose.yaml.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VARIABLE = "OVERNIGHT_PAGES"  # where a browser finds the pages, for runs that begin while they are answered for
HOST, PORT = "127.0.0.1", 4210
HEALTH = "/health"
CLIENT_SECONDS = 60.0  # in which a client has to ask and to read
POLL_SECONDS = 0.1  # until the end of the block is seen
PAGE = re.compile(
    r"/(reports/[0-9a-f]{4,64}/report|profiles/[0-9a-f]{4,64}/profile|quality/[a-z0-9][a-z0-9_-]{0,99}/quality)\.html"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a day's page is made anew when the days before it change
}


@contextlib.contextmanager
def pages_of(root: Path) -> Iterator[str]:
    """Answer for the pages below a root while the block lasts, at the address that it gives."""
    server = _listen(root.resolve(), HOST, (PORT, 0))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    before, address = os.environ.get(VARIABLE), f"http://{HOST}:{server.server_address[1]}"
    os.environ[VARIABLE] = address
    try:
        yield address
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})
        server.shutdown()
        server.server_close()
        thread.join()


def link(page: Path, words: str) -> str:
    """A page in Markdown: a link where pages are answered for, else its path."""
    address, path = os.environ.get(VARIABLE, "").rstrip("/"), "/" + "/".join(page.parts[-3:])
    return f"[{words}]({address}{path})" if address and PAGE.fullmatch(path) else f"{words}: `{page}`"


def find(root: Path, path: str) -> Path | None:
    """The file of a path as a browser asks for it; None for all but a page that is there, within the root."""
    if not PAGE.fullmatch(path):
        return None
    file = root / path[1:]
    try:
        inside = file.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # not there, or links in a circle
        return None
    return file if inside and file.is_file() else None


def _listen(root: Path, host: str, ports: tuple[int, ...]) -> ThreadingHTTPServer:
    """A server at the first of these ports that is free: its own, so that links of earlier runs open, or any (0) after that."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "Overnight", ""
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            name = self.headers.get("Host", "").partition(":")[0]
            ours = name in (HOST, "localhost")  # and no name of somebody else's that leads here
            content = b"" if ours and self.path == HEALTH else None
            if ours and (file := find(root, self.path)):
                with contextlib.suppress(OSError):  # removed meanwhile, or not to be read
                    content = file.read_bytes()
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND if ours else HTTPStatus.FORBIDDEN)
                return
            self.send_response(HTTPStatus.OK)
            for header, value in HEADERS.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    for port in ports[:-1]:
        with contextlib.suppress(OSError):
            return _Server((host, port), Handler)
    return _Server((host, ports[-1]), Handler)


class _Server(ThreadingHTTPServer):
    """A server to which a browser that closes a connection is nothing to report."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    """Answer for the pages until it is ended."""
    options = argparse.ArgumentParser(prog="python -m flows.pages", description=__doc__.partition("\n")[0])
    options.add_argument("--root", type=Path, default=Path(os.environ.get("OVERNIGHT_ROOT", "overnight-data")))
    options.add_argument("--host", default=HOST)
    options.add_argument("--port", type=int, default=PORT)
    given = options.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        _listen(given.root.resolve(), given.host, (given.port,)).serve_forever()


if __name__ == "__main__":
    main()
