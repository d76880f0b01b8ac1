"""Training that is interrupted, that must stop early, that has nothing to learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.checkpoints import State, steps_of
from modeling.training.fit import fit, set_popularity
from modeling.training.schedule import make_schedule
from schemas.columns import FIRST_ID
from schemas.errors import InputError
from tests.conftest import chain_sessions, model_of, random_sessions, schema_of, sessions_of, split_of

SETTINGS = ModelConfig.model_validate({"body": {"dim": 16, "dropout": 0.3}, "heads": {"next_item": {"bias": True}}})
CONFIG = TrainingConfig(epochs=4, tokens_per_step=128, evaluations=4, patience=10, threads=1, order="random")


def state_at(folder: Path) -> State:
    """The state of the newest checkpoint."""
    return State.model_validate_json((folder / f"checkpoint-{max(steps_of(folder))}" / "state.json").read_text())


class Interrupt:
    """Stands in for a killed process."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, state: State) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


def run(
    folder: Path, config: TrainingConfig = CONFIG, after_step: Interrupt | None = None
) -> tuple[SequenceModel, dict[str, Any], list[str]]:
    sessions, lines = random_sessions(200, 50), []
    report = lambda line: lines.append(str(line))  # noqa: E731
    split = split_of(sessions, sessions)
    model, facts = fit(schema_of(50), split, SETTINGS, config, folder, report, after_step=after_step)
    return model, facts, lines


def same_weights(one: SequenceModel, other: SequenceModel) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("trainer", ["own", "hugging_face"])
@pytest.mark.parametrize("order", ["random", "time"])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, order: str, trainer: str) -> None:
    half_life = 0.0001 if order == "time" else None
    config = CONFIG.model_copy(update={"order": order, "half_life_days": half_life, "trainer": trainer})
    whole, facts, _ = run(tmp_path / "whole", config)
    steps = facts["planned_steps"]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", config, Interrupt(steps * 2 // 3))
    newest = max(steps_of(tmp_path / "broken"))
    cut_short = tmp_path / "broken" / f"checkpoint-{steps - 1}"  # by a crash, or a disk that is full
    cut_short.mkdir()
    (cut_short / "model.safetensors").write_bytes(b"half")
    resumed, again, lines = run(tmp_path / "broken", config)
    assert f"Going on from step {newest}." in lines
    assert same_weights(whole, resumed)
    assert again["history"] == facts["history"]
    assert again["tokens"] == facts["tokens"], "of both processes"
    assert state_at(tmp_path / "whole").cpu_seconds > 0, "a checkpoint says what was used so far"


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    run(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}


def test_training_stops_when_validation_does_not_improve(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 50, "evaluations": 50, "patience": 2, "learning_rate": 0.05})
    _, facts, _ = run(tmp_path, config)
    assert facts["steps"] < facts["planned_steps"] / 2


def test_the_best_weights_are_kept_not_the_last(tmp_path: Path) -> None:
    """A learning rate that destroys what was learned: the model returned is the validated best one."""
    sessions = chain_sessions(300, 30)
    config = TrainingConfig(epochs=8, tokens_per_step=256, evaluations=8, patience=8, threads=1, learning_rate=0.02)
    config = config.model_copy(update={"order": "random"})
    _, facts = fit(schema_of(30), split_of(sessions, sessions), SETTINGS, config, tmp_path, lambda line: None)
    curve = [row["validation"]["ndcg@20"] for row in facts["history"] if row["validation"]]
    assert facts["validation_ndcg@20"] == max(curve)


def test_nothing_to_learn_from_is_explained(tmp_path: Path) -> None:
    single = sessions_of([[5], [6]])
    with pytest.raises(InputError, match=r"No training session has two events.*leave_one_out.*it takes four"):
        fit(schema_of(50), split_of(single, single), SETTINGS, CONFIG, tmp_path, lambda line: None)


def test_one_session_is_enough_to_train_on(tmp_path: Path) -> None:
    one = sessions_of([[5, 6, 7]])
    model, facts = fit(schema_of(50), split_of(one, one), SETTINGS, CONFIG, tmp_path, lambda line: None)
    assert facts["sessions"] == 1
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_unknown_items_are_read_but_never_predicted() -> None:
    model = model_of("sasrec")
    batch = make_schedule(model, sessions_of([[5, 2, 6, 1, 7]]), CONFIG)[0]
    assert batch.features["item_id"][0].tolist() == [5, 2, 6, 1]
    assert batch.target_N.tolist() == [2, 6, 1, 7]
    predicted_N = batch.target_N >= FIRST_ID
    loss = model(batch)
    batch.target_N[~predicted_N] = 0
    assert torch.equal(loss, model(batch))
    listed = ("asked_N", "target_N", "weight_N", "is_last_N")
    alone = replace(batch, **{name: getattr(batch, name)[predicted_N] for name in listed})
    torch.testing.assert_close(loss, model(alone))


def test_a_schedule_shows_every_session_once_an_epoch() -> None:
    model, sessions = model_of("sasrec"), random_sessions(300, 50)
    for order in ("time", "random"):
        config = CONFIG.model_copy(update={"order": order, "epochs": 2})
        schedule = make_schedule(model, sessions, config)
        for first in (0, schedule.steps_per_epoch[0]):
            batches = [schedule[step] for step in range(first, first + schedule.steps_per_epoch[0])]
            shown = sum(int(batch.layout.segments_BL.max()) for batch in batches)
            assert shown == len(sessions)
    first, second = (schedule[step].features["item_id"] for step in (0, schedule.steps_per_epoch[0]))
    assert not torch.equal(first, second)


def ends_of_sessions(sessions: Sessions, **settings: Any) -> list[torch.Tensor]:
    """When the sessions of each epoch ended, in the order in which they are read."""
    schedule = make_schedule(model_of("sasrec"), sessions, CONFIG.model_copy(update={"order": "time"} | settings))
    schedule.make_batch = lambda chosen, *given: chosen.end  # type: ignore[assignment,return-value]
    steps = iter(range(len(schedule)))
    return [torch.cat([schedule[next(steps)] for _ in range(count)]) for count in schedule.steps_per_epoch]  # type: ignore[misc]


def test_in_order_of_time_the_last_epoch_alone_is_ordered() -> None:
    """One that began anew at the oldest sessions forgot the newest items."""
    sessions = random_sessions(400, 50)
    assert torch.equal(ends_of_sessions(sessions, epochs=1)[0], sessions.end)
    first, second, last = ends_of_sessions(sessions, epochs=3)
    assert torch.equal(last, sessions.end)
    for shuffled in (first, second):
        assert not torch.equal(shuffled, sessions.end)
        assert torch.equal(shuffled.sort().values, sessions.end)
    assert not torch.equal(first, second)


def test_in_order_of_time_and_with_a_half_life() -> None:
    sessions = random_sessions(400, 50)  # a second apart
    first, later = ends_of_sessions(sessions, epochs=2, half_life_days=50 / 86_400)
    assert len(first) == 400
    assert 40 < len(later) < 110  # the sum of 2^(-age/50) over 400 sessions is 72
    assert torch.equal(later, later.sort().values)


def test_in_order_of_time_the_last_weights_are_kept(tmp_path: Path) -> None:
    """And the patience stops nothing: validation asks about the newest day of training, not about the next."""
    config = TrainingConfig(
        epochs=6, tokens_per_step=128, evaluations=6, patience=1, threads=1, order="time", learning_rate=0.05
    )
    _, facts, lines = run(tmp_path, config)
    curve = [row["validation"]["ndcg@20"] for row in facts["history"] if row["validation"]]
    assert len(curve) == 6 and curve[-1] < max(curve)
    assert facts["steps"] == facts["planned_steps"] == facts["best_step"]
    assert (facts["weights"], facts["validation_ndcg@20"]) == ("last step", curve[-1])
    assert any("training.patience is not used" in line for line in lines)
    unset = TrainingConfig(epochs=1, tokens_per_step=128, threads=1)
    assert not any("patience" in line for line in run(tmp_path / "unset", unset)[2])


def test_the_output_bias_starts_at_recent_popularity() -> None:
    head = model_of("sasrec", num_items=4, heads={"next_item": {"bias": True}}).next_item
    newest = sessions_of([[3, 3, 3, 4], [3, 2, 1]])
    set_popularity(head, sessions_of([[6, 6, 3]]), newest)
    bias = head.bias_V
    assert bias is not None
    assert bias[0] > bias[1] > bias[2] == bias[3]
    assert torch.allclose(bias.exp().mean(), torch.tensor(1.0))
    assert head.popularity_V.tolist() == [1, 0, 0, 2]
