"""Bodies that transformers builds are what transformers builds, less what only words need; other types are tried or refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from modeling import attention, bodies, parts
from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.bodies._hugging_face import HuggingFace, settings_of
from modeling.bodies._probe import FailureError, _obey, _tried, adopt
from modeling.config import BodyConfig, ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.training.schedule import make_schedule
from schemas import plugins
from schemas.errors import InputError
from tests.conftest import model_of, random_sessions

DIM = 16
NAMED = [name for name in plugins.names(bodies) if issubclass(parts.body_class(name), HuggingFace)]
TURNING = ("llama", "mistral", "qwen3", "modernbert", "gpt_neox")  # by themselves
every_named = pytest.mark.parametrize("name", NAMED)


class Grouped(HuggingFace):
    """Llama with one head for keys and values."""

    model_type: ClassVar[str] = "llama"

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(config, rotary, num_key_value_heads=1)


def config_of(name: str, **options: Any) -> BodyConfig:
    return BodyConfig.model_validate({"name": name, "dim": DIM, "num_heads": 2, "num_layers": 2} | options)


def body_of(name: str, rotary: bool = False, **options: Any) -> HuggingFace:
    torch.manual_seed(3)
    config = config_of(name, **options)
    body = parts.build("body", config, config, rotary)
    assert isinstance(body, HuggingFace)
    return large(body)


def large(body: HuggingFace) -> HuggingFace:
    """Weights large enough for every part to have a say."""
    for parameter in body.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3 if parameter.dim() > 1 else 0.1)
    return body.eval()


def states(body: Body, x_LD: Tensor, positions: list[int] | None = None, direction: Direction = "causal") -> Tensor:
    """The states of one session, alone in its row."""
    positions_BL = torch.tensor([positions or range(len(x_LD))])
    with torch.no_grad():
        h_LD: Tensor = body(x_LD[None], Layout(torch.ones_like(positions_BL), positions_BL, direction))[0]
    return h_LD


def events(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, DIM, generator=torch.Generator().manual_seed(seed))


def plain(body: HuggingFace, kind: str, **own: Any) -> nn.Module:
    """What transformers makes of the same settings and weights, with attention of its own; tables that ours lacks are 0."""
    settings = settings_of(body.model_type, body.config, {name: own[name] for name in own if name != "is_causal"})
    if "is_causal" in own:
        settings.is_causal = own["is_causal"]
    model = AutoModel.from_config(settings, attn_implementation=kind)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    missing, unexpected = model.load_state_dict(body.model.state_dict(), strict=False)
    words = ("wte", "wpe", "embed", "pooler")
    assert not unexpected and all(any(word in name for word in words) for name in missing), missing
    return model.eval()


PARITY: list[tuple[str, Direction, str, dict[str, Any]]] = [
    ("gpt2", "causal", "sdpa", {}),
    ("gpt2", "causal", "eager", {}),
    ("gpt2", "both", "eager", {"is_causal": False}),
    ("bert", "both", "sdpa", {}),
    ("bert", "both", "eager", {}),
    ("bert", "causal", "sdpa", {"is_decoder": True}),
    ("llama", "causal", "sdpa", {}),
    ("llama", "causal", "eager", {}),
    ("llama", "both", "eager", {"is_causal": False}),
    ("grouped", "causal", "sdpa", {"num_key_value_heads": 1}),
]


@pytest.mark.parametrize(("name", "direction", "kind", "own"), PARITY)
def test_a_session_has_the_states_that_transformers_gives_it(
    name: str, direction: Direction, kind: str, own: dict[str, Any]
) -> None:
    """Rotated where the type rotates, once, and by our positions."""
    body = large(Grouped(config_of("llama"), True)) if name == "grouped" else body_of(name, rotary=name == "llama")
    x_LD = events(9)
    with torch.no_grad():
        expected = plain(body, kind, **own)(inputs_embeds=x_LD[None]).last_hidden_state[0]
    torch.testing.assert_close(states(body, x_LD, direction=direction), expected, atol=1e-5, rtol=0)


def test_grouped_heads_share_keys_and_values() -> None:
    body = Grouped(config_of("llama"), True)
    assert body.model.layers[0].self_attn.k_proj.weight.shape == (DIM // 2, DIM)
    assert body_of("llama").model.layers[0].self_attn.k_proj.weight.shape == (DIM, DIM)


@pytest.mark.parametrize("name", [*TURNING, "gpt2", "bert"])
def test_rotary_positions_are_ours_and_only_distances_count(name: str) -> None:
    body, x_LD = body_of(name, rotary=True), events(4)
    near = states(body, x_LD, [0, 1, 2, 3])
    torch.testing.assert_close(states(body, x_LD, [7, 8, 9, 10]), near, atol=1e-4, rtol=0)
    assert not torch.allclose(states(body, x_LD, [0, 2, 4, 6]), near, atol=1e-2)
    still = body_of(name)
    assert torch.equal(states(still, x_LD, [0, 1, 2, 3]), states(still, x_LD, [0, 2, 4, 6]))


def test_gpt_neox_turns_whole_heads() -> None:
    assert len(body_of("gpt_neox").model.rotary_emb.inv_freq) == DIM // 2 // 2


@every_named
def test_nothing_is_left_of_words(name: str) -> None:
    """No table of words, positions or token types, no pooler, nothing that is not trained."""
    body = body_of(name)
    assert not any(isinstance(module, nn.Embedding) for module in body.modules())
    words = re.compile(r"pool|wte|wpe|word|position|token_type|embed_|tok_embed")
    assert not [weight for weight in body.state_dict() if words.search(weight)]
    assert all(parameter.requires_grad for parameter in body.parameters())


@pytest.mark.parametrize("name", [name for name in NAMED if name != "mamba2"])
def test_feed_forward_is_four_times_as_wide_and_heads_share_the_width(name: str) -> None:
    shapes = [tuple(weight.shape) for weight in body_of(name).parameters() if weight.dim() == 2]
    assert any({4 * DIM, DIM} == set(shape) for shape in shapes)
    assert all(max(shape) <= 8 * DIM for shape in shapes)


@every_named
def test_dropout_is_that_of_the_config_and_not_at_the_input(name: str) -> None:
    body, x_LD = body_of(name, dropout=0.5).train(), events(6)
    one, other = states(body, x_LD, direction=min(body.directions)), states(body, x_LD, direction=min(body.directions))
    assert torch.equal(one, other) is (name == "mamba2")  # the type has none
    at_input = [module for path, module in body.named_modules() if isinstance(module, nn.Dropout) and "emb" in path]
    assert all(module.p == 0 for module in at_input)


@pytest.mark.parametrize("name", ["mistral", "modernbert"])
def test_windows_are_open(name: str) -> None:
    """The first of many events changes the state of the last; ModernBERT's own window is 128."""
    body, x_LD = body_of(name, num_layers=1), events(300)
    before = states(body, x_LD)[-1]
    assert not torch.equal(states(body, torch.cat([events(1, seed=1), x_LD[1:]]))[-1], before)
    kinds = getattr(body.model.config, "layer_types", None)
    assert kinds == ["full_attention"] if kinds else body.model.config.sliding_window is None


def test_longformer_reaches_half_a_window() -> None:
    x_LD = events(9)
    changed = torch.cat([events(1, seed=1), x_LD[1:]])
    for window, sees in ((4, False), (16, True)):
        body = body_of("longformer", num_layers=1, window=window)
        before, after = (states(body, one, direction="both") for one in (x_LD, changed))
        assert torch.allclose(before[2:3], after[2:3]) is False
        assert torch.allclose(before[3:], after[3:], atol=1e-6) is not sees


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias", "sliding_window"])
def test_attention_that_ours_is_not_is_refused(name: str) -> None:
    q_BHLK = torch.randn(1, 2, 3, 8)
    with pytest.raises(NotImplementedError, match=name):
        attention._hugging_face(nn.Identity(), q_BHLK, q_BHLK, q_BHLK, None, **{name: torch.ones(1)})


@pytest.mark.parametrize(
    ("name", "packed", "directions", "rotary"),
    [
        ("opt", True, {"causal", "both"}, True),
        ("gemma3_text", True, {"causal", "both"}, True),
        ("bloom", False, {"causal"}, False),
        ("rwkv", False, {"causal"}, False),
        ("roformer", False, {"both"}, False),
    ],
)
def test_other_types_offer_what_they_pass(name: str, packed: bool, directions: set[Direction], rotary: bool) -> None:
    kind = parts.body_class(name)
    assert (kind.packed, kind.directions, kind.rotary) == (packed, directions, rotary)


def test_weights_that_take_no_part_are_not_trained() -> None:
    body = body_of("esm")
    idle = {name for name, parameter in body.named_parameters() if not parameter.requires_grad}
    assert idle == {"model.contact_head.regression.weight", "model.contact_head.regression.bias"}


@pytest.mark.parametrize(
    ("forward", "broken"),
    [
        (lambda x_BLD, seen_BLL: seen_BLL @ x_BLD, None),
        (lambda x_BLD, seen_BLL: x_BLD.exp(), "earlier events do not change a state"),
        (lambda x_BLD, seen_BLL: x_BLD.cumsum(1), "an event changes the states of other sessions in its row"),
        (lambda x_BLD, seen_BLL: (seen_BLL + seen_BLL.mT) @ x_BLD, "later events change a state"),
        (lambda x_BLD, seen_BLL: seen_BLL @ x_BLD + torch.rand(1), "the same sessions give other states"),
        (lambda x_BLD, seen_BLL: (seen_BLL @ x_BLD).detach().requires_grad_(), "no gradient reaches the events"),
        (lambda x_BLD, seen_BLL: seen_BLL @ x_BLD + (0 * x_BLD).abs().sqrt(), "gradients are not finite"),
        (lambda x_BLD, seen_BLL: (seen_BLL @ x_BLD)[..., :3], r"its states are \[1, 22, 3\]"),
        (lambda x_BLD, seen_BLL: seen_BLL @ x_BLD / 0, "its states are not finite"),
    ],
)
def test_each_law_is_seen_to_be_broken(forward: Callable[[Tensor, Tensor], Tensor], broken: str | None) -> None:
    body = HuggingFace.__new__(HuggingFace)
    nn.Module.__init__(body)
    body.forward = lambda x_BLD, layout: forward(x_BLD, layout.mask_B1LL[:, 0].to(x_BLD.dtype))  # type: ignore[method-assign]
    with pytest.raises(FailureError, match=broken) if broken else nullcontext():
        _obey(body, "causal")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("t5", "it is an encoder with a decoder"),
        ("vit", "it reads ids or pictures or sound"),
        ("llava", "no width or no number of layers to set"),
        ("qwen3_next", "weights at width 16: give it smaller sizes under `settings`"),
    ],
)
def test_types_that_break_a_law_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        model_of(name)
    assert f"Body {name!r}" in str(error.value)


@pytest.mark.parametrize("name", ["gpt3", "transfo-xl"])
def test_names_that_nobody_knows_are_answered_with_ours(name: str) -> None:
    with pytest.raises(InputError, match=f"Unknown body {name!r}.*Known: albert, bert"):
        model_of(name)


def test_a_trial_draws_from_no_generator_of_others_and_finds_the_same_again() -> None:
    _tried.cache_clear()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = adopt("opt")
    assert torch.equal(torch.get_rng_state(), before)
    _tried.cache_clear()
    torch.manual_seed(6)
    other = adopt("opt")
    assert (one.directions, one.rotary, one.ordered, one.idle) == (
        other.directions,
        other.rotary,
        other.ordered,
        other.idle,
    )
    assert adopt("opt") is other


def test_a_type_whose_sessions_see_each_other_does_not_share_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lambda layout: torch.ones_like(layout.same_BLL)[:, None]  # noqa: E731
    monkeypatch.setattr(Layout, "mask_B1LL", property(whole))
    _tried.cache_clear()
    found = _tried("opt", "{}")
    _tried.cache_clear()
    assert isinstance(found, str) or not found.packed


def test_settings_of_a_type_are_its_own() -> None:
    config = ModelConfig.model_validate({"body": {"name": "opt", "dim": DIM, "settings": {"ffn_dim": 24}}})
    body = parts.build("body", config.body, config.body, False)
    assert body.model.decoder.layers[0].fc1.weight.shape == (24, DIM)
    for options, answer in (
        ({"settings": {"fn_dim": 24}}, "Unknown setting of opt 'fn_dim'. Did you mean 'ffn_dim'"),
        ({"setings": {}}, "Unknown key of body opt 'setings'. Did you mean 'settings'"),
        ({"settings": {"hidden_size": 20}}, "Body 'opt'"),
        ({"settings": 3}, "settings"),
    ):
        with pytest.raises(InputError, match=answer):
            model_of({"name": "opt"} | options)


def test_a_type_that_cannot_be_built_at_the_size_asked_for_says_so() -> None:
    with pytest.raises(InputError, match=r"Body 'rwkv' cannot be built \(ZeroDivisionError"):
        model_of({"name": "rwkv", "num_layers": 1})


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"'rwkv' cannot be trained with objective 'masked'.*Objectives for this body: causal"
    ):
        model_of("rwkv", objective="masked")
    with pytest.raises(InputError, match="'rwkv' has no rotary positions"):
        model_of("rwkv", positions="rotary")


@pytest.mark.parametrize("body", [{"name": "opt", "settings": {"ffn_dim": 24}}, {"name": "roformer"}])
def test_models_of_other_types_learn_and_are_saved(body: dict[str, Any], tmp_path: Path) -> None:
    objective = "causal" if body["name"] == "opt" else "masked"
    model, sessions = model_of(body, objective=objective), random_sessions(40, 50)
    batch = make_schedule(model.train(), sessions, TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        losses.append(model(batch))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
    model.eval().save(tmp_path)
    with torch.no_grad():
        assert torch.equal(model.states(sessions), SequenceModel.load(tmp_path).states(sessions))


def test_models_of_transformers_are_imported_when_one_is_chosen() -> None:
    code = (
        "import sys, modeling.parts;"
        "loaded = lambda: [name for name in sys.modules if name.startswith('transformers.models.') and '.modeling_' in name];"
        "assert loaded() == ['transformers.models.auto.modeling_auto'], loaded()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
