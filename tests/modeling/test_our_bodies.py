"""Our own bodies do what their papers say: against torch's modules with the same weights, and formulas in plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling import parts
from modeling.attention import Direction, Layout
from modeling.bodies import Body, hstu
from modeling.config import BodyConfig
from schemas.errors import InputError
from tests.conftest import model_of

DIM, LENGTH = 8, 5
OURS = ("bert4rec", "bst", "gru4rec", "hstu", "ligr", "sasrec")
SECONDS = [0.0, 0.4, 1.0, 90.0, 1e12]
both_ways = pytest.mark.parametrize("direction", ["causal", "both"])


def body_of(name: str, **options: object) -> Body:
    """One layer, two heads, weights large enough to matter, in double precision."""
    config = BodyConfig.model_validate({"name": name, "dim": DIM, "num_heads": 2, "num_layers": 1} | options)
    body: Body = parts.build("body", config, config, False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return body.double().eval()


def events() -> Tensor:
    return torch.randn(LENGTH, DIM, generator=torch.Generator().manual_seed(6)).double()


def states(body: Body, x_LD: Tensor, direction: Direction, seconds: list[float] | None = None) -> Tensor:
    """The states of one session."""
    ones = torch.ones(1, len(x_LD), dtype=torch.long)
    times = None if seconds is None else torch.tensor([seconds], dtype=torch.float64)
    with torch.no_grad():
        h_BLD: Tensor = body(x_LD[None], Layout(ones, ones.cumsum(1) - 1, direction, times))
    return h_BLD[0]


def hidden_from(direction: Direction) -> Tensor:
    """Which places torch's attention must not see."""
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1 if direction == "causal" else LENGTH)


def parts_of(body: Body, name: str) -> dict[str, Any]:
    """The modules of a module of the body."""
    return dict(body.get_submodule(name).named_children())


def torch_attention(weight: Tensor, bias: Tensor, out: nn.Linear) -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(DIM, 2, batch_first=True).double()
    attention.load_state_dict(
        {"in_proj_weight": weight, "in_proj_bias": bias, "out_proj.weight": out.weight, "out_proj.bias": out.bias}
    )
    return attention.eval()


def torch_post_norm(block: nn.Module, activation: Callable[[Tensor], Tensor], eps: float) -> nn.TransformerEncoderLayer:
    """torch's layer of the first transformer with the weights of our block."""
    layer = nn.TransformerEncoderLayer(
        DIM, 2, 4 * DIM, activation=activation, layer_norm_eps=eps, batch_first=True, dtype=torch.float64
    )
    names = {
        "attention.query_key_value.": "self_attn.in_proj_",
        "attention.out": "self_attn.out_proj",
        "attention_norm": "norm1",
        "wide": "linear1",
        "narrow": "linear2",
        "feed_norm": "norm2",
    }
    weights = {}
    for name, value in block.state_dict().items():
        ours = next(start for start in names if name.startswith(start))
        weights[names[ours] + name.removeprefix(ours)] = value
    layer.load_state_dict(weights)
    return layer.eval()


@both_ways
def test_bst_is_a_post_norm_transformer_with_leaky_relu(direction: Direction) -> None:
    body, x_LD = body_of("bst"), events()
    layer = torch_post_norm(body.get_submodule("blocks.0"), F.leaky_relu, 1e-5)
    wanted = layer(x_LD[None], src_mask=hidden_from(direction))[0]
    torch.testing.assert_close(states(body, x_LD, direction), wanted.detach())


@both_ways
def test_bert4rec_is_a_post_norm_transformer_with_gelu_between_its_input_norm_and_output_layer(
    direction: Direction,
) -> None:
    body, x_LD = body_of("bert4rec"), events()
    part = parts_of(body, "")
    layer = torch_post_norm(body.get_submodule("blocks.0"), F.gelu, 1e-12)
    h_LD = layer(part["input_norm"](x_LD)[None], src_mask=hidden_from(direction))[0]
    wanted = part["out_norm"](F.gelu(part["out"](h_LD)))
    torch.testing.assert_close(states(body, x_LD, direction), wanted.detach())


@both_ways
def test_sasrec_asks_with_the_normalised_input_and_answers_with_the_raw_one(direction: Direction) -> None:
    body, x_LD = body_of("sasrec"), events()
    part = parts_of(body, "blocks.0")
    weight = torch.cat([part["query"].weight, part["key_value"].weight])
    bias = torch.cat([part["query"].bias, part["key_value"].bias])
    attention = torch_attention(weight, bias, part["out"])
    query_LD = part["attention_norm"](x_LD)
    s_LD = part["feed_norm"](query_LD + attention(query_LD, x_LD, x_LD, attn_mask=hidden_from(direction))[0])
    wanted = body.get_submodule("norm")(s_LD + part["narrow"](part["wide"](s_LD).relu()))
    torch.testing.assert_close(states(body, x_LD, direction), wanted.detach())


@both_ways
def test_ligr_opens_a_gate_for_what_each_sublayer_adds(direction: Direction) -> None:
    body, x_LD = body_of("ligr", ff_multiple=3), events()
    part, attention_part = parts_of(body, "blocks.0"), parts_of(body, "blocks.0.attention")
    mix = attention_part["query_key_value"]
    attention = torch_attention(mix.weight, mix.bias, attention_part["out"])
    seen_LD = part["attention_norm"](x_LD)
    found_LD = attention(seen_LD, seen_LD, seen_LD, attn_mask=hidden_from(direction))[0]
    s_LD = x_LD + found_LD / (1 + torch.exp(-part["attention_gate"](x_LD)))
    both = part["feed_norm"](s_LD) @ part["wide"].weight.T
    opened, hidden = both[:, : 3 * DIM], both[:, 3 * DIM :]
    fed_LD = (opened * torch.sigmoid(opened) * hidden) @ part["narrow"].weight.T
    wanted = s_LD + fed_LD / (1 + torch.exp(-part["feed_gate"](s_LD)))
    torch.testing.assert_close(states(body, x_LD, direction), wanted.detach())


def test_gru4rec_steps_through_a_session_from_a_state_of_zeros() -> None:
    body, x_LD = body_of("gru4rec"), events()
    cell = nn.GRUCell(DIM, DIM).double()
    weights = body.get_submodule("cells").state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
    state, passed = torch.zeros(DIM).double(), []
    for x_D in x_LD:
        state = cell(x_D, state)
        passed.append(state)
    wanted = body.get_submodule("norm")(torch.stack(passed))
    torch.testing.assert_close(states(body, x_LD, "causal"), wanted.detach())


def test_gru4rec_with_lstm_cells() -> None:
    body, x_LD = body_of("gru4rec", cell="lstm"), events()
    cell = nn.LSTMCell(DIM, DIM).double()
    weights = body.get_submodule("cells").state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
    state, memory, passed = torch.zeros(DIM).double(), torch.zeros(DIM).double(), []
    for x_D in x_LD:
        state, memory = cell(x_D, (state, memory))
        passed.append(state)
    wanted = body.get_submodule("norm")(torch.stack(passed))
    torch.testing.assert_close(states(body, x_LD, "causal"), wanted.detach())


def hstu_by_hand(body: Body, x_LD: Tensor, direction: Direction, bucket: Callable[[int, int], int]) -> Tensor:
    """One unit of two heads, place by place; `bucket` tells that of the time between two places."""
    part = parts_of(body, "blocks.0")
    biases = dict(body.get_submodule("blocks.0").named_parameters())
    u_LD, v_LD, q_LD, k_LD = F.silu(part["mix"](part["norm"](x_LD))).split(DIM, -1)
    size, found_LD = DIM // 2, torch.zeros_like(x_LD)
    for i in range(len(x_LD)):
        seen = range(i + 1) if direction == "causal" else range(len(x_LD))
        for head in (slice(0, size), slice(size, DIM)):
            for j in seen:
                distance = max(-hstu.DISTANCES, min(hstu.DISTANCES, i - j))
                score = q_LD[i, head] @ k_LD[j, head] + biases["position_bias"][distance + hstu.DISTANCES]
                score = score + biases["time_bias"][bucket(i, j)]
                found_LD[i, head] += score * torch.sigmoid(score) * v_LD[j, head] / len(seen)
    mean_L1, var_L1 = found_LD.mean(-1, keepdim=True), found_LD.var(-1, keepdim=True, correction=0)
    h_LD = x_LD + part["out"](u_LD * (found_LD - mean_L1) / (var_L1 + 1e-6).sqrt())
    normed: Tensor = body.get_submodule("norm")(h_LD)
    return normed.detach()


@both_ways
@pytest.mark.parametrize("time_buckets", [4, 32])
def test_hstu_weighs_by_silu_with_biases_of_place_and_time(direction: Direction, time_buckets: int) -> None:
    body, x_LD = body_of("hstu", time_buckets=time_buckets), events()

    def bucket(i: int, j: int) -> int:
        apart = abs(SECONDS[i] - SECONDS[j])
        return 0 if apart < 1 else min(1 + math.floor(math.log2(apart)), time_buckets - 1)

    with torch.no_grad():
        wanted = hstu_by_hand(body, x_LD, direction, bucket)
    torch.testing.assert_close(states(body, x_LD, direction, SECONDS), wanted, atol=1e-6, rtol=0)


def test_hstu_takes_all_events_as_simultaneous_where_no_times_are_known() -> None:
    body, x_LD = body_of("hstu"), events()
    unknown = states(body, x_LD, "causal")
    torch.testing.assert_close(unknown, states(body, x_LD, "causal", [7.0] * LENGTH))
    assert not torch.allclose(unknown, states(body, x_LD, "causal", SECONDS), atol=1e-3)


@both_ways
def test_hstu_takes_sessions_longer_than_the_distances_it_tells_apart(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hstu, "DISTANCES", 2)
    body, x_LD = body_of("hstu"), events()
    with torch.no_grad():
        wanted = hstu_by_hand(body, x_LD, direction, lambda i, j: 0)
    torch.testing.assert_close(states(body, x_LD, direction), wanted, atol=1e-6, rtol=0)


def states_in_training(name: str, dropout: float) -> tuple[Tensor, Tensor]:
    """The states of a body in evaluation and in training."""
    body = body_of(name, dropout=dropout, attention_dropout=dropout)
    torch.manual_seed(1)
    return states(body, events(), "causal"), states(body.train(), events(), "causal")


@pytest.mark.parametrize("name", OURS)
def test_dropout_acts_in_training_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.testing.assert_close(*states_in_training(name, 0.0))
    whole = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *x, **given: whole(*x, **given | {"dropout_p": 0.0}))
    exact, dropped = states_in_training(name, 0.5)
    assert not torch.allclose(exact, dropped)


@pytest.mark.parametrize("name", OURS)
def test_dropout_acts_on_attention_where_the_papers_have_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "dropout", lambda x, *given: x)
    exact, dropped = states_in_training(name, 0.5)
    assert torch.allclose(exact, dropped) is (name not in ("bert4rec", "ligr", "sasrec"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "gru4rec", "cell": "rnn"}, "gru"),
        ({"name": "ligr", "ff_multiple": 0}, "ff_multiple"),
        ({"name": "hstu", "time_buckets": 0}, "time_buckets"),
    ],
)
def test_options_that_cannot_be_are_refused(body: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        model_of(body)
