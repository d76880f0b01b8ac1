"""Write a model down for programs that run no Python: ONNX, or a package of `torch.export`.

    OUT/states.onnx or states.pt2     `dense.Dense`: a history in encoded ids -> its query vector, and labels
    OUT/items.parquet                 `retrieval.item_vectors`: the score of an item is query . vector
    OUT/schema.json, vocabularies/    what the ids of inputs mean, as in the model folder
    OUT/export.json                   `Export`: inputs, outputs, sizes
    OUT/triton/                       with ONNX: a model repository for NVIDIA Triton

A body whose code depends on the length of its rows is written for rows of one length; the number of histories is always free.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from modeling.config import NEXT_ITEM
from modeling.service.dense import ASKED_AFTER, LENGTH, Dense
from modeling.service.recommender import Recommender
from modeling.service.retrieval import item_vectors
from modeling.service.triton import Port, write_repository
from schemas.errors import InputError
from schemas.features import FeatureColumn

Format = Literal["onnx", "torch"]
FILES = {"onnx": "states.onnx", "torch": "states.pt2"}
ABOUT, ITEMS = "export.json", "items.parquet"
TOLERANCE = 1e-4  # between what the exported program gives and the model
OPSET = 20
NOT_IN_ONNX = ("longformer",)  # bodies whose translation by torch.onnx does not end within five minutes
TRIED = ((1, 1), (2, 3), (5, 7))  # histories and places; a body of one length has the last number replaced


class Export(BaseModel):
    """What was exported. `length`: rows have exactly so many places; None: as many as are given, of which the model reads the
    `reads` most recent. `difference` is the largest between the program and the model over histories drawn at random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    dataset: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    length: int | None
    reads: int
    items: int
    difference: float


def export(recommender: Recommender, out: Path, format: Format = "onnx") -> Export:
    """Write a model's export into the new folder `out`, complete or not at all, and say what it is.

    Raises:
        InputError: where `out` is there already, what the format needs is not installed, or the model cannot be exported, with
            the reason.
    """
    if out.exists():
        raise InputError(f"--out {out} is there already: name a folder that is not, or remove it.")
    draft = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        about = _write(recommender, draft, format)
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return about


def _write(recommender: Recommender, out: Path, format: Format) -> Export:
    dense = Dense(recommender.model)
    if format == "onnx" and (body := dense.model.settings.body.name) in NOT_IN_ONNX:
        raise InputError(
            f"The body {body} is not written as ONNX: torch.onnx does not come to an end with it. Take --format torch, or "
            "serve the model with `overnight api`."
        )
    program, length = _exported(dense)
    file = out / FILES[format]
    run = _save_onnx(program, dense, file) if format == "onnx" else _save_torch(program, file)
    difference = max(_difference(dense, run, shape) for shape in _tried(length))
    if not difference <= TOLERANCE:
        raise InputError(
            f"The exported program gives other numbers than the model: off by {difference:.3g}, more than {TOLERANCE:g}. Serve "
            "the model with `overnight api` instead."
        )
    num_items = 0
    if NEXT_ITEM in recommender.model.heads:
        vectors = item_vectors(recommender)
        num_items = vectors.height
        vectors.write_parquet(out / ITEMS)
    shutil.copy2(recommender.folder / "schema.json", out / "schema.json")
    shutil.copytree(recommender.folder / "vocabularies", out / "vocabularies")
    about = Export(
        format=format,
        dataset=recommender.schema.dataset,
        inputs=_inputs(dense, length),
        outputs=_outputs(dense),
        length=length,
        reads=dense.model.longest - int(dense.model.objective.asks),
        items=num_items,
        difference=difference,
    )
    (out / ABOUT).write_text(about.model_dump_json(indent=2) + "\n")
    if format == "onnx":
        write_repository(out / "triton", file, about.dataset, about.inputs, about.outputs)
    return about


def _exported(dense: Dense) -> tuple[torch.export.ExportedProgram, int | None]:
    """The program, and the one length of its rows, None where they may have any."""
    longest = dense.model.longest - int(dense.model.objective.asks)
    histories, places = torch.export.Dim("histories", min=1, max=2**20), torch.export.Dim("places", min=1, max=2**14)
    reasons = []
    for length in (None, longest):
        example = draw(dense, 3, length or max(longest, 5))
        rows = {0: histories} if length else {0: histories, 1: places}
        shapes = [{0: histories} if value.dim() == 1 else rows for value in example]
        try:
            with torch.no_grad(), _quiet():
                return torch.export.export(
                    dense, example, dynamic_shapes=(shapes[0], tuple(shapes[1:])), strict=False
                ), length
        except Exception as error:  # whatever torch finds in a body that it cannot follow
            reasons.append(" ".join(str(error).split())[:200])
    raise InputError(
        f"The body {dense.model.settings.body.name} cannot be exported: {reasons[-1]}. Serve the model with `overnight api`."
    )


def draw(dense: Dense, num_histories: int, num_places: int) -> tuple[Tensor, ...]:
    """Histories drawn at random as `Dense` takes them, always the same: every id may come up."""
    generator = torch.Generator().manual_seed(num_histories)
    length_N = torch.randint(1, num_places + 1, (num_histories,), generator=generator)
    inside_NL = torch.arange(num_places) < length_N[:, None]
    values = []
    for column in dense.columns:
        shape = (num_histories, num_places) if column.per == "event" else (num_histories,)
        shape = (*shape, 2) if column.many else shape
        if column.kind == "categorical":
            value = torch.randint(1, int(column.cardinality or 2), shape, generator=generator)
        else:
            value = torch.rand(shape, generator=generator)
        if column.per == "event":
            value = value * (inside_NL[..., None] if column.many else inside_NL)
        values.append(value)
    if ASKED_AFTER in dense.inputs:
        values.append(torch.rand(num_histories, generator=generator).double() * 1000)
    return length_N, *values


def _save_onnx(program: torch.export.ExportedProgram, dense: Dense, file: Path) -> Callable[..., list[Any]]:
    """Write ONNX; how it is run under onnxruntime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx asks for it)
    except ImportError as error:
        raise InputError(
            f"ONNX needs packages that are not installed ({error.name}): pip install 'overnight[export]'."
        ) from None
    try:
        with _quiet():
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(dense.inputs),
                output_names=list(dense.outputs),
                custom_translation_table=_translations(),
            )
            assert written is not None
            written.save(str(file))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"This model has no form in ONNX: {reason}. Take --format torch, or serve it with `overnight api`."
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda *given: session.run(None, dict(zip(names, (value.numpy() for value in given), strict=True)))


def _save_torch(program: torch.export.ExportedProgram, file: Path) -> Callable[..., list[Any]]:
    with _quiet():
        torch.export.save(program, file)
    module = program.module()
    return lambda *given: [value.detach().numpy() for value in module(*given)]


def _difference(dense: Dense, run: Callable[..., list[Any]], shape: tuple[int, int]) -> float:
    given = draw(dense, *shape)
    with torch.no_grad():
        wanted = dense(*given)
    return max(float((torch.from_numpy(got) - want).abs().max()) for got, want in zip(run(*given), wanted, strict=True))


def _tried(length: int | None) -> list[tuple[int, int]]:
    return [(count, length or places) for count, places in TRIED]


def _inputs(dense: Dense, length: int | None) -> tuple[Port, ...]:
    ports = [Port(name=LENGTH, dtype="int64", shape=("N",))]
    ports += (_port(column, length) for column in dense.columns)
    if ASKED_AFTER in dense.inputs:
        ports.append(Port(name=ASKED_AFTER, dtype="float64", shape=("N",)))
    return tuple(ports)


def _port(column: FeatureColumn, length: int | None) -> Port:
    shape: tuple[str | int, ...] = ("N", length or "L") if column.per == "event" else ("N",)
    dtype: Literal["int64", "float32"] = "int64" if column.kind == "categorical" else "float32"
    return Port(name=column.name, dtype=dtype, shape=(*shape, "W") if column.many else shape)


def _outputs(dense: Dense) -> tuple[Port, ...]:
    ports = []
    for name in dense.outputs:
        wide = name not in dense.labels
        width = dense.model.next_item.catalogue(dense.model.inputs.items).shape[1] if wide else 0
        width += int(wide and dense.model.next_item.bias_V is not None)
        ports.append(Port(name=name, dtype="float32", shape=("N", width) if wide else ("N",)))
    return tuple(ports)


def _translations() -> dict[Any, Any]:
    """Operators that ONNX lacks."""
    from modeling.service.onnx_operators import exponent

    return {torch.ops.aten.frexp.Tensor: exponent}


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export and torch.onnx warn of their own ways, and log what they go through."""
    logger = logging.getLogger("torch.onnx")
    before, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.level = before
