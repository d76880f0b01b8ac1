"""A body that transformers builds, at our sizes and without what only words need.

Taken out of every model type: the table of words, tables of absolute positions and of token types (what is added at the
input is ours alone), dropout at the input, which has its own, and the pooler. Sizes are those of BodyConfig, with a
feed-forward of 4 D and as many heads for keys as for queries; windows of attention are opened, so that every layer sees
the whole session. Activation, norms and initial weights are the type's.

Where a type looks attention up by name it gets ours, which keeps to the layout in either direction, so that sessions share
rows. A type that rotates queries and keys by position itself (rotary) gets our positions, or 0 everywhere when positions are
not rotary; where it does not, our attention rotates them. A type with attention of its own gets one session a row and a mask
of padding.

B rows, L places, D width.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
)

from modeling.attention import Direction, Layout, attend
from modeling.bodies import Body
from modeling.config import BodyConfig
from schemas.errors import InputError, unknown

ATTENTION = "overnight"  # the name by which transformers finds ours
# Keywords of kinds of attention that ours is not.
FOREIGN = ("softcap", "s_aux", "sinks", "position_bias", "sliding_window", "indices", "block_indices")

# The words that configurations have for the same few things.
# fmt: off
WIDTHS = ("hidden_size", "embedding_size", "word_embed_proj_dim")
FEED_FORWARDS = (
    "intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "d_ff", "d_inner", "dim_feedforward", "feed_forward_size",
    "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size",
)
HEADS = ("num_attention_heads", "num_key_value_heads")
HEAD_WIDTHS = ("head_dim", "rotary_dim")
CHUNKS = ("chunk_size", "mamba_chunk_size")  # places computed together, where a state is carried along
DROPOUTS = (
    "dropout", "dropout_rate", "hidden_dropout", "hidden_dropout_prob", "resid_pdrop", "resid_dropout", "residual_dropout",
    "mlp_dropout", "ff_dropout",
)
ATTENTION_DROPOUTS = (
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "lsh_attention_probs_dropout_prob",
    "local_attention_probs_dropout_prob",
)
NO_DROPOUTS = (  # of the input, or of whole layers
    "embd_pdrop", "emb_pdrop", "embedding_dropout", "embed_dropout", "layerdrop", "encoder_layerdrop", "decoder_layerdrop",
)
# fmt: on
REACHES = {"full_attention", "sliding_attention", "chunked_attention"}  # layers that differ in how far they see alone
TABLES = re.compile(r"(.*\.)?(wpe|pos(ition)?_emb(ed(ding)?s?)?|embed_positions?|token_type_embed(ding)?s?)")


class HuggingFace(Body):
    """A model type of transformers by our settings, and those that its row of the table or a subclass gives.

    A subclass is named after its file and has a `model_type`; whether it obeys the laws is for `overnight check` to try.
    """

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    flat: ClassVar[bool] = True
    rotary: ClassVar[bool] = True
    model_type: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}  # of the type's own configuration
    idle: ClassVar[tuple[str, ...]] = ()  # patterns of the names of weights that take no part in hidden states

    def __init__(self, config: BodyConfig, rotary: bool, **own: Any) -> None:
        super().__init__(config, rotary)
        settings = settings_of(self.model_type, config, {**self.settings, **own})
        self.model = _built(self.model_type, settings, _register() if self.packed else "eager")
        _strip(self.model)
        self.rotates_itself = any("rotary" in name for name, _ in self.model.named_modules())
        self._takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        for name, parameter in self.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in self.idle):
                parameter.requires_grad_(False)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        inputs: dict[str, Any] = {"inputs_embeds": x_BLD}
        if self._takes_positions:
            rotates = self.rotates and self.rotates_itself
            inputs["position_ids"] = layout.positions_BL if rotates else torch.zeros_like(layout.positions_BL)
        if self.packed:
            # Our attention has its mask from the layout. One of four dimensions keeps transformers from making another.
            inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=x_BLD.device)
            inputs |= {"layout": layout, "rotary": self.rotates and not self.rotates_itself}
        else:
            inputs["attention_mask"] = (layout.segments_BL > 0).long()
        h_BLD: Tensor = self.model(**inputs).last_hidden_state
        return h_BLD


def settings_of(model_type: str, config: BodyConfig, own: dict[str, Any]) -> PretrainedConfig:
    """A type's configuration: what BodyConfig says, as far as the type has a word for it, and settings of its own.

    Raises:
        InputError: when transformers has no such type, or the type no setting of that name, or it does not take these sizes.
    """
    if model_type not in CONFIG_MAPPING:
        raise unknown(f"model type of transformers {transformers.__version__}", model_type, CONFIG_MAPPING)
    kind = CONFIG_MAPPING[model_type]
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    ours: dict[str, Any] = dict.fromkeys(FEED_FORWARDS, 4 * config.dim)  # first: some call their width hidden_dim
    ours |= dict.fromkeys(WIDTHS, config.dim) | dict.fromkeys(HEADS, config.num_heads)
    ours |= {"num_hidden_layers": config.num_layers} | dict.fromkeys(HEAD_WIDTHS, config.dim // config.num_heads)
    ours |= dict.fromkeys(ATTENTION_DROPOUTS, config.attention_dropout)
    ours |= dict.fromkeys(DROPOUTS, config.dropout) | dict.fromkeys(NO_DROPOUTS, 0.0)
    ours |= dict.fromkeys(CHUNKS, 32) | {"vocab_size": 1, "type_vocab_size": 1, "use_cache": False}
    ours |= {name: None if "None" in type_ else 0 for name, type_ in fields.items() if name.endswith("_token_id")}
    if "layer_types" not in fields:
        ours["sliding_window"] = None
    elif REACHES.issuperset(kind().layer_types or ()):
        ours["layer_types"] = ["full_attention"] * config.num_layers
    ours, own = ({kind.attribute_map.get(name, name): value for name, value in some.items()} for some in (ours, own))
    for name in own.keys() - fields.keys():
        raise unknown(f"setting of {model_type}", name, fields)
    try:
        return kind(**{name: value for name, value in ours.items() if name in fields} | own)
    except Exception as error:  # what checks there are is the type's business
        raise _refused(model_type, error) from None


def _built(model_type: str, settings: PretrainedConfig, attention: str) -> PreTrainedModel:
    """The model of a configuration, with random weights.

    Raises:
        InputError: when it cannot be built, such as for sizes that the type does not take.
    """
    try:
        model: PreTrainedModel = AutoModel.from_config(settings, attn_implementation=attention)
    except Exception as error:  # what a type raises is its own business
        raise _refused(model_type, error) from None
    return model


def _refused(model_type: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:150]
    return InputError(
        f"Body {model_type!r} cannot be built ({type(error).__name__}: {reason}): change body.dim, num_layers or num_heads."
    )


def _strip(model: PreTrainedModel) -> None:
    """Take out what only words need, and what the input has already."""
    model.set_input_embeddings(None)
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(module, nn.Embedding) and module.weight.requires_grad and TABLES.fullmatch(name):
            setattr(model.get_submodule(parent), last, Nothing())
        elif isinstance(module, nn.Dropout) and name.startswith("emb"):
            module.p = 0.0
        elif last == "pooler":
            setattr(model.get_submodule(parent), last, nn.Identity())


class Nothing(nn.Module):
    """Stands where a table was, and adds nothing."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """0 for every position and type."""
        return self.zero


@cache
def _register() -> str:
    """Tell transformers of our attention, once a process, when the first body is built that uses it; returns its name."""
    AttentionInterface.register(ATTENTION, attention_of_layout)
    AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
    return ATTENTION


def attention_of_layout(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`attend` in the form that transformers calls; the body passes `layout` and `rotary` along as keywords."""
    for name in FOREIGN:
        if options.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    if key.shape[1] != query.shape[1]:  # grouped-query attention
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    out_BHLK = attend(
        query,
        key,
        value,
        options["layout"],
        rotary=options.get("rotary", False),
        dropout=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    return out_BHLK.transpose(1, 2).contiguous(), None
