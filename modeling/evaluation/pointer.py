"""The model in service: one small file a dataset, replaced in one step under a lock, with the history of its changes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas import lock
from schemas.artifacts import Artifacts, write_atomically
from schemas.errors import InputError, plain, reason

MODEL = r"^models/[0-9a-f]{16}$"
COMPARISON = r"^comparisons/[0-9a-f]{16}$"


class Change(BaseModel):
    """One model put into service in place of another."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(pattern=MODEL)
    replaced: str | None = None
    by: Literal["comparison", "clicks", "promote", "rollback"] = "comparison"
    comparison: str | None = Field(None, pattern=COMPARISON)
    when: datetime
    because: str = ""


class Keep(BaseModel):
    """A person's word that nights are to leave what is in service as it is."""

    model_config = ConfigDict(frozen=True)

    when: datetime
    because: str = ""

    def __str__(self) -> str:
        return f"held by hand since {self.when:%Y-%m-%d at %H:%M} UTC{f' ({self.because})' if self.because else ''}"


class Note(BaseModel):
    """That a hold began or ended, and why."""

    model_config = ConfigDict(frozen=True)

    action: Literal["hold", "release"]
    when: datetime
    because: str = ""


class Champion(BaseModel):
    """The model in service for one dataset, as its pointer file says. `previous` is what a rollback puts back."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(pattern=MODEL)
    comparison: str | None = Field(None, pattern=COMPARISON)
    promoted: datetime
    previous: str | None = Field(None, pattern=MODEL)
    history: tuple[Change, ...] = Field((), description="All changes, the newest last.")
    notes: tuple[Note, ...] = Field((), description="When a hold began and ended, the newest last.")
    hold: Keep | None = Field(None, description="While set, nights do not change what is in service.")
    token: int = Field(0, description="That of the lock on pointers with which this was written.")

    def applied(self, comparison: str) -> bool:
        """Whether this comparison put a model into service once."""
        return comparison in (self.comparison, *(change.comparison for change in self.history))

    def taken_out(self, model: str) -> Change | None:
        """The rollback that took a model out of service, unless it was put back since."""
        for change in reversed(self.history):
            if change.model == model:
                return None
            if change.replaced == model and change.by == "rollback":
                return change
        return None


def champion_of(artifacts: Artifacts, dataset: str) -> Champion | None:
    """The model in service; None before the first promotion, and where a person set `model` to null: nothing is in service.

    Raises:
        InputError: when the pointer cannot be read.
    """
    path = pointer_of(artifacts, dataset)
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.get("model", "") is None:
            return None
        return Champion.model_validate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {plain(fault['msg'])}" for fault in error.errors()
        ) if isinstance(error, ValidationError) else reason(error)  # fmt: skip
        raise InputError(
            f"{path} is not a champion pointer ({why}). Mend it, or name the model to be in service: "
            f"`overnight promote MODEL --dataset {dataset}`."
        ) from None


def names_in_service(artifacts: Artifacts) -> list[str]:
    """The datasets for which a model is in service; not those whose pointer is emptied or damaged."""
    names = sorted(path.stem for path in (artifacts.root / "champions").glob("*.json"))
    return [name for name in names if _names_a_model(artifacts, name)]


def _names_a_model(artifacts: Artifacts, dataset: str) -> bool:
    try:
        return champion_of(artifacts, dataset) is not None
    except InputError:
        return False


def pointer_of(artifacts: Artifacts, dataset: str) -> Path:
    """The pointer file of a dataset.

    Raises:
        InputError: for a name that would lead out of the folder of pointers.
    """
    if Path(dataset).name != dataset:
        raise InputError(f"Dataset {dataset!r}: a name is expected, without folders, such as demo.")
    return artifacts.root / "champions" / f"{dataset}.json"


@contextmanager
def changing(artifacts: Artifacts, what: str, say: Callable[[str], object] = print) -> Iterator[int]:
    """The lock on the pointers of a root while one is read and replaced; gives its token, above those in the pointers.

    It is not that of nights: a model can be put back while a night trains.

    Raises:
        InputError: when another process holds it and does not end.
    """
    above = 0
    for path in (artifacts.root / "champions").glob("*.json"):
        with suppress(InputError):
            champion = champion_of(artifacts, path.stem)
            above = max(above, champion.token if champion else 0)
    with lock.holding(artifacts.root, lock.POINTERS, what, say, above=above) as held:
        yield held.token


def put_in_service(
    artifacts: Artifacts,
    dataset: str,
    model: str,
    *,
    by: Literal["comparison", "clicks", "promote", "rollback"],
    comparison: str | None = None,
    because: str = "",
) -> Champion:
    """Point to another model, in one step. A pointer that cannot be read is kept as NAME.json.damaged.

    Raises:
        InputError: when another process changes pointers and does not end.
    """
    with changing(artifacts, f"{by} for {dataset}") as token:
        path = pointer_of(artifacts, dataset)
        try:
            now = champion_of(artifacts, dataset)
        except InputError:
            now = None
            os.replace(path, path.with_name(f"{path.name}.damaged"))  # noqa: PTH105
        replaced = now.model if now else None
        when = datetime.now(UTC)
        change = Change(model=model, replaced=replaced, by=by, comparison=comparison, when=when, because=because)
        history = (*_history(now), change)
        champion = Champion(
            model=model,
            comparison=comparison,
            promoted=when,
            previous=_before(history) if by == "rollback" else replaced,
            history=history,
            notes=now.notes if now else (),
            hold=now.hold if now else None,
        )
        return _write(artifacts, dataset, champion, token)


def set_hold(artifacts: Artifacts, dataset: str, hold: bool, because: str = "") -> Champion:
    """Have nights leave what is in service as it is, or not any more; returns the pointer afterwards.

    Raises:
        InputError: when nothing is in service, it is held already, or it is not held.
    """
    with changing(artifacts, f"{'hold' if hold else 'release'} for {dataset}") as token:
        now = champion_of(artifacts, dataset)
        if now is None:
            raise InputError(f"Nothing is in service for {dataset!r} in {artifacts.root}: there is nothing to hold.")
        if hold and now.hold:
            raise InputError(f"{now.model} is {now.hold} already. To end that: `overnight promote --release`.")
        if not hold and not now.hold:
            raise InputError(f"{now.model} is not held: nights change what is in service for {dataset!r}.")
        keep = Keep(when=datetime.now(UTC), because=because) if hold else None
        action: Literal["hold", "release"] = "hold" if hold else "release"
        note = Note(action=action, when=datetime.now(UTC), because=because)
        return _write(artifacts, dataset, now.model_copy(update={"hold": keep, "notes": (*now.notes, note)}), token)


def _write(artifacts: Artifacts, dataset: str, champion: Champion, token: int) -> Champion:
    written = champion.model_copy(update={"token": token})
    write_atomically(pointer_of(artifacts, dataset), written.model_dump_json(indent=2) + "\n")
    return written


def why_withdrawn(
    artifacts: Artifacts, dataset: str, champion: Champion | None, candidate: str, comparison: str
) -> str:
    """Why a candidate that was in service before does not come back by this comparison; empty where it may."""
    stays, path = (champion.model if champion else "nothing"), pointer_of(artifacts, dataset)
    if stays == candidate:
        return ""
    out = champion.taken_out(candidate) if champion else None
    if out:
        because = f" ({out.because})" if out.because else ""
        how = f"was taken out of service on {out.when:%Y-%m-%d at %H:%M} UTC{because}"
    elif champion.applied(comparison) if champion else _named_in_emptied(artifacts, dataset, comparison):
        how = f"was put into service by this comparison before, and {path} was changed since"
    else:
        return ""
    return f"{candidate} {how}: {stays} stays in service. To put it back: `overnight promote {candidate} --dataset {dataset}`."


def _named_in_emptied(artifacts: Artifacts, dataset: str, comparison: str) -> bool:
    """Whether a pointer whose `model` a person set to null says that this comparison was applied."""
    try:
        text = pointer_of(artifacts, dataset).read_text()
    except (OSError, ValueError):
        return False
    return comparison in text


def _before(history: tuple[Change, ...]) -> str | None:
    """What a rollback after these changes puts back: each goes one step further.

    A, B and A again were put into service: a rollback gives B, the next one A, and then there is none.
    """
    steps: list[str] = []
    for change in history:
        if not steps and change.replaced:
            steps.append(change.replaced)
        if change.by == "rollback" and change.model in steps[:-1]:
            steps.pop()
            while steps[-1] != change.model:
                steps.pop()
        elif steps[-1:] != [change.model]:  # a pointer that was changed by hand may name what is there
            steps.append(change.model)
    return steps[-2] if len(steps) > 1 else None


def _history(now: Champion | None) -> tuple[Change, ...]:
    """The changes so far; of a pointer that was written without them, the one it stands for."""
    if now is None or now.history:
        return now.history if now else ()
    return (Change(model=now.model, replaced=now.previous, comparison=now.comparison, when=now.promoted),)
