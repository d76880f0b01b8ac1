"""Bodies that transformers builds are what transformers builds, less what only words need; all obey the laws."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel

from flows.laws import bodies as laws
from flows.laws import broken
from modeling import bodies, parts
from modeling.attention import Direction, Layout
from modeling.bodies import Body, _table
from modeling.bodies._hugging_face import HuggingFace, attention_of_layout, settings_of
from modeling.config import BodyConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.training.schedule import make_schedule
from schemas import places, plugins
from schemas.errors import InputError
from tests.conftest import model_of, random_sessions
from tests.schemas.own import part
from tests.slow import pared

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
    body, x_LD = body_of(name, dropout=0.5, attention_dropout=0.5).train(), events(6)
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
        attention_of_layout(nn.Identity(), q_BHLK, q_BHLK, q_BHLK, None, **{name: torch.ones(1)})


# One of each way to be built: encoders and decoders, shared and sparse parts, biases by distance, recurrences, odd tables.
SAMPLE = (
    "bert-generation", "cohere", "deberta-v2", "esm", "falcon", "gemma2", "gpt_oss", "jamba", "lfm2", "mixtral",
    "mpt", "opt", "phi3", "qwen3_5_text", "roformer", "rwkv", "xlm",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", pared((name for name in _table.MORE if name in CONFIG_MAPPING), lambda name: name in SAMPLE)
)
def test_further_types_obey_the_laws(name: str) -> None:
    """Numbers in them are larger than in our own, and so is what rounding does."""
    for trial in laws.trials_of(name):
        assert broken(laws.LAWS, replace(trial, tolerance=5e-4)) == [], trial


def test_weights_that_take_no_part_are_not_trained() -> None:
    body = body_of("esm")
    idle = {name for name, parameter in body.named_parameters() if not parameter.requires_grad}
    assert idle == {"model.contact_head.regression.weight", "model.contact_head.regression.bias"}


@pytest.mark.parametrize("name", ["gpt3", "transfo-xl", "t5", "vit", "mobilebert"])
def test_other_names_are_answered_with_all_names_and_how_to_add_one(name: str) -> None:
    with pytest.raises(
        InputError, match=f"Unknown body {name!r}.*Known: albert, bert.* afmoe.*HuggingFace.*overnight check"
    ):
        model_of(name)


OWN = "from modeling.bodies._hugging_face import HuggingFace\n\n\nclass Name(HuggingFace):\n    model_type = '{}'\n"


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("opt", ""),
        ("bloom", "It fails"),
        ("t5", "It fails"),
        ("vit", "It fails"),
        ("no_such_type", "Unknown model type of transformers"),
    ],
)
def test_a_type_of_ones_own_is_held_to_the_laws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, words: str
) -> None:
    part(tmp_path, "bodies/name.py", OWN.format(model_type))
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    lines = [line for trial in laws.trials_of("name") for line in broken(laws.LAWS, trial)]
    assert any(words in line for line in lines) if words else lines == [], lines


def test_settings_of_a_type_are_its_own() -> None:
    class Narrow(HuggingFace):
        model_type: ClassVar[str] = "opt"
        settings: ClassVar[dict[str, Any]] = {"ffn_dim": 24}

    assert Narrow(config_of("narrow"), False).model.decoder.layers[0].fc1.weight.shape == (24, DIM)
    Narrow.settings = {"fn_dim": 24}
    with pytest.raises(InputError, match=r"Unknown setting of opt 'fn_dim'\. Did you mean 'ffn_dim'"):
        Narrow(config_of("narrow"), False)
    with pytest.raises(InputError, match="Unknown key of body opt 'ffn_dim'"):
        model_of({"name": "opt", "ffn_dim": 24})


def test_a_type_that_cannot_be_built_at_the_size_asked_for_says_so() -> None:
    with pytest.raises(InputError, match=r"Body 'rwkv' cannot be built \(ZeroDivisionError.*change body.dim"):
        model_of({"name": "rwkv", "num_layers": 1})


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"'rwkv' cannot be trained with objective 'masked'.*Objectives for this body: causal"
    ):
        model_of("rwkv", objective="masked")
    with pytest.raises(InputError, match="'rwkv' has no rotary positions"):
        model_of("rwkv", positions="rotary")


@pytest.mark.parametrize(("body", "objective"), [("opt", "causal"), ("roformer", "masked")])
def test_models_of_further_types_learn_and_are_saved(body: str, objective: str, tmp_path: Path) -> None:
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


def test_transformers_is_imported_when_one_of_its_bodies_is_chosen(tmp_path: Path) -> None:
    """What trains loads neither it, whose trainer brings accelerate, nor torch's compiler: each takes a second or more."""
    code = f"""
import sys
from pathlib import Path
import modeling.stages.training
from modeling import bodies, parts
from schemas import plugins
from tests.modeling.training.test_optimizer import run
assert {{'bert', 'gpt_neox', 'sasrec'}} < set(plugins.names(bodies))
run(Path({str(tmp_path)!r}), epochs=1)
loaded = sorted({{"transformers", "torch._dynamo", "sympy", "scipy.sparse.linalg"}} & sys.modules.keys())
assert not loaded, loaded
parts.body_class('bert')
loaded = [name for name in sys.modules if name.startswith('transformers.models.') and '.modeling_' in name]
assert loaded == ['transformers.models.auto.modeling_auto'], loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_rows_are_listed_without_importing_the_package() -> None:
    folder = Path(bodies.__path__[0])
    assert sorted(places.places(folder)) == plugins.names(bodies)
    assert not _table.TABLE.keys() & _table.MORE.keys() and places.rows_of(folder).keys() == _table.TABLE.keys()


def test_the_page_of_bodies_names_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    assert all(f"| {name} |" in page for name in plugins.names(bodies))
    further = re.findall(r"[\w.-]+", page.partition("## Further model types")[2])
    assert not {name for name in _table.MORE if name not in further and f"{name}." not in further}
