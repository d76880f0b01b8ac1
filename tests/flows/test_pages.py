"""The pages that `overnight serve` answers for: reports and days below the root, and nothing else."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.pages import VARIABLE, find, link, pages_of
from tests.flows.conftest import LONG_SECONDS, clean_environment, free_port

REPORT = "/reports/1f2e3d4c/report.html"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a page of each kind, and next to it a page that is not to be read."""
    below = tmp_path / "root"
    for page in ("reports/1f2e3d4c/report.html", "profiles/0a1b2c3d/profile.html", "reports/1f2e3d4c/manifest.json"):
        (below / page).parent.mkdir(parents=True, exist_ok=True)
        (below / page).write_text(f"<p>{page}</p>")
    (tmp_path / "secret" / "report.html").parent.mkdir()
    (tmp_path / "secret" / "report.html").write_text("secret")
    return below


def ask(address: str, path: str, method: str = "GET", host: str = "") -> tuple[int, str, dict[str, str]]:
    """A path as it is, which no client tidies up."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=600)
    connection.putrequest(method, path, skip_host=bool(host))
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def test_a_page_is_read_and_cannot_load_or_run_anything(root: Path) -> None:
    with pages_of(root) as address:
        status, text, headers = ask(address, REPORT)
        assert (status, text) == (200, "<p>reports/1f2e3d4c/report.html</p>")
        assert headers["Content-Type"].startswith("text/html") and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert ask(address, "/profiles/0a1b2c3d/profile.html")[0] == 200
        assert ask(address, REPORT, "HEAD")[:2] == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/reports",
        "/reports/1f2e3d4c/",
        "/reports/1f2e3d4c/manifest.json",
        "/reports/1f2e3d4c/profile.html",
        "/reports/ffffffff/report.html",
        "/reports/../../secret/report.html",
        "/reports/1f2e3d4c/../../../secret/report.html",
        "/reports/%2e%2e/report.html",
        "/reports/%2e%2e%2f%2e%2e%2fsecret/report.html",
        "/reports/..%5c..%5csecret/report.html",
        "/reports//report.html",
        "/REPORTS/1F2E3D4C/report.html",
        f"{REPORT}?x=1",
        f"{REPORT}/",
        f"{REPORT}%00",
        "/etc/passwd",
        "/quality/shop/other.html",
        "/quality/../quality.html",
        "/quality/../../secret/quality.html",
        "/quality/.hidden/quality.html",
        f"http://127.0.0.1{REPORT}",
    ],
)
def test_no_other_path_is_answered(root: Path, path: str) -> None:
    with pages_of(root) as address:
        status, text, _ = ask(address, path)
        assert status == 404 and "secret" not in text.replace(path, "")
    assert find(root, path) is None


def test_links_that_leave_the_root_are_not_followed(root: Path) -> None:
    (root / "reports" / "aaaa1111").symlink_to(root.parent / "secret")
    (root / "reports" / "bbbb2222").mkdir()
    (root / "reports" / "bbbb2222" / "report.html").symlink_to(root.parent / "secret" / "report.html")
    (root / "reports" / "cccc3333").symlink_to(root / "reports" / "cccc3333")
    (root / "reports" / "dddd4444" / "report.html").mkdir(parents=True)
    for name in ("aaaa1111", "bbbb2222", "cccc3333", "dddd4444"):
        assert find(root, f"/reports/{name}/report.html") is None
    (root.parent / "moved").symlink_to(root)
    assert find(root.parent / "moved", REPORT) is not None, "the root itself may be a link"


def test_nothing_is_changed_and_no_other_name_leads_there(root: Path) -> None:
    with pages_of(root) as address:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask(address, REPORT, method)[0] == 501
        assert ask(address, REPORT, host="shop.example:4210")[0] == 403
        assert ask(address, REPORT, host="localhost:4210")[0] == 200


def test_a_second_root_gets_an_address_of_its_own(root: Path, tmp_path: Path) -> None:
    with pages_of(root) as first, pages_of(tmp_path) as second:
        assert first != second
        assert ask(first, REPORT)[0] == 200 and ask(second, REPORT)[0] == 404


def test_a_page_is_a_link_while_pages_are_answered_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    page = root / REPORT[1:]
    assert link(page, "The whole report") == f"The whole report: `{page}`"
    with pages_of(root) as address:
        assert link(page, "The whole report") == f"[The whole report]({address}{REPORT})"
        assert link(page.parent / "other.html", "Another") == f"Another: `{page.parent / 'other.html'}`"
    assert VARIABLE not in os.environ


def test_in_a_container_the_pages_are_answered_for_by_themselves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose.yaml starts it, but for the port: the links that a run makes there lead to what this one answers."""
    port = free_port()
    command = [sys.executable, "-m", "flows.pages", "--host", "0.0.0.0", "--port", str(port)]
    process = subprocess.Popen(command, env=clean_environment() | {"OVERNIGHT_ROOT": str(root)})
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                assert ask(address, "/health")[:2] == (200, "")
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                time.sleep(0.1)
        monkeypatch.setenv(VARIABLE, address)
        linked = link(root / REPORT[1:], "The whole report")
        assert linked == f"[The whole report]({address}{REPORT})"
        assert ask(address, REPORT)[:2] == (200, "<p>reports/1f2e3d4c/report.html</p>")
        assert ask(address, REPORT, host="evil.example")[0] == 403
    finally:
        process.terminate()
        assert process.wait(LONG_SECONDS) != 1


def test_a_browser_that_goes_away_and_a_page_that_cannot_be_read_leave_no_traceback(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "reports" / "1f2e3d4c" / "report.html").write_text("x" * 20_000_000)
    with pages_of(root) as address:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
                gone.sendall(f"GET {REPORT} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                gone.recv(1)
        monkeypatch.setattr("flows.pages.find", lambda root, path: root / "reports" / "removed" / "report.html")
        assert ask(address, REPORT)[0] == 404, "as prune removes it between the look and the read"
        time.sleep(0.2)  # the threads of those that went away
    assert "Traceback" not in capfd.readouterr().err
