"""List the files of a source: a local folder, or a prefix of an object store such as s3://bucket/events.

Object stores are reached as the environment says (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, a profile, a role) and never by
parameters, so that nothing secret stands in a dataset, a manifest or a log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import fsspec

from preprocessing.source.away import answering
from schemas.errors import AwayError, InputError, unknown

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}  # what lists each store
ETAG = "etag:"


class SourceFile(NamedTuple):
    """A file of a source. `path` is its stable name; `stamp` changes whenever the content may have."""

    path: str  # below the source, with forward slashes
    url: str  # what is opened: an absolute local path or s3://...
    size: int
    stamp: str  # mtime in ns; on object stores the ETag or, without one, the time of the last change


def is_remote(place: str) -> bool:
    """Whether the place is a URL rather than a local path."""
    return "://" in place


def join(source: str, path: str) -> str:
    """The place of `path` below the source, for opening and for people."""
    return (
        f"{source.rstrip('/')}/{path}".removesuffix("/.") if is_remote(source) else str(Path(source).absolute() / path)
    )


def list_files(source: str, below: str) -> list[SourceFile]:
    """All files at or below the path `below` of the source, in no particular order.

    Local links are followed while they stay inside the source: a linked folder is listed once, a linked file under each
    of its names. A link that leads nowhere, or to itself, is listed as a file: who reads it is answered with the reason.

    Raises:
        InputError: when the source is no folder, cannot be listed, or a link leaves it.
        AwayError: when an object store or a network disk does not answer for a moment.
    """
    if is_remote(source):
        return _list_store(source, below)
    if not Path(source).is_dir():
        raise InputError(f"The source is not a folder: {Path(source).absolute()}. Give --source FOLDER or URL.")
    try:
        with answering(join(source, below)):
            return list(_walk(Path(source).absolute(), below))
    except OSError as error:
        raise InputError(f"{join(source, below)}: cannot be listed ({error.strerror}: {error.filename})") from None


def store_options(url: str) -> dict[str, str] | None:
    """What Polars is to be given for an object store besides what it takes from the environment itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url.startswith("s3://") or not endpoint:
        return None
    return {"aws_endpoint_url": endpoint, "aws_allow_http": str(endpoint.startswith("http://")).lower()}


def _walk(root: Path, below: str) -> Iterator[SourceFile]:
    text = str(root)
    inside, seen = root.resolve(), set()
    folders, links = [root / below], list[Path]()
    while folders or links:  # links last: a file has its own name first
        place = folders.pop() if folders else links.pop()
        real = Path(os.path.realpath(place))
        if not real.is_relative_to(inside):
            raise InputError(f"{place} is a link to {real}, outside the source {root}; copy the files into the source.")
        if place.is_file():
            yield _local_file(str(place), text, place.stat())
        elif place.is_symlink() and not place.exists():
            yield _local_file(str(place), text, place.lstat())
        if real in seen or not place.is_dir():
            continue
        seen.add(real)
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append(Path(entry.path))
                elif entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    yield _local_file(entry.path, text, entry.stat())
        links.sort(reverse=True)


def _local_file(place: str, root: str, stat: os.stat_result) -> SourceFile:
    path = place.removeprefix(root).lstrip(os.sep).replace(os.sep, "/")
    return SourceFile(path, place, stat.st_size, str(stat.st_mtime_ns))


def _list_store(source: str, below: str) -> list[SourceFile]:
    address = urlsplit(source)
    if address.password or address.query:  # not repeated: the message may be logged
        raise InputError("The source's URL holds a secret; give it in the environment, such as AWS_SECRET_ACCESS_KEY.")
    if address.scheme not in PACKAGES:
        raise unknown("kind of source", f"{address.scheme}://", [*(f"{scheme}://" for scheme in PACKAGES), "a folder"])
    try:
        # Stores change behind a process that lives long: nothing is remembered from an earlier listing.
        with answering(source):
            store, root = fsspec.url_to_fs(source, skip_instance_cache=True, use_listings_cache=False)
            root = root.rstrip("/")
            found = store.find(f"{root}/{below}".removesuffix("/."), detail=True)
    except ImportError:
        package = PACKAGES[address.scheme]
        raise InputError(
            f"{source}: reading {address.scheme}:// needs the package {package}; pip install it."
        ) from None
    except FileNotFoundError:
        return []
    except AwayError:
        raise
    except Exception as error:  # each store has exceptions of its own
        reason = str(error).partition("\n")[0]
        raise InputError(f"{source}: cannot be listed ({type(error).__name__}: {reason})") from None
    about = {name.removeprefix(f"{root}/"): info for name, info in found.items() if name.startswith(f"{root}/")}
    return [
        SourceFile(path, join(source, path), info["size"], _stamp(info))
        for path, info in about.items()
        if ".." not in path.split("/")
    ]


def _stamp(about: dict[str, object]) -> str:
    known = {key.lower().replace("_", ""): value for key, value in about.items()}
    if known.get("etag"):
        return ETAG + str(known["etag"]).strip('"')
    return next((str(known[key]) for key in ("lastmodified", "updated", "mtime", "created") if known.get(key)), "")
