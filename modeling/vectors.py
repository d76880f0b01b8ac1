"""Item vectors made elsewhere, from text or pictures: read from a file when a model is fit, kept with its weights after.

N items, V item ids, P width in the file, E width of item vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.config import PretrainedConfig
from modeling.rows import rows_of
from schemas.errors import InputError, reason, unknown

WHERE = "inputs.pretrained"


class Pretrained(nn.Module):
    """The vector of every item id, projected to the width of item vectors; zeros for items that have none.

    The file says how wide vectors are, so there is no weight before `set_vectors`, or before saved weights are loaded.
    """

    def __init__(self, config: PretrainedConfig, num_ids: int, item_dim: int) -> None:
        super().__init__()
        self.config, self.item_dim = config, item_dim
        self.project: nn.Linear | None = None
        self.vectors_VP: Tensor
        self.register_buffer("vectors_VP", None)
        self._hold(torch.zeros(num_ids, 0))

    def set_vectors(self, ids: Tensor, vectors_NP: Tensor) -> None:
        """Take the vectors of some ids."""
        vectors_VP = self.vectors_VP.new_zeros(len(self.vectors_VP), vectors_NP.shape[1])
        vectors_VP[ids] = self._scaled(vectors_NP).to(vectors_VP)
        self._hold(vectors_VP)

    def add(self, vectors_NP: Tensor | None, count: int) -> None:
        """Append ids and their vectors, or zeros."""
        old_VP = self.vectors_VP.detach()
        new_NP = old_VP.new_zeros(count, old_VP.shape[1]) if vectors_NP is None else self._scaled(vectors_NP).to(old_VP)
        self._hold(torch.cat([old_VP, new_NP]))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """The ids' own vectors x, [..., E], joined by these vectors."""
        assert self.project is not None, "set_vectors comes first"
        vector = rows_of(self.vectors_VP, ids)
        joined: Tensor = self.project(vector)
        if not self.config.replaces_id:
            return x + joined
        return torch.where((vector != 0).any(-1, keepdim=True), joined, x)

    @property
    def width(self) -> int:
        """Width in the file."""
        return self.vectors_VP.shape[1]

    def _scaled(self, vectors_NP: Tensor) -> Tensor:
        return F.normalize(vectors_NP, dim=-1) if self.config.normalised else vectors_NP

    def _hold(self, vectors_VP: Tensor) -> None:
        """Make these the vectors, as a parameter where they are trained, with a projection that fits."""
        width = vectors_VP.shape[1]
        if width and (self.project is None or self.project.in_features != width):
            self.project = nn.Linear(width, self.item_dim, bias=False).to(vectors_VP)
        if self.config.trained and width:
            self._buffers.pop("vectors_VP", None)
            self.vectors_VP = nn.Parameter(vectors_VP)
        else:
            self.vectors_VP = vectors_VP

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        saved = state_dict.get(f"{prefix}vectors_VP")
        if saved is not None and saved.shape != self.vectors_VP.shape:
            self._hold(self.vectors_VP.detach().new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def read_vectors(config: PretrainedConfig, raw: pl.Series) -> tuple[Tensor, Tensor]:
    """The vectors of those raw item ids that the file has, [N, P], and which of the ids those are, a mask.

    Raises:
        InputError: for a file that is missing, damaged or of another kind, and for vectors that are not rows of finite
            numbers, all of one width.
    """
    path = Path(config.path)
    if path.suffix not in READERS:
        raise InputError(f"{WHERE}.path {config.path!r}: expected a file of {' or '.join(READERS)}.")
    if not path.is_file():
        raise InputError(f"{WHERE}.path: there is no file {path}.")
    vectors, has_vector_N = READERS[path.suffix](path, config, raw)
    if not has_vector_N.any():
        shown = ", ".join(map(repr, raw.head(3).to_list()))
        raise InputError(f"{path} has no vector for any of the {len(raw):,} items (ids such as {shown}).")
    return vectors, has_vector_N


def _read_npy(path: Path, config: PretrainedConfig, raw: pl.Series) -> tuple[Tensor, Tensor]:
    if not raw.dtype.is_integer():
        raise InputError(
            f"{path}: row i is the item with id i, but item ids are {raw.dtype} here, such as {raw[0]!r}. Give a .parquet "
            f"file with the columns {config.key!r} and {config.column!r}."
        )
    try:
        table = np.lib.format.open_memmap(path, mode="r")  # which never reads Python objects
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a .npy file of numbers: {reason(error)}") from None
    if table.ndim != 2 or table.dtype.kind not in "fiu" or not table.shape[1]:
        raise InputError(f"{path}: expected a table of numbers, got shape {table.shape} of {table.dtype}.")
    has_vector_N = ((raw >= 0) & (raw < len(table))).to_numpy()
    return _finite(table[raw.to_numpy()[has_vector_N]], str(path)), torch.from_numpy(has_vector_N)


def _read_parquet(path: Path, config: PretrainedConfig, raw: pl.Series) -> tuple[Tensor, Tensor]:
    try:
        columns = pl.scan_parquet(path, glob=False).collect_schema()
        for key in ("key", "column"):
            if getattr(config, key) not in columns:
                raise unknown(f"column of {path} in {WHERE}.{key}", getattr(config, key), columns)
        table = pl.read_parquet(path, glob=False, columns=[config.key, config.column])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())}") from None
    given = pl.DataFrame([_keys(table[config.key], raw, path).alias("key"), table[config.column].alias("vector")])
    given = given.drop_nulls()
    if given["key"].is_duplicated().any():
        twice = given.filter(pl.col("key").is_duplicated())["key"][0]
        raise InputError(f"{path}: item {twice!r} is there more than once.")
    vectors = raw.alias("key").to_frame().join(given, on="key", how="left", maintain_order="left")["vector"]
    return as_matrix(vectors.alias(config.column), None, str(path))


def as_matrix(lists: pl.Series, width: int | None, where: str) -> tuple[Tensor, Tensor]:
    """The lists that are not null as rows of a matrix, [N, P], and which those are, a mask; `width`: P, where it is given.

    Raises:
        InputError: unless they are of finite numbers and of one width.
    """
    dtype = lists.dtype
    if not isinstance(dtype, pl.List | pl.Array) or not dtype.inner.is_numeric():
        raise InputError(f"{where}: column {lists.name!r} must hold lists of numbers, got {dtype}.")
    given = lists.drop_nulls().cast(pl.List(pl.Float64))
    widths = given.list.len().unique().sort().to_list()
    if len(widths) > 1 or 0 in widths or (width and widths not in ([], [width])):
        wanted = f"of width {width}" if width else "of one width"
        raise InputError(f"{where}: all vectors must be {wanted}, got {', '.join(map(str, widths))}.")
    numbers = given.explode(empty_as_null=True).to_numpy().astype(np.float64)  # a null becomes NaN
    has_vector_N = torch.from_numpy(lists.is_not_null().to_numpy())
    return _finite(numbers.reshape(-1, *(widths or [width or 1])), where), has_vector_N


def _finite(table: np.ndarray, where: str) -> Tensor:
    with np.errstate(over="ignore"):
        table = np.ascontiguousarray(table, np.float32)
    bad = int((~np.isfinite(table)).any(1).sum())
    if bad:
        raise InputError(f"{where}: the vectors of {bad:,} items hold numbers that are not finite in float32.")
    return torch.from_numpy(table)


def _keys(keys: pl.Series, raw: pl.Series, path: Path) -> pl.Series:
    try:
        return keys.cast(raw.dtype)
    except pl.exceptions.InvalidOperationError:
        raise InputError(
            f"{path}: column {keys.name!r} holds {keys.dtype}, item ids are {raw.dtype}, such as {raw[0]!r}."
        ) from None


READERS = {".parquet": _read_parquet, ".npy": _read_npy}
