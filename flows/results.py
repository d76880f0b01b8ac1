"""What comparisons and backtests leave: result.json with the facts, and the files that show them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.artifacts import Artifacts, Manifest

RESULT = "result.json"


def write_result(
    artifacts: Artifacts,
    kind: str,
    artifact_id: str,
    parents: Sequence[str],
    made: Callable[[], tuple[dict[str, Any], Mapping[str, str]]],
) -> Manifest:
    """The artifact `kind/artifact_id`, found, or written with what `made` gives: facts, and the text of further files."""
    if existing := artifacts.find(kind, artifact_id):
        return existing
    facts, texts = made()
    with artifacts.write(kind, artifact_id, parents=tuple(parents)) as draft:
        for name, text in {RESULT: json.dumps(facts, indent=2) + "\n", **texts}.items():
            (draft.folder / name).write_text(text, encoding="utf-8")
        draft.facts = facts
    return draft.manifest
