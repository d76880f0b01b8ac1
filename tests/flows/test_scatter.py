"""A night measures the scatter between seeds before it compares, and says what it counted with."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from flows import stages
from flows.settings.settings import Data, Settings, resolve
from modeling.evaluation.pointer import put_in_service

LITTLE = {
    "training": {"epochs": 1, "tokens_per_step": 64, "threads": 1},
    "body": {"dim": 16, "num_layers": 1},
    "evaluation": {"baselines": [], "lists": 0},
    "promotion": {"seed_scatter_every": 7, "seed_scatter_seeds": 1},
}


def night(shop: Path, root: Path, day: int) -> Settings:
    return resolve(Data(source=str(shop), root=root, until=date(2026, 3, day)), None, LITTLE)


def test_the_verdict_of_a_night_counts_with_what_was_measured(shop: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = night(shop, tmp_path, 4)
    sessions = stages.prepare(settings, lines.append)
    first = stages.train(settings, sessions, lines.append)
    put_in_service(settings.artifacts, "demo", first.name, by="promote")
    settings = night(shop, tmp_path, 5)
    sessions = stages.prepare(settings, lines.append)
    evaluation = stages.evaluate(settings, stages.train(settings, sessions, lines.append), sessions, lines.append)
    assert not (tmp_path / "scatters").exists()
    comparison = stages.compare(settings, evaluation, sessions, lines.append)
    assert any("1 more training, of seed 18" in str(line) for line in lines)
    (measured,) = (
        settings.artifacts.read_manifest("scatters", path.name) for path in (tmp_path / "scatters").iterdir()
    )
    assert measured and measured.facts["day"] == "2026-03-05"
    assert comparison.facts["seed_scatter"] == max(measured.facts["variance"], 0.0) ** 0.5
    assert stages.compare(settings, evaluation, sessions, lines.append).reused
