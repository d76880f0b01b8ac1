"""Commands that ask a model: what to recommend, what is alike, and what recommendations lean on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import end, say, use_plugins_of
from flows.options import DatasetOption, JsonOption, ModelOption, RootOption
from schemas.errors import InputError

BATCH = 1024  # items whose nearest are found and written at a time


def recommend(
    items: Annotated[list[str] | None, typer.Argument(help="Item ids of one session, oldest first.")] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            help="Or a file of raw events, read as the dataset's YAML says (or Parquet, CSV, JSON lines with columns named as "
            "in the dataset): their features are read too. Rows of one session_id, or user_id, are a session.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Or many histories, streamed to --out: prepared sessions, lists of item ids, or raw events as --events takes "
            "them; a file or a folder of files.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --from: the folder to write lists.parquet into.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="NAME",
            help="In place of --out: the name of the environment variable that holds a database's URL; --table is replaced.",
        ),
    ] = None,
    table: Annotated[str, typer.Option("--table", help="With --to: the table to write.")] = "recommendations",
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            help="Whose session it is: a model with inputs.past_events reads their past sessions, of the newest prepared ones.",
        ),
    ] = None,
    everyone: Annotated[
        bool,
        typer.Option(
            "--everyone", help="Lists for every user from their past sessions alone, as at midnight, to --out or --to."
        ),
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="When it is asked, such as 2026-03-08T09:00 (UTC, or with an offset; else now): --user's past ends there, and "
            "a model with inputs.query_time reads how long that is after the last event of --events.",
        ),
    ] = None,
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    model: ModelOption = None,
    count: Annotated[int, typer.Option("-k", min=1, help="How many to recommend.")] = 10,
    keep_seen: Annotated[
        bool | None,
        typer.Option(
            "--keep-seen/--hide-seen",
            help="Recommend items of the session again, or never; left out, as the model was last evaluated, else never.",
            show_default=False,
        ),
    ] = None,
    new_items: Annotated[
        Path | None,
        typer.Option(
            "--new-items",
            help="Parquet, CSV or JSON lines of items nobody clicked yet: their ids and features, to be recommended too.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The next items for a session given by its item ids, and its labels: `overnight recommend lamp-0012 lamp-0007`."""
    from flows.in_service import keeps_seen, newest_sessions
    from flows.publish_table import lists_to
    from flows.raw_events import read_events, read_items
    from flows.recommend import reads_past, recommend_all, recommend_everyone
    from flows.recommend import recommend as run
    from flows.rules import dataset_of, rules_of
    from schemas.artifacts import Artifacts

    with lists_to(out, to, table, root, say) as out:
        _require_one_way(items, events, source, out, user, everyone)
        moment = read_moment(at, bool(user or events))
        for option, path in (("--events", events), ("--from", source), ("--new-items", new_items)):
            if path is not None and not path.exists():
                raise InputError(f"{option} {path}: there is no such file{' or folder' * (path is not new_items)}.")
        folder = folder_of(root, dataset, model)
        given = read_events(dataset, folder, events, "--events") if events else items or []
        new_table = read_items(dataset, folder, new_items, "--new-items") if new_items else None
        rules = rules_of(dataset, dataset_of(folder))
        if keep_seen is None:
            hides = rules.hide_seen if rules else None
            keep_seen = keeps_seen(Artifacts(root), folder) if hides is None else not hides
        needs_past = user or everyone or (events and reads_past(folder))
        past = newest_sessions(Artifacts(root), dataset) if needs_past else None
        recent = _recent(root, dataset)
        if everyone and out and past:
            summary = recommend_everyone(folder, past, out, count, keep_seen=keep_seen, rules=rules, say=say)
        elif source and out:
            summary = recommend_all(
                folder,
                source,
                out,
                count,
                new_table,
                dataset=dataset,
                recent=recent,
                keep_seen=keep_seen,
                rules=rules,
                say=say,
            )
        else:
            summary = run(
                folder,
                given,
                count,
                new_table,
                user=user,
                past=past,
                recent=recent,
                at=moment,
                keep_seen=keep_seen,
                rules=rules,
                say=say,
            )
    end(summary | ({"out": f"{table} of {to}"} if to else {}), as_json)


def read_moment(given: str | None, is_read: bool) -> datetime | None:
    """`--at` as a moment, in UTC where it says no zone.

    Raises:
        InputError: for what is no time, and where nothing reads it.
    """
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given.strip())
    except ValueError:
        raise InputError(
            f"--at {given!r}: give a time such as 2026-03-08T09:00 or 2026-03-08T09:00:00+01:00."
        ) from None
    if not is_read:
        raise InputError(
            f"--at {given}: item ids alone, and files of --from, are not asked at a time. Give --user or --events."
        )
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _recent(root: Path, dataset: str) -> Path | None:
    """Prepared sessions that say what is popular of late, where there are any."""
    from flows.in_service import newest_sessions
    from schemas.artifacts import Artifacts

    try:
        return newest_sessions(Artifacts(root), dataset)
    except InputError:
        return None


def _require_one_way(
    items: list[str] | None,
    events: Path | None,
    source: Path | None,
    out: Path | None,
    user: str | None,
    everyone: bool,
) -> None:
    """Raise InputError for options of `recommend` that do not go together."""
    if not items and not events and not source and not user and not everyone:
        raise InputError(
            "Give the items of a session, oldest first: overnight recommend ITEM [ITEM ...], or --events FILE, or "
            "--from FILE_OR_FOLDER --out FOLDER."
        )
    if bool(items) + bool(events) + bool(source) + everyone > 1:
        raise InputError(
            "Give the items of a session, --events FILE, --from FILE_OR_FOLDER, or --everyone: one of them."
        )
    if user and (events or source or everyone):
        raise InputError(f"--user {user}: that is for the items of one session; files say whose they are (user_id).")
    if bool(source or everyone) != bool(out):
        raise InputError(
            "--from FILE_OR_FOLDER (or --everyone) and --out FOLDER go together: a file of lists comes out."
        )


def similar(
    items: Annotated[list[str] | None, typer.Argument(help="Item ids.")] = None,
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    model: ModelOption = None,
    count: Annotated[int, typer.Option("-k", "--k", min=1, help="How many of each.")] = 10,
    whole: Annotated[bool, typer.Option("--all", help="Of every item of the catalogue, to --out.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="With --all: the Parquet file to write: item_id, rank, similar_id, cosine."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The items that a model takes for most alike, by the cosine of their vectors: `overnight similar lamp-0012`."""
    if bool(items) == whole:
        raise InputError("Give items: overnight similar ITEM [ITEM ...], or --all --out FILE.parquet: one of them.")
    if whole != bool(out):
        raise InputError("--all and --out FILE.parquet go together: the whole catalogue in a file.")
    from modeling.service.recommender import Recommender

    recommender = Recommender(folder_of(root, dataset, model))
    summary: dict[str, Any] = {"model": str(recommender.folder)}
    if out:
        summary |= {"out": str(out), "rows": _write(recommender, count, out)}
        typer.echo(f"{summary['rows']:,} rows in {out}.")
    else:
        summary["similar"] = {}
        for item, nearest in zip(items or [], recommender.similar(items or [], count), strict=True):
            typer.echo(f"{item}:")
            for place, (other, cosine) in enumerate(nearest, 1):
                typer.echo(f"{place:3}  {other}  {cosine:.3f}")
            summary["similar"][item] = [{"item": other, "cosine": cosine} for other, cosine in nearest]
    end(summary, as_json)


def why(
    items: Annotated[list[str], typer.Argument(help="Item ids of one session, oldest first.")],
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    model: ModelOption = None,
    count: Annotated[int, typer.Option("-k", "--k", min=1, help="How many to recommend.")] = 10,
    events: Annotated[int, typer.Option("--events", min=1, help="How many events to name for each.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """What is recommended for a session, and the events each item leans on: how much its score falls without them."""
    from flows.in_service import keeps_seen
    from modeling.service.recommender import Recommender
    from schemas.artifacts import Artifacts

    recommender = Recommender(folder_of(root, dataset, model))
    histories, unknown = recommender.histories([items])
    if unknown:
        typer.echo(f"Not known to this model, read as unknown: {', '.join(map(str, unknown))}.")
    hide = not keeps_seen(Artifacts(root), recommender.folder)
    (answer,) = recommender.because(histories, count, filter_seen=hide, events=events)
    for place, reason in enumerate(answer, 1):
        named = [
            f"{_named(item)} ({'the only event' if fall is None else f'{fall:+.2f}'})" for item, fall in reason.events
        ]
        typer.echo(f"{place:3}  {reason.item}  because of {', '.join(named)}")
    recommended = [
        {
            "item": reason.item,
            "score": reason.score,
            "because": [{"item": item, "fall": fall} for item, fall in reason.events],
        }
        for reason in answer
    ]
    summary = {"model": str(recommender.folder), "history": items, "unknown": unknown, "recommended": recommended}
    end(summary, as_json)


def _named(item: Any) -> str:
    return "an unknown item" if item is None else str(item)


def folder_of(root: Path, dataset: str, model: str | None) -> Path:
    """The folder of the model named, else of the one in service; the dataset's own parts are read."""
    from flows.in_service import model_folder
    from schemas.artifacts import Artifacts

    folder = model_folder(Artifacts(root), dataset, model)
    if Path(dataset).is_file():
        use_plugins_of(dataset)
    return folder


def _write(recommender: Any, count: int, out: Path) -> int:
    """The nearest of every item that has any, in batches, complete or not at all; how many rows."""
    import polars as pl
    import pyarrow.parquet as pq

    if out.exists() or out.is_symlink():
        raise InputError(f"--out {out} is there already: name a file that is not, or remove it.")
    draft = out.with_name(f".{out.name}.unfinished")
    values = recommender.items.filter(pl.Series(recommender.scorer.rankable_V.tolist()))["value"]
    rows, writer = 0, None
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        for first in range(0, len(values), BATCH):
            written = recommender.similar_table(values[first : first + BATCH], count).to_arrow()
            writer = writer or pq.ParquetWriter(draft, written.schema)
            writer.write_table(written)
            rows += written.num_rows
        if writer is None:
            raise InputError("No item of this model has a training event.")
        writer.close()
        draft.rename(out)
    except OSError as error:
        raise InputError(f"--out {out}: it cannot be written ({error.strerror}).") from None
    finally:
        draft.unlink(missing_ok=True)
    return rows
