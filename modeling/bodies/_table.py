"""Model types of Hugging Face transformers that are bodies: a row each, by the name that YAML gives them.

`TABLE` holds those that `overnight models` lists, with a line about them and their paper. `MORE` holds further types by what
they can do; each is named in the same way and held to the same laws (tests/laws/test_hugging_face.py). A type that is in
neither becomes a body by a file of one's own, bodies/NAME.py of a folder of own parts, whose laws `overnight check` tries:

    from modeling.bodies._hugging_face import HuggingFace

    class Name(HuggingFace):
        model_type = "name"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from modeling.attention import Direction

if TYPE_CHECKING:
    from modeling.bodies._hugging_face import HuggingFace

HOW_TO_ADD = (
    "Another model type of Hugging Face transformers becomes a body by a file bodies/NAME.py in a folder of your own "
    "(`overnight new body NAME`): `from modeling.bodies._hugging_face import HuggingFace`, and a class that is a HuggingFace "
    'with model_type = "NAME"; `overnight check` tries whether it obeys the laws.'
)
BOTH: frozenset[Direction] = frozenset({"causal", "both"})
CAUSAL: frozenset[Direction] = frozenset({"causal"})
ENCODER: frozenset[Direction] = frozenset({"both"})


@dataclass(frozen=True)
class Row:
    """What a type is and can do; the fields from `directions` on are those of `bodies.Body`.

    `settings` go to the type's configuration as they are. `idle` are weights that take no part in hidden states, as patterns of
    their names with * for any part: they are not trained.
    """

    summary: str = ""
    paper: str = ""
    directions: frozenset[Direction] = BOTH
    packed: bool = True
    rotary: bool = True
    ordered: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()


TABLE = {
    # Item vectors are as wide as the model, so that ALBERT's and ELECTRA's projections between the two are square or none.
    "albert": Row("One block, BERT's, gone through once for each layer", "arXiv:1909.11942"),
    "bert": Row("Post-norm blocks, GELU, and a norm of the input", "arXiv:1810.04805"),
    # Its blocks alone: nothing is distilled here.
    "distilbert": Row("BERT's blocks without token types and pooler", "arXiv:1910.01108"),
    # Finding what was replaced is the objective `replaced_token`.
    "electra": Row("BERT's blocks", "arXiv:2003.10555"),
    "gpt2": Row("Pre-norm blocks, GELU, a norm at the end", "Radford et al. 2019"),
    # The architecture of Pythia, too (arXiv:2304.01373). Whole heads are rotated instead of a quarter of each: ours are small.
    "gpt_neox": Row(
        "Pre-norm blocks whose attention and feed-forward stand side by side",
        "arXiv:2204.06745",
        settings={"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}},
    ),
    # As many heads for keys as for queries. The type has dropout of attention alone, so without body.attention_dropout none.
    "llama": Row("Pre-norm blocks: RMSNorm, SwiGLU, no biases", "arXiv:2302.13971"),
    "mistral": Row("Llama's blocks", "arXiv:2310.06825"),
    "modernbert": Row("Pre-norm blocks with a gated feed-forward, no biases", "arXiv:2412.13663"),
    # Heads share the width, as in other bodies, instead of being 128 wide.
    "qwen3": Row("Llama's blocks, with a norm of queries and keys", "arXiv:2505.09388"),
    # What sets RoBERTa apart is its training.
    "roberta": Row("BERT's blocks", "arXiv:1907.11692"),
}


def _rows(names: str, **about: Any) -> dict[str, Row]:
    """The same row for several names."""
    return dict.fromkeys(names.split(), Row(**about))


MORE: dict[str, Row] = {
    **_rows(
        "apertus arcee aria_text bert-generation biogpt bitnet camembert cohere ctrl cwm data2vec-text deepseek_v3 "
        "ernie ernie4_5 eurobert flex_olmo gemma gemma3_text gemma4_unified_text glm glm4 glm4_moe "
        "glm4_moe_lite gpt-sw3 gpt_bigcode granite granite_docling_text granitemoe granitemoeshared gte helium "
        "hunyuan_v1_dense hy_v3 hyperclovax internlm3 iquestcoder jais2 jetmoe jina_embeddings_v3 "
        "layoutlm lfm2 lfm2_moe llama4_text mellum mimo_v2_flash minicpm3 minimax_m2 minimax_m3_vl_text ministral "
        "ministral3 mixtral modernbert-decoder molmo2_text nanochat nomic_bert olmo olmo2 "
        "olmo3 olmoe opt persimmon phi phi3 qwen2 qwen2_moe qwen3_moe qwen3_vl_moe_text qwen3_vl_text "
        "roberta-prelayernorm seed_oss smollm3 solar_open splinter starcoder2 ultrabert xlm-roberta "
        "xlm-roberta-xl"
    ),
    **_rows("beam cohere2 cohere2_moe exaone4 exaone_moe kolibri1 mistral4 muse_glimmer_text", rotary=False),
    "afmoe": Row(rotary=False, idle=("*.mlp.expert_bias",)),
    "diffllama": Row(settings={"attention_dropout": 0.0}),  # the difference of two kinds of attention takes none
    "doge": Row(idle=("*.self_attn.A", "*.self_attn.dt_proj.weight")),
    "ernie4_5_moe": Row(idle=("*.e_score_correction_bias",)),
    "esm": Row(idle=("*.contact_head.*",)),
    "laguna": Row(idle=("*.e_score_correction_bias",)),
    "markuplm": Row(idle=("*.xpath_unitseq2_embeddings.*",)),
    "youtu": Row(directions=CAUSAL),
    # Attention of their own: one session a row.
    **_rows(
        "big_bird deberta deberta-v2 flaubert ibert megatron-bert squeezebert tapas xlm",
        directions=ENCODER,
        packed=False,
        rotary=False,
    ),
    "roformer": Row(directions=ENCODER, packed=False, rotary=False, ordered=True, idle=("*.embed_positions.weight",)),
    "visual_bert": Row(directions=ENCODER, packed=False, rotary=False, idle=("*.embeddings.visual_*",)),
    **_rows(
        "falcon gemma2 gpt_neox_japanese gpt_oss granite_swa granitemoe_swa minimax nemotron olmo_hybrid stablelm vaultgemma",
        directions=CAUSAL,
        packed=False,
    ),
    **_rows("flint gptj imagegpt openai-gpt rwkv xglm", directions=CAUSAL, packed=False, rotary=False),
    # A state is carried from event to event, or distances are part of attention: order needs no positions.
    **_rows(
        "bailing_hybrid bloom falcon_mamba inkling_text jamba mamba mpt nemotron_h xlstm",
        directions=CAUSAL,
        packed=False,
        rotary=False,
        ordered=True,
    ),
    **_rows("falcon_h1 lfm3 qwen3_5_moe_text qwen3_5_text", directions=CAUSAL, packed=False, ordered=True),
}


@cache
def part(name: str) -> type[HuggingFace]:
    """The body of a row."""
    from modeling.bodies._hugging_face import (
        HuggingFace,  # transformers is imported for bodies that are its own alone
    )

    row = TABLE.get(name) or MORE[name]
    about = {
        "__doc__": f"{row.summary} ({row.paper})."
        if row.summary
        else f"Model type {name!r} of Hugging Face transformers.",
        "__module__": __name__,
        "model_type": name,
        "settings": row.settings,
        **{field: getattr(row, field) for field in ("directions", "packed", "rotary", "ordered", "idle")},
    }
    return cast("type[HuggingFace]", type(name, (HuggingFace,), about))
