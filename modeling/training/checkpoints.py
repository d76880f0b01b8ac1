"""Training state on disk without pickle: tensors in safetensors, everything else in JSON. Resuming is bit-identical."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

OPTIMIZER, PROGRESS, STATE = "optimizer.safetensors", "progress.json", "trainer_state.json"


class SafeCheckpoints(Trainer):
    """A Trainer whose checkpoints hold no pickles."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(state_dict or self.model.state_dict(), folder / "model.safetensors")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        tensors = {f"{index}/{key}": value for index, slot in state["state"].items() for key, value in slot.items()}
        safetensors.torch.save_file(tensors, Path(output_dir) / OPTIMIZER)
        progress = {"groups": state["param_groups"], "scheduler": self.lr_scheduler.state_dict()}
        (Path(output_dir) / PROGRESS).write_text(json.dumps(progress))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        slots: dict[int, dict[str, Any]] = {}
        for name, value in safetensors.torch.load_file(Path(checkpoint) / OPTIMIZER).items():
            index, _, key = name.partition("/")
            slots.setdefault(int(index), {})[key] = value
        progress = json.loads((Path(checkpoint) / PROGRESS).read_text())
        self.optimizer.load_state_dict({"state": slots, "param_groups": progress["groups"]})
        self.lr_scheduler.load_state_dict(progress["scheduler"])

    def _save_rng_state(self, output_dir: str) -> None:
        version, words, gauss = random.getstate()
        kind, keys, *rest = np.random.get_state()
        tensors = {
            "python": torch.tensor(words, dtype=torch.int64),
            "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        safetensors.torch.save_file(tensors, Path(output_dir) / "random.safetensors")
        (Path(output_dir) / "random.json").write_text(json.dumps({"python": [version, gauss], "numpy": [kind, *rest]}))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        tensors = safetensors.torch.load_file(Path(checkpoint) / "random.safetensors")
        others = json.loads((Path(checkpoint) / "random.json").read_text())
        version, gauss = others["python"]
        random.setstate((version, tuple(tensors["python"].tolist()), gauss))
        kind, *rest = others["numpy"]
        np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), *rest))
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["cuda"])


def last_complete(folder: Path) -> str | None:
    """The newest checkpoint whose last file was written; one that a crash cut short is removed."""
    import shutil

    while newest := get_last_checkpoint(str(folder)):
        try:
            json.loads((Path(newest) / STATE).read_text())
            return newest
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(newest)
    return None
