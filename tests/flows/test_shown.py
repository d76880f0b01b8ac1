"""`overnight shown` in the terminal, of what strangers send."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flows.shown import shown
from modeling.service.api.limits import Limits
from modeling.service.api.tracked import read_events
from modeling.service.tracking.store import Store, tracked_folder
from schemas.errors import InputError


def track(root: Path, body: str) -> None:
    store = Store(tracked_folder(root, "corner"), "plain")
    store.start()
    store.submit(read_events(body.encode(), Limits(), late=timedelta(days=7)).records).result(60)
    store.stop()


def test_names_that_clients_send_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, '{"event": "click", "item": "a", "model": "[/x]", "source": "\\u001b[31m<b>", "user_id": "ann"}')
    shown("corner", tmp_path, 2, False)
    printed = capsys.readouterr().out
    assert "[/x]" in printed and "?[31m<b>" in printed and "\x1b" not in printed
    assert "<b>" not in (tmp_path / "quality" / "corner" / "quality.html").read_text()


def test_nothing_shown_yet_is_a_page(tmp_path: Path) -> None:
    tracked_folder(tmp_path, "corner").mkdir(parents=True)
    shown("corner", tmp_path, 1, False)
    assert (tmp_path / "quality" / "corner" / "quality.html").exists()


@pytest.mark.parametrize("name", ["..", "../tracked/corner", "corner/.", "."])
def test_a_path_is_no_name(tmp_path: Path, name: str) -> None:
    tracked_folder(tmp_path, "corner").mkdir(parents=True)
    with pytest.raises(InputError, match="Nothing was tracked"):
        shown(name, tmp_path, 1, False)
    assert not list(tmp_path.rglob("*.html"))
