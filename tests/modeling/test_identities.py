"""What a result is made by: code that it never runs may change, and it is not made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modeling.config import ModelConfig
from modeling.stages import identity
from schemas import closure, places, plugins
from schemas.artifacts import Manifest
from tests.schemas.own import part

ROOT = Path(__file__).parents[2]
Ids = dict[str, str]
BODY = """from modeling.bodies import Body
from modeling.bodies._self_attention import SelfAttention


class Mine(Body): ...
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the rooms, which the stages take for theirs."""
    for room in ("modeling", "schemas"):
        shutil.copytree(ROOT / room, tmp_path / "tree" / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "ROOT", tmp_path / "tree")
    return tmp_path / "tree"


def manifest_of(config: ModelConfig) -> Manifest:
    about: dict[str, Any] = {"parameters": {"model": config.model_dump(mode="json")}}
    return Manifest(kind="models", id="0" * 16, root="/", created=datetime.now(UTC), **about)


def ids(config: ModelConfig, baselines: tuple[str, ...] = ("popularity",)) -> Ids:
    """The code of every kind of result, by file contents of this moment."""
    for cached in (closure.code_of, closure._file_of, places.rows_of):
        cached.cache_clear()
    model = manifest_of(config)
    return {
        "model": identity.code_of_training(config),
        "evaluation": identity.code_of_evaluation(model, baselines),
        "comparison": identity.code_of_comparison(model),
    }


def changed_by(tree: Path, path: str, config: ModelConfig, edit: Callable[[str], str] | None = None) -> set[str]:
    """Which results are made again when a file of the tree changes."""
    before = ids(config)
    file = tree / path
    file.write_text(edit(file.read_text()) if edit else file.read_text() + "\n\nCHANGED = 1\n")
    return {kind for kind, after in ids(config).items() if after != before[kind]}


EVERY = {"model", "evaluation", "comparison"}
MEASURED = {"evaluation", "comparison"}


@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("modeling/bodies/sasrec.py", EVERY),
        ("modeling/bodies/__init__.py", EVERY),
        ("modeling/attention.py", EVERY),
        ("modeling/losses/gbce.py", EVERY),
        ("modeling/heads/binary.py", EVERY),
        ("modeling/objectives/causal.py", EVERY),
        ("modeling/parts.py", EVERY),
        ("schemas/features.py", EVERY),
        ("modeling/evaluation/ranking.py", EVERY),  # validation chooses the epoch by it
        ("modeling/training/schedule.py", {"model"}),
        ("modeling/stages/measure.py", MEASURED),
        ("modeling/service/recommender.py", MEASURED),
        ("modeling/evaluation/baselines/popularity.py", {"evaluation"}),
        ("modeling/evaluation/baselines/markov.py", set()),
        ("modeling/evaluation/compare.py", {"comparison"}),
        ("modeling/stages/comparing.py", {"comparison"}),
        ("modeling/stages/training.py", set()),
        ("modeling/presets/by_shape.py", set()),  # what it chooses is a setting like any other
        ("modeling/stages/memory.py", set()),
        ("modeling/bodies/hstu.py", set()),
        ("modeling/bodies/_table.py", set()),
        ("modeling/losses/bpr.py", set()),
        ("modeling/heads/regression.py", set()),
        ("modeling/objectives/masked.py", set()),
        ("modeling/presets/__init__.py", set()),
        ("modeling/presets/sasrec.yaml", set()),
        ("schemas/dataset.py", set()),
    ],
)
def test_a_result_is_made_again_when_code_that_it_runs_has_changed(tree: Path, path: str, again: set[str]) -> None:
    heads = {"next_item": None, "bought": {"name": "binary"}}
    config = ModelConfig.model_validate({"loss": {"name": "gbce"}, "heads": heads})
    assert changed_by(tree, path, config) == again


def test_a_new_file_or_a_rooms_own_test_changes_nothing(tree: Path) -> None:
    before = ids(ModelConfig())
    (tree / "modeling" / "bodies" / "newest.py").write_text("")
    (tree / "modeling" / "service" / "newest.py").write_text("")
    assert ids(ModelConfig()) == before


def test_of_a_table_the_row_counts_that_is_used(tree: Path) -> None:
    table, config = "modeling/bodies/_table.py", ModelConfig.model_validate({"body": {"name": "gpt_neox"}})
    assert changed_by(tree, table, config, lambda text: text.replace('"bert": Row("', '"bert": Row("Old ')) == set()
    assert (
        changed_by(tree, table, config, lambda text: text.replace('rope_theta": 10_000', 'rope_theta": 20_000'))
        == EVERY
    )
    assert changed_by(tree, "modeling/bodies/_hugging_face.py", config) == EVERY
    assert changed_by(tree, "modeling/bodies/_hugging_face.py", ModelConfig()) == set()
    further = ModelConfig.model_validate({"body": {"name": "opt"}})
    assert changed_by(tree, table, further, lambda text: text.replace("youtu", "youtoo")) == EVERY


def test_own_parts_count_by_what_they_hold_and_what_they_import(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    part(own, "bodies/mine.py", BODY)
    part(own, "bodies/other.py", BODY.replace("Mine", "Other"))
    part(own, "baselines/lucky.py", "from modeling.evaluation.baselines._baseline import Baseline\n")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(own))
    config = ModelConfig.model_validate({"body": {"name": "mine"}})
    assert changed_by(tree, "modeling/bodies/_self_attention.py", config) == EVERY
    assert changed_by(tree, "modeling/bodies/_post_norm.py", config) == set()
    before = ids(config), plugins.contents(config.parts)
    part(own, "bodies/other.py", "")
    assert (ids(config), plugins.contents(config.parts)) == before
    part(own, "bodies/mine.py", BODY + "\nCHANGED = 1\n")
    assert plugins.contents(config.parts) != before[1]
    alone, with_own = (ids(config, names)["evaluation"] for names in ((), ("lucky",)))
    assert alone != with_own  # it imports what no other part of this evaluation does


def test_code_that_is_imported_for_types_alone_or_relatively(tmp_path: Path) -> None:
    for path, text in (
        ("schemas/__init__.py", ""),
        (
            "schemas/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from schemas import types\nfrom . import b\n",
        ),
        ("schemas/b.py", "def later():\n    from schemas.inner.c import name\n"),
        ("schemas/inner/__init__.py", "from ..d import x\n"),
        ("schemas/inner/c.py", "from . import e as other\nimport json\nimport library\n"),
        ("library/__init__.py", "from library import more\n"),  # as next to a wheel's rooms
        *((f"schemas/{name}.py", "") for name in ("types", "d", "inner/e", "unused")),
    ):
        part(tmp_path, path, text)
    assert closure._closure(tmp_path, ["schemas.a"]) == {
        "schemas", "schemas.a", "schemas.b", "schemas.inner", "schemas.inner.c", "schemas.inner.e", "schemas.d",
    }  # fmt: skip


def test_a_model_that_this_code_cannot_read_has_no_parts() -> None:
    model = manifest_of(ModelConfig()).model_copy(update={"parameters": {"model": {"boddy": 3}}})
    assert identity.parts_of(model) == {} and identity.code_of_evaluation(model, ())
