from dataclasses import replace

import pytest

from modeling.config import ModelConfig, TrainingConfig
from modeling.presets.by_shape import (
    LEAST_TOKENS,
    MOST_FACTORISED,
    MOST_TOKENS,
    SAMPLED_FROM,
    WARMUP,
    Shape,
    settings_by_shape,
    tokens_per_step,
)


def _chosen(
    model: dict,
    training: dict,
    num_events: int = 100_000,
    num_items: int = 1_000,
    num_sessions: int = 20_000,
    *,
    histories: bool = False,
    features: tuple[str, ...] = (),
) -> dict:
    given = ModelConfig.model_validate(model), TrainingConfig.model_validate(training)
    shape = Shape(num_events, num_items, num_sessions, histories, features=features)
    fitted, trained, chosen = settings_by_shape(*given, shape)
    groups = {"inputs": fitted.inputs.model_dump()}
    groups |= {"training": trained.model_dump(), "body": fitted.body.model_dump(), "loss": fitted.loss.model_dump()}
    negatives = fitted.loss.negatives.model_dump()
    groups["loss"] |= fitted.loss.options | {f"negatives.{name}": value for name, value in negatives.items()}
    for name, value in chosen.items():
        group, _, setting = name.partition(".")
        assert groups[group][setting or "name"] == value
    return chosen


@pytest.mark.parametrize(
    ("num_events", "tokens"),
    [(100_000, 512), (200_000, 1024), (271_517, 1024), (2_940_254, 4096), (20_000_000, 16_384)],
)
def test_steps_hold_more_where_there_is_more(num_events: int, tokens: int) -> None:
    assert tokens_per_step(num_events) == tokens


def test_tokens_per_step_stay_within_bounds_and_never_fall() -> None:
    sizes = [tokens_per_step(round(10 ** (place / 10))) for place in range(110)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (LEAST_TOKENS, MOST_TOKENS)
    assert tokens_per_step(0) == LEAST_TOKENS


def test_the_rate_goes_with_the_size_of_a_step_and_brings_a_warm_up() -> None:
    assert _chosen({}, {}) == {
        "training.tokens_per_step": 512,
        "training.learning_rate": 0.003,
        "training.warmup_steps": WARMUP,
        "loss": "full_softmax",
        "body.attention_dropout": 0.0,
    }
    rates = [_chosen({}, {"tokens_per_step": tokens})["training.learning_rate"] for tokens in (512, 1024, 2048, 4096)]
    assert rates == [0.003, 0.003, 0.002, 0.002]
    dense = {"num_events": 1_000_000, "histories": True}
    assert _chosen({}, {}, **dense)["training.learning_rate"] == 0.002
    for schedule, expected in (("linear", [0.003, 0.002, 0.002]), ("constant", [0.003, 0.001, 0.001])):
        each = [{"tokens_per_step": tokens, "schedule": schedule} for tokens in (512, 1024, 2048)]
        assert [_chosen({}, one, **dense)["training.learning_rate"] for one in each] == expected


def test_what_is_given_wins() -> None:
    given = {"tokens_per_step": 1024, "learning_rate": 0.001, "order": "random", "epochs": 3, "schedule": "constant"}
    model = {
        "inputs": {"item_start": "random"},
        "loss": "full_softmax",
        "body": {"dim": 64, "dropout": 0.3, "attention_dropout": 0.3, "num_heads": 2},
    }
    assert _chosen(model, given, num_items=SAMPLED_FROM, histories=True) == {}
    assert "training.warmup_steps" not in _chosen({}, {"warmup_steps": 0})
    assert "training.warmup_steps" not in _chosen({}, {"learning_rate": 0.001})


def test_a_value_given_wins_also_where_it_is_the_default_of_its_class() -> None:
    defaults = TrainingConfig()
    given = {"tokens_per_step": defaults.tokens_per_step, "learning_rate": defaults.learning_rate}
    assert set(_chosen({}, given)) == {"loss", "body.attention_dropout"}


SPARSE_HISTORIES = {"num_events": 200_000, "num_items": 12_000, "histories": True}


def test_histories_with_few_events_an_item_are_held_back_from_learning_by_heart() -> None:
    chosen = _chosen({}, {}, **SPARSE_HISTORIES)
    assert chosen["body.dropout"] == chosen["body.attention_dropout"] == 0.5 and chosen["body.num_heads"] == 1
    assert chosen["body.dim"] == 128 and "body.dim" not in _chosen({"body": {"dim": 32}}, {}, **SPARSE_HISTORIES)
    assert chosen["loss.label_smoothing"] == 0.1
    assert (chosen["training.learning_rate"], chosen["training.warmup_steps"]) == (0.002, WARMUP)
    dense = _chosen({}, {}, **SPARSE_HISTORIES | {"num_items": 3_000})
    assert dense["body.attention_dropout"] == 0.2 and not {"body.dropout", "loss.label_smoothing"} & dense.keys()
    assert not {"body.dropout", "loss.label_smoothing"} & _chosen({}, {}, 200_000, 8_000).keys()  # of sessions


def test_what_is_given_of_sparse_histories_wins_and_another_body_keeps_its_own_dropout() -> None:
    chosen = _chosen({"body": {"dropout": 0.3}, "loss": {"label_smoothing": 0.0}}, {}, **SPARSE_HISTORIES)
    assert chosen["body.attention_dropout"] == 0.3 and not {"body.dropout", "loss.label_smoothing"} & chosen.keys()
    assert not {"body.dim", "body.dropout", "body.num_heads"} & _chosen({"body": "hstu"}, {}, **SPARSE_HISTORIES).keys()
    assert _chosen({"loss": {"negatives": {"count": 64}}}, {}, **SPARSE_HISTORIES)["loss.label_smoothing"] == 0.1
    sampled = _chosen({}, {}, **SPARSE_HISTORIES | {"num_items": SAMPLED_FROM})
    assert sampled["loss"] == "sampled_softmax" and "loss.label_smoothing" not in sampled


DENSE_HISTORIES = SPARSE_HISTORIES | {"num_items": 3_000}  # 67 events an item


def test_where_the_last_item_is_left_out_order_is_random_and_validation_chooses_among_the_epochs() -> None:
    assert _chosen({}, {}, **DENSE_HISTORIES)["training.order"] == "random"
    assert not {"training.order", "training.epochs"} & _chosen({}, {}).keys()
    assert not {"training.order", "training.epochs"} & _chosen({}, {"order": "time"}, **SPARSE_HISTORIES).keys()
    assert "training.epochs" not in _chosen({}, {"epochs": 5}, **SPARSE_HISTORIES)


@pytest.mark.parametrize("histories", [SPARSE_HISTORIES, DENSE_HISTORIES])
def test_items_of_histories_begin_near_their_neighbours_and_the_rate_falls_to_the_end(histories: dict) -> None:
    chosen = _chosen({}, {}, **histories)
    assert (chosen["training.epochs"], chosen["training.schedule"]) == (12, "linear")
    assert chosen["training.patience"] == TrainingConfig().evaluations
    assert _chosen({}, {"evaluations": 4}, **histories)["training.patience"] == 4
    assert "training.patience" not in _chosen({}, {"patience": 2}, **histories)
    cosine = _chosen({}, {"schedule": "cosine"}, **histories)
    assert cosine["training.epochs"] == 12 and "training.schedule" not in cosine
    constant = _chosen({}, {"schedule": "constant"}, **histories)
    assert constant["training.epochs"] == 30 and "training.patience" not in constant
    assert not {"training.schedule", "training.epochs"} & _chosen({}, {"order": "time"}, **histories).keys()
    assert chosen["inputs.item_start"] == "neighbours"
    assert "inputs.item_start" not in _chosen({"inputs": {"item_start": "random"}}, {}, **histories)
    assert "inputs.item_start" not in _chosen({"body": "hstu"}, {}, **histories)
    many = _chosen({}, {}, **histories | {"num_items": SAMPLED_FROM})
    assert many["inputs.item_start"] == "neighbours" and many["loss"] == "sampled_softmax"
    for events, near in ((MOST_FACTORISED - 1, True), (MOST_FACTORISED, False)):
        chosen = _chosen({}, {}, **histories | {"num_items": 1_000_000, "num_events": events})
        assert ("inputs.item_start" in chosen) == near


@pytest.mark.parametrize("model", [{"body": "hstu"}, {"inputs": {"item_start": "random"}}])
def test_the_rate_of_histories_falls_also_where_items_begin_at_random(model: dict) -> None:
    chosen = _chosen(model, {}, **DENSE_HISTORIES | {"num_items": 6_000})
    assert (chosen["training.epochs"], chosen["training.schedule"]) == (12, "linear")
    assert chosen["training.patience"] == TrainingConfig().evaluations
    assert (chosen["training.learning_rate"], chosen["training.warmup_steps"]) == (0.002, WARMUP)
    constant = _chosen(model, {"schedule": "constant"}, **DENSE_HISTORIES | {"num_items": 6_000})
    assert (constant["training.epochs"], constant["training.learning_rate"]) == (30, 0.001)


def test_dense_histories_are_trained_on_in_pieces_by_a_wider_model() -> None:
    dense = DENSE_HISTORIES | {"num_items": 2_666}
    assert _chosen({}, {}, **dense)["training.piece_events"] == 200
    assert _chosen({}, {}, **dense)["body.dim"] == 128
    assert "body.dim" not in _chosen({"body": {"dim": 32}}, {}, **dense)
    assert "body.dim" not in _chosen({"body": "hstu"}, {}, **dense)
    assert "body.dim" not in _chosen({}, {}, **dense | {"num_items": 2_667})
    for model, training, shape in (
        ({}, {}, dense | {"num_items": 2_667}),
        ({}, {}, dense | {"histories": False}),
        ({}, {"piece_events": None}, dense),
        ({}, {"piece_events": 50}, dense),
    ):
        assert "training.piece_events" not in _chosen(model, training, **shape)


OF_SPARSE = {
    "training.order": "random",
    "training.epochs": 12,
    "training.schedule": "linear",
    "training.patience": 10,
    "training.warmup_steps": 0.1,
    "loss": "full_softmax",
    "loss.label_smoothing": 0.1,
    "body.num_heads": 1,
    "body.dim": 128,
    "body.dropout": 0.5,
    "body.attention_dropout": 0.5,
    "inputs.item_start": "neighbours",
}
OF_DENSE = {"training.order": "random", "loss": "full_softmax", "body.num_heads": 1, "body.attention_dropout": 0.2}
OF_SESSIONS = {"training.warmup_steps": 0.1, "loss": "full_softmax", "body.attention_dropout": 0.0}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param(
            Shape(194_687, 12_092, 22_363, histories=True),
            OF_SPARSE | {"training.tokens_per_step": 1024, "training.learning_rate": 0.002},
            id="beauty",
        ),
        pytest.param(
            Shape(52_551, 3_646, 1_090, histories=True),
            OF_SPARSE | {"training.tokens_per_step": 512, "training.learning_rate": 0.003, "inputs.positions": "none"},
            id="lastfm",
        ),
        pytest.param(
            Shape(999_611, 3_416, 6_040, histories=True),
            OF_DENSE
            | {
                "training.tokens_per_step": 2048,
                "training.learning_rate": 0.002,
                "training.warmup_steps": 0.1,
                "training.epochs": 12,
                "training.schedule": "linear",
                "training.patience": 10,
                "training.piece_events": 200,
                "body.dim": 128,
            },
            id="ml1m",
        ),
        pytest.param(
            Shape(87_213, 2_801, 755, histories=True),
            OF_DENSE
            | {
                "training.tokens_per_step": 512,
                "training.learning_rate": 0.003,
                "training.warmup_steps": 0.1,
                "training.epochs": 12,
                "training.schedule": "linear",
                "training.patience": 10,
                "inputs.item_start": "neighbours",
            },
            id="an eighth of ml1m",
        ),
        pytest.param(
            Shape(117_958, 1_670, 20_738, histories=False),
            OF_SESSIONS | {"training.tokens_per_step": 512, "training.learning_rate": 0.003},
            id="shop",
        ),
        pytest.param(
            Shape(165_474, 217, 24_026, histories=False),
            OF_SESSIONS | {"training.tokens_per_step": 1024, "training.learning_rate": 0.003},
            id="eshop",
        ),
    ],
)
def test_what_was_measured_on_these_data_is_what_they_are_trained_with(shape: Shape, expected: dict) -> None:
    assert settings_by_shape(ModelConfig(), TrainingConfig(), shape)[2] == expected


def test_positions_of_long_and_sparse_histories_are_left_out() -> None:
    long = SPARSE_HISTORIES | {"num_sessions": 2_000}
    assert _chosen({}, {}, **long)["inputs.positions"] == "none"
    assert "inputs.positions" not in _chosen({"inputs": {"positions": "end"}}, {}, **long)
    assert "inputs.positions" not in _chosen({}, {}, **SPARSE_HISTORIES)
    assert "inputs.positions" not in _chosen({"body": "bert4rec"}, {}, **long)
    assert "inputs.positions" not in _chosen({}, {}, **long | {"num_items": 2_000})


SPARSE_SESSIONS = {"num_events": 39_404, "num_items": 2_484, "num_sessions": 1_308}


def test_items_of_sessions_with_few_events_an_item_begin_near_their_neighbours() -> None:
    assert _chosen({}, {}, **SPARSE_SESSIONS) == {
        "training.tokens_per_step": 256,
        "training.schedule": "linear",
        "training.learning_rate": 0.003,
        "training.warmup_steps": 0.1,
        "loss": "full_softmax",
        "loss.label_smoothing": 0.1,
        "body.dim": 128,
        "body.dropout": 0.5,
        "body.attention_dropout": 0.0,
        "inputs.item_start": "neighbours",
    }
    assert _chosen({}, {}, **SPARSE_SESSIONS | {"num_items": 1_642})["inputs.item_start"] == "neighbours"
    assert _chosen({}, {}, **SPARSE_SESSIONS | {"num_sessions": 13_000}) == _chosen({}, {}, **SPARSE_SESSIONS)
    for model in ({"body": "hstu"}, {"inputs": {"item_start": "random"}}):
        assert not {"training.schedule", "inputs.item_start"} & _chosen(model, {}, **SPARSE_SESSIONS).keys()
    assert "training.schedule" not in _chosen({}, {"schedule": "constant"}, **SPARSE_SESSIONS)
    many = _chosen({}, {}, **SPARSE_SESSIONS | {"num_items": SAMPLED_FROM})
    few = _chosen({}, {}, **SPARSE_SESSIONS)
    assert many == {name: few[name] for name in few if name != "loss.label_smoothing"} | {
        "loss": "sampled_softmax",
        "loss.negatives.count": 2048,
        "loss.negatives.group": 256,
    }
    for other in ({"num_items": 1_641}, {"num_items": 1_000_000, "num_events": MOST_FACTORISED}):
        many = _chosen({}, {}, **SPARSE_SESSIONS | other)
        assert not {"body.dim", "training.schedule", "inputs.item_start"} & many.keys()
    moving = Shape(**SPARSE_SESSIONS, histories=False, drift=0.5)
    assert not moving.near and replace(moving, drift=0.4).near


def test_half_is_dropped_of_sparse_sessions_that_are_long_or_of_which_only_item_ids_and_times_are_read() -> None:
    held_back = {"body.dropout", "loss.label_smoothing"}
    shop = SPARSE_SESSIONS | {"num_sessions": 1_971, "features": ("category", "brand")}  # 19.99 events a session
    chosen = _chosen({}, {}, **shop)
    assert chosen["body.dropout"] == 0.1 and chosen["body.dim"] == 128 and "loss.label_smoothing" not in chosen
    assert _chosen({}, {}, **shop | {"num_sessions": 9_851})["body.dropout"] == 0.1  # 4 events a session
    for other in ({"num_sessions": 9_852}, {"num_items": 1_641}):  # fewer; 24 events an item
        assert "body.dropout" not in _chosen({}, {}, **shop | other)
    assert not held_back & _chosen({"body": "hstu"}, {}, **shop).keys()
    assert held_back <= _chosen({}, {}, **shop | {"num_sessions": 1_970}).keys()
    for named, held in (([], True), (["hour"], True), (["hour", "brand"], False)):
        chosen = _chosen({"inputs": {"features": named}}, {}, **shop)
        assert (chosen["body.dropout"], "loss.label_smoothing" in chosen) == ((0.5, True) if held else (0.1, False))
    assert held_back <= _chosen({}, {}, **SPARSE_HISTORIES, features=("category",)).keys()  # histories in any case


NEWS = Shape(2_900_000, 19_000, 1_000_000, histories=False, drift=2.0, recent_share=0.07)


def test_sessions_that_move_are_read_once_from_recent_days_on_with_scores_that_begin_at_recent_popularity() -> None:
    model, training, chosen = settings_by_shape(ModelConfig(), TrainingConfig(), NEWS)
    assert (training.recent_days, training.epochs, training.learning_rate) == (2, 1, 0.003)
    assert training.tokens_per_step == tokens_per_step(203_000) / 16 == 64
    assert model.heads["next_item"].options == {"bias": True, "bias_half_life": "chosen"}
    assert chosen["heads.next_item.bias"] is True and chosen["heads.next_item.bias_half_life"] == "chosen"
    for still in (replace(NEWS, drift=0.4), replace(NEWS, histories=True)):
        model, training, chosen = settings_by_shape(ModelConfig(), TrainingConfig(), still)
        assert training.recent_days is None and not model.heads["next_item"].options
        assert not {"training.recent_days", "heads.next_item.bias"} & chosen.keys()


def test_one_pass_over_sessions_that_move_takes_small_steps_and_more_passes_do_not() -> None:
    small = replace(NEWS, num_events=24_000, recent_share=0.15)
    assert tokens_per_step(3_600) == LEAST_TOKENS
    for given, tokens in (
        ({}, 16),
        ({"epochs": 3}, 64),
        ({"order": "random"}, 64),
        ({"order": "random", "epochs": 1}, 64),
    ):
        assert settings_by_shape(ModelConfig(), TrainingConfig(**given), small)[1].tokens_per_step == tokens
    still = replace(small, drift=0.4, recent_share=1.0)
    assert settings_by_shape(ModelConfig(), TrainingConfig(epochs=1), still)[1].tokens_per_step == 256


def test_what_is_given_of_sessions_that_move_wins() -> None:
    given = ModelConfig.model_validate({"heads": {"next_item": {"bias": False}}})
    training = TrainingConfig(recent_days=None, epochs=3, tokens_per_step=64, learning_rate=0.01)
    model, trained, chosen = settings_by_shape(given, training, NEWS)
    assert trained == training and model.heads == given.heads and chosen.keys() == {"loss", "body.attention_dropout"}
    hours = ModelConfig.model_validate({"heads": {"next_item": {"bias_half_life": 3}}})
    model, _, chosen = settings_by_shape(hours, TrainingConfig(), NEWS)
    assert model.heads["next_item"].options == {"bias_half_life": 3, "bias": True}
    labels = ModelConfig.model_validate({"heads": {"bought": {"name": "binary"}}})
    assert settings_by_shape(labels, TrainingConfig(), NEWS)[0].heads == labels.heads


def test_all_days_are_read_where_no_days_are_given_and_steps_are_as_large_as_for_all() -> None:
    _, training, _ = settings_by_shape(ModelConfig(), TrainingConfig(recent_days=None), NEWS)
    assert training.tokens_per_step == tokens_per_step(NEWS.num_events)


def test_attention_of_histories_is_dropped_like_all_else_and_that_of_sessions_is_not() -> None:
    name = "body.attention_dropout"
    assert _chosen({"body": {"dropout": 0.4}}, {}, histories=True)[name] == 0.4
    assert _chosen({"body": {"dropout": 0.4}}, {})[name] == 0.0
    assert name not in _chosen({"body": {"attention_dropout": 0.0}}, {}, histories=True)


def test_a_large_catalogue_is_sampled_from_unless_a_loss_or_its_options_were_given() -> None:
    assert _chosen({}, {}, num_items=SAMPLED_FROM - 1)["loss"] == "full_softmax"
    assert _chosen({}, {}, num_items=SAMPLED_FROM)["loss"] == "sampled_softmax"
    assert _chosen({}, {}, num_items=SAMPLED_FROM)["loss.negatives.group"] == 256
    given = _chosen({"loss": {"negatives": {"count": 64}}}, {}, num_items=SAMPLED_FROM)
    assert given["loss"] == "sampled_softmax" and not [name for name in given if name.startswith("loss.negatives")]
    shape = Shape(117_958, SAMPLED_FROM, 20_738, histories=False)
    loss = settings_by_shape(ModelConfig(), TrainingConfig(), shape)[0].loss
    assert (loss.name, loss.negatives.count, loss.negatives.group) == ("sampled_softmax", 2048, 256)
    for loss in ("full_softmax", "bce", {"options": {"label_smoothing": 0.1}}):
        assert "loss" not in _chosen({"loss": loss}, {}, num_items=SAMPLED_FROM)


def test_a_model_without_items_to_predict_has_no_loss_to_choose() -> None:
    assert "loss" not in _chosen({"heads": {"bought": {"name": "binary"}}}, {})
