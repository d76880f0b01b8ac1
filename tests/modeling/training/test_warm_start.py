"""Training that starts from another night's model: what it takes over, where new rows begin, which nights start from what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.pointer import pointer_of, put_in_service
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.splits import Split, folds, replay_then_newest, split_sessions
from modeling.stages import train
from modeling.stages.parent import Parent, replay_of, warmed
from modeling.training.checkpoints import OPTIMIZER
from modeling.training.fit import fit, make_model, set_seed
from modeling.training.growing import grown, same_features
from modeling.training.moments import parameter_names
from modeling.training.optimizer import make_optimizer
from modeling.training.warm_start import Start, read_start
from modeling.vocabularies import translate
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema
from tests.modeling.training.test_fit import Interrupt, same_weights

CONFIG = TrainingConfig(epochs=2, tokens_per_step=64, learning_rate=3e-3, threads=1, window_days=1)
WARM = CONFIG.model_copy(update={"start_from": "champion", "window_days": 1})
DAYS = ("2026-03-04", "2026-03-05", "2026-03-06")


def quiet(line: object) -> None:
    """No progress."""


def model_config(**groups: Any) -> ModelConfig:
    heads = {"next_item": {"bias": True}}
    return ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}, "heads": heads} | groups)


@dataclass(frozen=True)
class Nights:
    """A shop of five days, its sessions up to each of the last three, and the first night's model."""

    root: Path
    sessions: tuple[Manifest, ...]
    first: Manifest

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.root)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    simulate(Shop(days=5, users=150, items=120, share_new=0.2, seed=5), folder)
    artifacts, dataset = Artifacts(folder / "root"), read_dataset("demo").at(folder)
    prepared = [prepare(artifacts, dataset, until=date.fromisoformat(day), progress=quiet) for day in DAYS]
    first = train(artifacts, prepared[0], model_config(), WARM, quiet)
    return Nights(folder / "root", tuple(prepared), first)


@pytest.fixture
def in_service(nights: Nights) -> Any:
    """Puts models into service for the test, and nothing after it."""
    yield lambda model: put_in_service(nights.artifacts, "demo", model.name, by="promote")
    pointer_of(nights.artifacts, "demo").unlink(missing_ok=True)


def start_of(nights: Nights, night: int = 1, config: ModelConfig | None = None) -> tuple[Start, Split, pl.DataFrame]:
    sessions = nights.sessions[night]
    split = split_sessions(sessions, FeatureSchema.read(sessions.folder / "schema.json"), 50)
    items = pl.read_parquet(sessions.folder / "items.parquet")
    reads_N = replay_then_newest(split, DAYS[night - 1], 0.2, 17)
    return read_start(nights.first.folder, sessions.folder, config or model_config(), reads_N, items), split, items


def given(start: Start, split: Split, items: pl.DataFrame, folder: Path) -> SequenceModel:
    schema = FeatureSchema.read(folder / "schema.json")
    set_seed(17)
    train_on = split.train.select(start.reads_N)
    model = make_model(model_config(), schema, train_on, split, items, quiet)
    start.give(model, split.train, items)
    return model.eval()


@torch.no_grad()
def scores(model: SequenceModel, histories: Sessions) -> torch.Tensor:
    """Scores of the catalogue for each history but for the bias of items, [S, V]."""
    head = model.next_item
    return head.query(model.states(histories)) @ head.catalogue(model.inputs.items).T


def test_a_new_row_begins_at_the_mean_of_its_group_else_with_mean_and_spread() -> None:
    old = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 6.0], [5.0, 100.0]])
    row_V = torch.tensor([0, 2, 1, -1, -1, -1])
    close = torch.tensor([-1, 0, 0, 0, 1, -1])  # row 3 is like rows 1 and 2, row 4 like none
    wide = torch.tensor([-1, 0, 0, 0, 0, -1])
    table = grown(old, row_V, [close, wide])
    assert table[:3].tolist() == [[0.0, 0.0], [3.0, 6.0], [1.0, 2.0]]
    assert table[3].tolist() == table[4].tolist() == [2.0, 4.0]
    many = grown(torch.randn(200, 3) * 0.1 + 5, torch.cat([torch.arange(200), torch.full((500,), -1)]))[200:]
    assert many.mean().item() == pytest.approx(5, abs=0.05)
    assert many.std().item() == pytest.approx(0.1, abs=0.02)


def test_items_are_alike_in_all_features_first_then_in_each() -> None:
    about = {"kind": "categorical", "dtype": "int32", "cardinality": 9, "per_item": True}
    columns = [FeatureColumn(name=name, source=name, **about) for name in (ITEM_ID, "kind", "brand")]
    columns[0] = columns[0].model_copy(update={"cardinality": 9, "per_item": False})
    schema = FeatureSchema(dataset="test", max_length=9, split="day", columns=tuple(columns))
    items = pl.DataFrame({"id": [3, 4, 5, 6, 7, 8], "kind": [3, 3, 3, 4, 2, 3], "brand": [3, 3, 4, 5, 5, 6]})
    both, brand, kind = same_features(schema, items)
    assert both[3] == both[4] != both[5]
    assert both[7] == -1  # its kind is unknown
    assert brand[6] == brand[7]
    assert kind[3] == kind[5] != kind[6]
    assert kind[:3].tolist() == [-1, -1, -1]


def test_before_its_first_step_it_scores_as_the_other_model_does(nights: Nights) -> None:
    start, split, items = start_of(nights)
    sessions = nights.sessions[1]
    model = given(start, split, items, sessions.folder)
    parent_ids = start._trained(ITEM_ID, start._item_rows_trained())
    id_E = parent_ids[split.test.history.items.long()]
    held = (id_E >= FIRST_ID) & start.parent.inputs.items.reached.reached_V[id_E.clamp(min=0)]
    session, event = split.test.history.event_index()
    all_held = torch.ones(len(split.test.target), dtype=torch.bool).index_put_(
        (session[~held[event]],), torch.tensor(False)
    )
    cases = split.test.select(all_held & (split.test.history.lengths > 0))
    assert len(cases.target) > 20
    theirs = scores(start.parent, translate(cases, sessions.folder, nights.first.folder).history)
    mine = scores(model, cases.history)
    shared_V = parent_ids[FIRST_ID:] >= FIRST_ID
    assert not bool(shared_V.all())  # items came up since
    torch.testing.assert_close(
        mine[:, shared_V], theirs[:, parent_ids[FIRST_ID:][shared_V] - FIRST_ID], atol=1e-4, rtol=1e-4
    )


def test_scores_of_items_begin_at_the_newest_days_popularity(nights: Nights) -> None:
    start, split, items = start_of(nights)
    bias_V = given(start, split, items, nights.sessions[1].folder).next_item.bias_V
    counts_V = split.last_day.item_counts(len(bias_V)).float() + 1
    torch.testing.assert_close(bias_V.detach(), (counts_V / counts_V.mean()).log())


def test_what_the_other_model_trained_is_read_and_recommended(nights: Nights) -> None:
    start, split, items = start_of(nights)
    model = given(start, split, items, nights.sessions[1].folder)
    popular_V = model.next_item.popularity_V
    counts_V = split.train.item_counts(len(popular_V))
    trained_V = split.train.select(start.reads_N).item_counts(len(popular_V)) > 0
    trained_V |= start._trained(ITEM_ID, start._item_rows_trained())[FIRST_ID:] >= 0
    assert torch.equal(popular_V, (counts_V * trained_V).float())
    read_V = split.train.select(start.reads_N).item_counts(len(popular_V)) > 0
    assert bool((popular_V > 0)[~read_V].any())
    assert model.longest >= start.parent.longest


def test_a_share_of_all_sessions_is_read_in_random_order_and_then_the_newest_days(nights: Nights) -> None:
    sessions = nights.sessions[2]
    split = split_sessions(sessions, FeatureSchema.read(sessions.folder / "schema.json"), 50)
    count, day = len(split.train), split.train.end // 86_400_000_000
    newest = replay_then_newest(split, DAYS[1], 0.0, 17)
    # A session of midnight belongs to the day it closes in.
    assert 0 < len(newest) == pytest.approx(int((day == day.max()).sum()), rel=0.2)
    assert torch.equal(newest, torch.arange(count - len(newest), count))
    some = replay_then_newest(split, DAYS[1], 0.5, 17)
    assert torch.equal(some[-len(newest) :], newest)
    drawn = some[: -len(newest)]
    assert len(drawn) == len(drawn.unique()) == pytest.approx(0.5 * count, rel=0.2)
    assert not torch.equal(drawn, drawn.sort().values)
    assert 0.2 * len(newest) < int((drawn >= count - len(newest)).sum()) < 0.8 * len(newest)
    assert torch.equal(some, replay_then_newest(split, DAYS[1], 0.5, 17))
    recent = replay_then_newest(split, DAYS[1], 0.5, 17, recent_days=1)
    assert len(newest) < len(recent) < len(some)
    assert bool((recent >= count - len(newest)).all()), "older sessions are not drawn"
    whole = replay_then_newest(split, DAYS[1], 1.0, 17)
    assert torch.equal(whole[: -len(newest)].sort().values, torch.arange(count))


def test_a_start_follows_the_passes_of_a_training_from_scratch_unless_it_is_given(nights: Nights) -> None:
    fold = folds(nights.sessions[2])[-1]
    first = Parent(nights.first, named=False).first_day
    free = TrainingConfig()
    for epochs, replay, passes, day in ((1, 1 / 9, 1, DAYS[0]), (3, 1 / 3, 1, DAYS[0]), (27, 1.0, 3, "2026-03-02")):
        config = free.model_copy(update={"epochs": epochs})
        assert replay_of(config) == pytest.approx(replay)
        assert warmed(config).epochs == passes
        assert first(fold, config) == min(day, fold.train_days[-min(epochs, 7) :][0])
    assert replay_of(TrainingConfig(replay=0.0)) == 0.0
    assert warmed(TrainingConfig(warm_epochs=5)).epochs == 5
    assert first(fold, TrainingConfig(window_days=3)) == fold.train_days[-3]


def test_weights_are_drawn_back_to_those_from_scratch(nights: Nights) -> None:
    start, split, items = start_of(nights)
    folder = nights.sessions[1].folder
    whole, none, most = (
        dict(given(replace(start, keep=keep), split, items, folder).named_parameters()) for keep in (1.0, 0.0, 0.8)
    )
    assert sum(bool((whole[name] != none[name]).any()) for name in whole) > len(whole) / 2
    for name, weight in most.items():
        torch.testing.assert_close(weight, 0.8 * whole[name] + 0.2 * none[name])
    set_seed(17)
    schema = FeatureSchema.read(folder / "schema.json")
    scratch = make_model(
        model_config(), schema, split.train.select(start.reads_N), split, items, quiet
    ).named_parameters()
    for name, weight in scratch:
        torch.testing.assert_close(none[name], weight, msg=name)


@pytest.mark.parametrize("order", ["time", "random"])
def test_an_interrupted_run_goes_on_to_the_same_bits(nights: Nights, tmp_path: Path, order: str) -> None:
    start, split, items = start_of(nights)
    start = replace(start, folder=nights.root)  # where no optimizer's state is kept
    config, lines = CONFIG.model_copy(update={"order": order}), list[str]()
    say: Callable[[object], None] = lambda line: lines.append(str(line))  # noqa: E731
    schema = FeatureSchema.read(nights.sessions[1].folder / "schema.json")

    def run(folder: Path, after_step: Interrupt | None = None) -> SequenceModel:
        return fit(
            schema,
            split,
            model_config(),
            config,
            folder,
            say,
            items,
            after_step,
            start,
        )[0]

    whole = run(tmp_path / "whole")
    assert any("begins anew" in line for line in lines)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", Interrupt(11))
    lines.clear()
    assert same_weights(whole, run(tmp_path / "broken"))
    assert any("Going on from step" in line for line in lines)
    assert not any("begins anew" in line for line in lines)
    whole.save(tmp_path)
    assert same_weights(whole, SequenceModel.load(tmp_path))


def test_the_optimizer_goes_on_with_zeros_for_new_rows(nights: Nights) -> None:
    start, split, items = start_of(nights)
    model = given(start, split, items, nights.sessions[1].folder)
    optimizer = make_optimizer(model, CONFIG)
    assert start.give_moments(model, optimizer)
    table = model.inputs.items.table_VE
    moments, new_V = optimizer.state[table]["exp_avg_sq"], start._trained(ITEM_ID, start._item_rows_trained()) < 0
    assert moments.shape == table.shape
    assert bool(new_V.any()) and float(moments[new_V].abs().max()) == 0.0
    assert float(moments[~new_V].max()) > 0
    assert float(optimizer.state[table]["step"]) == nights.first.facts["steps"]
    assert len(optimizer.state) == len(parameter_names(model))
    assert not replace(start, folder=nights.root).give_moments(model, make_optimizer(model, CONFIG))


def trained(nights: Nights, night: int, config: TrainingConfig = WARM, **groups: Any) -> tuple[Manifest, list[str]]:
    lines: list[str] = []
    say: Callable[[object], None] = lambda line: lines.append(str(line))  # noqa: E731
    return train(nights.artifacts, nights.sessions[night], model_config(**groups), config, say), lines


def test_a_night_starts_from_the_model_in_service_before_it_and_so_does_the_same_night_again(
    nights: Nights, in_service: Callable[[Manifest], object]
) -> None:
    assert nights.first.facts["start_from"] is None
    assert (nights.first.folder / OPTIMIZER).is_file()
    in_service(nights.first)
    second, lines = trained(nights, 1)
    assert second.facts["start_from"] == nights.first.name
    assert second.facts["first_day"] == DAYS[0]
    assert second.facts["read_sessions"] < nights.sessions[1].facts["sessions"]
    assert any(f"Starting from {nights.first.name}" in line for line in lines)
    in_service(second)
    again, _ = trained(nights, 1)
    assert again.reused and again.name == second.name
    third, _ = trained(nights, 2)
    assert third.facts["start_from"] == second.name
    assert third.facts["first_day"] == DAYS[1]


def test_a_night_after_some_without_a_model_reads_all_days_since(
    nights: Nights, in_service: Callable[[Manifest], object]
) -> None:
    in_service(nights.first)
    later, _ = trained(nights, 2)
    assert later.facts["first_day"] == DAYS[0]


def test_the_first_night_trains_from_scratch_and_says_so(nights: Nights) -> None:
    model, lines = trained(nights, 1)
    assert model.facts["start_from"] is None
    assert any("from scratch: no model was in service" in line for line in lines)


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ({"body": {"dim": 8, "num_layers": 1}}, "body.dim is 8 now, 16 in the model"),
        ({"inputs": {"features": ["brand"]}}, "inputs.features"),
        ({"heads": {"next_item": {}}}, "bias"),
    ],
)
def test_a_model_that_does_not_fit_is_left_and_a_named_one_refused(
    nights: Nights, in_service: Callable[[Manifest], object], groups: dict[str, Any], reason: str
) -> None:
    in_service(nights.first)
    model, lines = trained(nights, 1, **groups)
    assert model.facts["start_from"] is None
    assert any(reason in line and "from scratch" in line for line in lines)
    named = CONFIG.model_copy(update={"start_from": nights.first.name})
    with pytest.raises(InputError, match=reason):
        trained(nights, 1, named, **groups)


def test_another_dropout_or_loss_is_no_reason_to_begin_anew(nights: Nights) -> None:
    named = CONFIG.model_copy(update={"start_from": nights.first.name})
    body = {"dim": 16, "num_layers": 1, "dropout": 0.4}
    assert trained(nights, 1, named, body=body, loss="sampled_softmax")[0].facts["start_from"] == nights.first.name


def test_a_damaged_model_or_pointer_does_not_fail_a_night(
    nights: Nights, in_service: Callable[[Manifest], object], tmp_path: Path
) -> None:
    in_service(nights.first)
    pointer = pointer_of(nights.artifacts, "demo")
    whole = pointer.read_text()
    pointer.write_text("{")
    assert any("not a champion pointer" in line for line in trained(nights, 1)[1])
    pointer.write_text(whole)
    weights = nights.first.folder / "model.safetensors"
    weights.rename(tmp_path / "kept")
    try:
        model, lines = trained(nights, 1)
    finally:
        (tmp_path / "kept").rename(weights)
    assert model.facts["start_from"] is None
    assert any("missing or damaged" in line for line in lines)


def test_a_named_model_that_is_not_there_or_learned_from_the_test_day_is_refused(nights: Nights) -> None:
    with pytest.raises(InputError, match="models/1234"):
        trained(nights, 1, CONFIG.model_copy(update={"start_from": "models/1234"}))
    later = train(nights.artifacts, nights.sessions[2], model_config(), CONFIG, quiet)
    with pytest.raises(InputError, match=f"learned from the days before {DAYS[2]}"):
        trained(nights, 1, CONFIG.model_copy(update={"start_from": later.name}))
    with pytest.raises(ValueError, match="start_from"):
        TrainingConfig(start_from="yesterday")


def test_settings_of_a_start_without_one_are_named(nights: Nights) -> None:
    _, lines = trained(nights, 1, TrainingConfig(epochs=1, tokens_per_step=64, threads=1, replay=0.3))
    assert any("Not used without training.start_from: training.replay" in line for line in lines)
