"""One training step of Transformers4Rec on a view, in that library's own environment. Prints the loss and what it fed.

.peers/t4rec/bin/python tests/preprocessing/t4rec_step.py VIEW MAX_LENGTH
"""

import json
import sys
import warnings
from pathlib import Path

import dask

dask.config.set({"dataframe.query-planning": False, "dataframe.convert-string": False})  # before Merlin is imported
warnings.simplefilter("ignore")

import torch  # noqa: E402
import transformers4rec.torch as tr  # noqa: E402
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata  # noqa: E402
from transformers4rec.torch.utils.data_utils import MerlinDataLoader  # noqa: E402


def main(view: Path, max_length: int) -> None:
    torch.manual_seed(0)
    schema = TensorflowMetadata.from_proto_text_file(view).to_merlin_schema()
    schema = schema.excluding_by_name(schema.select_by_tag("target").select_by_tag("list").column_names)
    inputs = tr.TabularSequenceFeatures.from_schema(
        schema, max_sequence_length=max_length, d_output=16, masking="clm", embedding_dim_default=16
    )
    body = tr.GPT2Config.build(d_model=16, n_head=2, n_layer=1, total_seq_length=max_length)
    model = body.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True))
    files = sorted(map(str, view.glob("sessions/day=*/*.parquet")))[:-1]  # the last day is the test
    loader = MerlinDataLoader.from_schema(schema, files, 32, max_sequence_length=max_length, shuffle=False)
    batch, targets = next(iter(loader))
    loss = model(batch, targets=targets, training=True)["loss"]
    loss.backward()
    torch.optim.AdamW(model.parameters(), lr=1e-3).step()
    tables = inputs.categorical_module.embedding_tables
    told = {
        "loss": loss.item(),
        "finite": all(bool(parameter.isfinite().all()) for parameter in model.parameters()),
        "batch": {name: list(values.shape) for name, values in batch.items()},
        "tables": {name: list(table.weight.shape) for name, table in tables.items()},
        "targets": [] if targets is None else targets.tolist(),
    }
    print(json.dumps(told))


main(Path(sys.argv[1]), int(sys.argv[2]))
