"""The sequence model: inputs, body and scores, and the folder it is saved in.

B rows, L places, D width, V items of the catalogue (without the reserved ids), N predictions.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from modeling import bodies, losses
from modeling.config import ModelConfig
from modeling.data import Batch
from modeling.inputs import Inputs
from schemas import plugins
from schemas.columns import FIRST_ID
from schemas.errors import InputError, parse
from schemas.features import FeatureSchema

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class SequenceModel(nn.Module):
    """Scores every item of the catalogue as the next one of a session: h . item + bias."""

    def __init__(self, config: ModelConfig, schema: FeatureSchema, loss: str = "full_softmax") -> None:
        super().__init__()
        self.settings, self.schema = config, schema
        self.inputs = Inputs(config, schema)
        self.body = plugins.find(bodies, config.body)(config)
        self.loss = plugins.find(losses, loss)
        self.bias_V = nn.Parameter(torch.zeros(schema.num_items)) if config.output_bias else None

    def encode(self, batch: Batch) -> Tensor:
        """Hidden states h_BLD of a packed batch."""
        return self.body(self.inputs(batch), batch["segments"], batch["positions"])

    @property
    def items_VD(self) -> Tensor:
        """Vectors of the catalogue: row v belongs to item id v + 3."""
        return self.inputs.items_VD[FIRST_ID:]

    def forward(self, targets: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """The loss over all places of [B, L] `targets` that hold a real item."""
        wanted = targets >= FIRST_ID
        h_ND = self.encode(batch)[wanted]
        return {"loss": self.loss(h_ND, self.items_VD, self.bias_V, targets[wanted] - FIRST_ID)}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        about = {"model": self.settings.model_dump(), "schema": self.schema.model_dump(mode="json")}
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        safetensors.torch.save_file(self.state_dict(), folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> SequenceModel:
        """Read what `save` wrote; the model is in evaluation mode.

        Raises:
            InputError: when the files are missing or do not belong together.
        """
        try:
            about = json.loads((folder / CONFIG).read_text())
            weights = safetensors.torch.load_file(folder / WEIGHTS)
        except (OSError, json.JSONDecodeError, safetensors.SafetensorError) as error:
            raise InputError(f"{folder} is not a model folder: {error}") from None
        where = str(folder / CONFIG)
        model = cls(parse(ModelConfig, about.get("model"), where), parse(FeatureSchema, about.get("schema"), where))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from None
        return model.eval()
