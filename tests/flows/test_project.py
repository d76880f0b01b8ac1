"""The stages of a night from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pytest

from flows.project import Project
from flows.reports.scatter import COLORS, draw_scatter
from schemas.errors import InputError

QUICK: dict[str, Any] = {
    "body": {"dim": 8, "num_layers": 1},
    "training": {"epochs": 1, "tokens_per_step": 512, "threads": 1},
}


@pytest.fixture(scope="module")
def project(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project("demo", source=shop, root=tmp_path_factory.mktemp("root"), say=None)


def test_models_are_measured_on_the_same_days_as_by_hand(project: Project) -> None:
    models = {"plain": QUICK, "wide": QUICK | {"body": {"dim": 16, "num_layers": 1}}}
    comparison = project.compare(models, folds=2, baselines=["popularity"])
    assert (comparison.folder / "comparison.html").is_file()
    totals, by_fold = project.results(comparison), project.results(comparison, by_fold=True)
    assert totals["model"].to_list() == ["plain", "wide", "popularity"]
    assert by_fold["fold"].n_unique() == 2 and by_fold.height == 2 * 3
    assert {"ndcg@20", "recall@10", "map@10", "serendipity@10", "avg_rec_popularity@10"} <= set(totals.columns)
    sessions = project.prepare()
    model = project.train(sessions, **models["wide"])
    assert model.reused, "what was done before is not done again"
    by_hand = project.metrics(project.evaluate(model, sessions, baselines=["popularity"]))
    assert by_hand["model"].to_list() == ["sasrec", "popularity"]
    for name, row in (("wide", 0), ("popularity", 1)):
        measured = by_fold.filter(fold=by_fold["fold"].max(), model=name).drop(
            "fold", "model", cs.contains("intra_list")
        )
        assert measured.row(0) == pytest.approx(by_hand.select(measured.columns).row(row))
    assert len(project.recommender(model).recommend([["no-such-item"]], k=3)[0]) == 3


def test_what_does_not_fit_is_refused_before_any_work(project: Project, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Unknown dataset"):
        Project("demoo", source=shop)
    (tmp_path / "file").write_text("")
    for root in ("file", "file/below/it"):
        with pytest.raises(InputError, match=f"root .*{tmp_path / 'file'} is a file. Give a folder"):
            Project("demo", source=shop, root=tmp_path / root)
    assert Project("demo", source=shop, root=tmp_path / "not" / "yet").settings() and not (tmp_path / "not").exists()
    with pytest.raises(InputError, match="bodies"):
        project.settings(bodies="gru4rec")
    for wrong, why in (
        ({"popularity": QUICK}, "'popularity' is the name of a baseline"),
        ({"mine": {"evaluation": {"cutoffs": [5]}}}, "'mine' sets evaluation, which is the same for all"),
        ({"mine": {"preset": "sasrecc"}}, "Unknown preset 'sasrecc'"),
        ({"mine": {"training": {"start_from": "champion"}}}, "'mine' has training.start_from"),
        ({}, "There is no model to compare"),
        ({"": QUICK}, "'' is no name for a model"),
        ({"two\nlines": QUICK}, "is no name for a model"),
        ({1: QUICK}, "1 is no name for a model"),
        ({"mine": None}, "its settings are a mapping of groups"),
    ):
        with pytest.raises(InputError, match=why):
            project.compare(wrong)
    for folds in (99, 0, -1):
        with pytest.raises(InputError, match=str(folds)):
            project.compare({"mine": QUICK}, folds=folds)
    for wrong_days in ({"until": "yesterday"}, {"days": 1}, {"days": "many"}):
        with pytest.raises(InputError, match=next(iter(wrong_days))):
            project.prepare(**wrong_days)  # type: ignore[arg-type]
    assert project.prepare(until=str(project.prepare().facts["test_day"])).name == project.prepare().name  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Nothing is in service for 'demo'"):
        project.recommender()


def test_lines_are_said_to_whom_they_are_given(shop: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    Project("demo", source=shop, root=tmp_path, say=lines.append).prepare()
    assert any("rows" in line for line in lines)


def test_a_scatter_has_a_point_for_each_row_and_each_mean() -> None:
    table = pl.DataFrame({"model": ["a", "a", "b"], "x": [1.0, 3.0, 5.0], "y": [0.1, None, 0.3]})
    drawn = draw_scatter(pl.concat([table, table[:1].with_columns(x=2.0)]), "x", "y")
    assert drawn.count('r="2.5"') == 2 and drawn.count('r="6"') == 2 and COLORS[1] in drawn
    assert "a: x 1.5, y 0.1" in drawn and "<script" not in drawn
    assert "&lt;b&gt;" in draw_scatter(table.with_columns(model=pl.lit("<b>")), "x", "y")
    with pytest.raises(InputError, match="Unknown column 'z'"):
        draw_scatter(table, "x", "z")
