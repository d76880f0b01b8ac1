"""Commands that hand a model to other programs: as ONNX or a package of torch, and its vectors to files and to Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.console import end, say
from flows.options import DatasetOption, JsonOption, ModelOption, RootOption
from flows.reading import folder_of
from schemas.errors import InputError

OutOption = Annotated[Path, typer.Option("--out", help="A new folder.")]


def export(
    out: OutOption,
    format: Annotated[
        Literal["onnx", "torch"],
        typer.Option("--format", help="ONNX with a repository for Triton, or a torch.export package."),
    ] = "onnx",
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """A program that turns histories into vectors, without Python: `overnight export --out FOLDER`, and the items' vectors."""
    folder = folder_of(root, dataset, model)
    from modeling.service.export import FILES, export
    from modeling.service.recommender import Recommender

    about = export(Recommender(folder, "cpu"), out, format)
    rows = f"rows of exactly {about.length} events" if about.length else "histories of any length"
    say(
        f"{out / FILES[format]}: {rows}; off the model by at most {about.difference:.2g} over histories drawn at random."
    )
    if about.items:
        say(f"{out / 'items.parquet'}: vectors of {about.items:,} items; a score is the product of the two.")
    end({"model": str(folder), "out": str(out)} | about.model_dump(mode="json"), as_json)


def vectors(
    out: Annotated[
        Path | None, typer.Option("--out", help="A new Parquet file: item, item_index, vector of every item.")
    ] = None,
    milvus: Annotated[
        str | None,
        typer.Option(
            "--milvus",
            envvar="OVERNIGHT_MILVUS",
            help="Into Milvus, and the alias overnight_DATASET to it: a server's URI, or a file *.db for Milvus Lite.",
        ),
    ] = None,
    faiss: Annotated[
        Path | None, typer.Option("--faiss", help="A new file: an index of FAISS, searched by inner product.")
    ] = None,
    index: Annotated[
        str,
        typer.Option("--index", metavar="KIND", help="With --faiss: Flat is exact; HNSW32 or IVF256,Flat are quicker."),
    ] = "Flat",
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """The vectors of items that may be recommended: `overnight vectors --out items.parquet`, or `--milvus items.db`."""
    if faiss is None and index != "Flat":
        raise InputError(f"--index {index}: that is the kind of a FAISS index; give --faiss FILE with it.")
    if out is None and milvus is None and faiss is None:
        raise InputError("Say where to: --out FILE.parquet, --faiss FILE, --milvus URI or file.db, or several of them.")
    if faiss is not None and faiss.exists():
        raise InputError(f"--faiss {faiss} is there already: name a file that is not, or remove it.")
    if out is not None and out.suffix.lower() != ".parquet":
        raise InputError(f"--out {out}: vectors are written as Parquet; give a name that ends in .parquet.")
    if out is not None and out.exists():
        raise InputError(f"--out {out} is there already: name a file that is not, or remove it.")
    folder = folder_of(root, dataset, model)
    from modeling.service.milvus import connected, publish
    from modeling.service.recommender import Recommender
    from modeling.service.retrieval import item_vectors
    from schemas.artifacts import replace_file

    recommender = Recommender(folder)
    summary: dict[str, object] = {"model": str(folder)}
    if out is not None:
        table = item_vectors(recommender)
        replace_file(out, table.write_parquet)
        say(f"{table.height:,} items in {out}.")
        summary |= {"out": str(out), "items": table.height}
    if faiss is not None:
        from modeling.service.faiss_index import EXACT, write_index

        table = item_vectors(recommender)
        found = write_index(table, faiss, index)
        exact = "exact" if index == EXACT else f"which finds {found:.1%} of the nearest items"
        say(f"{table.height:,} items in {faiss}: {index}, {exact}.")
        summary |= {"faiss": str(faiss), "index": index, "found": found, "items": table.height}
    if milvus is not None:
        with connected(milvus) as client:
            published = publish(client, recommender, folder.name, say)
        what = "written" if published.written else "was there"
        say(f"Milvus: {published.collection} {what} ({published.items:,} items); {published.alias} points to it.")
        summary |= {"collection": published.collection, "alias": published.alias, "items": published.items}
    end(summary, as_json)
