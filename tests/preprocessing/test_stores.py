"""Object stores give what folders give, and say what is wrong; one that does not answer for a moment is tried again."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pyarrow
import pytest
from moto.server import ThreadedMotoServer

from preprocessing.source.events import FILE, read_events, read_items
from preprocessing.source.files import content_hash, reading, source_files
from preprocessing.source.listing import SourceFile
from schemas.errors import AwayError, InputError
from tests.preprocessing.small import dataset_of
from tests.preprocessing.test_sources import USUAL, files_of, put, refused
from tests.slow import pared

SECRET = "hush-hush"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket of a store that speaks S3 on this machine: its file system and its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    store = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    store.mkdir("shop")
    yield store
    store.rm("shop", recursive=True)  # servers of one process share what they hold
    server.stop()


def fill(store: Any, folder: Path, prefix: str) -> None:
    for file in folder.rglob("*.*"):
        store.pipe(f"shop/{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.mark.parametrize(
    "ending", pared(["parquet", "csv", "csv.gz", "jsonl", "jsonl.zst"], {"parquet", "csv.gz", "jsonl.zst"}.__contains__)
)
def test_object_stores_give_what_folders_give(tmp_path: Path, bucket: Any, ending: str) -> None:
    for day, name in ((1, "a é"), (2, "b%20")):
        place = tmp_path / f"day={day}" / f"{name}.{ending}"
        place.parent.mkdir()
        frame = pl.DataFrame({"user_id": [day, 9], "item_id": ["x", "y"], "timestamp": ["2024-01-01", "soon"]})
        plain = frame.write_csv().encode() if "csv" in ending else frame.write_ndjson().encode()
        if ending == "parquet":
            frame.write_parquet(place)
        else:
            codec = {"gz": "gzip", "zst": "zstd"}.get(ending.rsplit(".")[-1])
            place.write_bytes(pyarrow.compress(plain, codec=codec, asbytes=True) if codec else plain)
    fill(bucket, tmp_path, "log")
    fill(bucket, tmp_path, "log-old")
    mapping = {**USUAL, "folder": "day"}
    local, remote = files_of(tmp_path, ".", mapping), files_of("s3://shop", "log", mapping)
    assert [f"log/{file.path}" for file in local.files] == [file.path for file in remote.files]
    assert remote.files[0].url == f"s3://shop/log/day=1/a é.{ending}"
    assert [file.size for file in local.files] == [file.size for file in remote.files]
    order = [FILE, "user_id"]
    here, there = (files.scan(number=True).collect().sort(order) for files in (local, remote))
    assert here.equals(there) and here["folder"].to_list() == ["1", "1", "2", "2"]
    assert files_of("s3://shop/log/", f"**/a*.{ending}", mapping).scan().collect().height == 2


def test_object_stores_tell_when_content_changes(tmp_path: Path, bucket: Any) -> None:
    put(tmp_path / "1.csv", user_id=["a"])
    fill(bucket, tmp_path, "log")
    dataset = dataset_of("s3://shop/log", events={"path": "1.csv"})
    (before,) = source_files(dataset)
    assert before.stamp.startswith("etag:") and content_hash(before) == before.stamp
    put(tmp_path / "1.csv", user_id=["b"])
    fill(bucket, tmp_path, "log")
    (after,) = source_files(dataset)
    assert after.stamp != before.stamp
    assert read_events(dataset).collect()["user_id"].to_list() == ["b"]
    assert len(content_hash(SourceFile(after.path, after.url, after.size, "2024-01-01"))) == 64  # a store without ETags


def test_object_stores_say_what_is_wrong(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("s3://shop", "s3://nowhere"):
        with pytest.raises(InputError, match=rf"no \.parquet, .* file at {source}/log"):
            files_of(source, "log")
    with pytest.raises(InputError, match=r"Unknown kind of source 'ftp://'.*Known: a folder, .*s3://"):
        files_of("ftp://shop", "log")
    with pytest.raises(InputError, match="holds a password or a key") as error:
        files_of(f"s3://somebody:{SECRET}@shop", "log")
    assert SECRET not in str(error.value)
    bucket.pipe("shop/log/1.parquet", b"damaged")
    message = refused(files_of("s3://shop", "log"))
    assert "s3://shop/log/1.parquet (Parquet): cannot be read" in message and SECRET not in message
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AwayError, match="s3://shop: does not answer") as error:
        files_of("s3://shop", "log")
    assert SECRET not in str(error.value)


def test_tables_may_be_in_object_stores(tmp_path: Path, bucket: Any) -> None:
    pl.DataFrame({"item_id": ["x"], "price": [2]}).write_parquet(tmp_path / "items.parquet")
    fill(bucket, tmp_path, "log")
    items = {"columns": {"item_id": "item_id", "price": "price"}}
    assert read_items(dataset_of("s3://shop/log", items=items)).collect().rows() == [("x", 2)]


@contextmanager
def answering_with(status: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store all answers of which have one status; 0: nobody is at its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port if status else 9}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize(("status", "kind"), [(0, AwayError), (503, AwayError), (403, InputError), (404, InputError)])
def test_a_store_that_does_not_answer_is_nobodys_mistake(
    status: int, kind: type[Exception], ending: str, tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with a file, a name or a right is; a short failure between listing and reading is tried again."""
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": ["2024-01-01"]})
    frame.write_parquet(tmp_path / "1.parquet") if ending == "parquet" else frame.write_ndjson(tmp_path / "1.jsonl")
    fill(bucket, tmp_path, "log")
    listed = files_of("s3://shop", "log")
    # A plan of Parquet has the address of its store; text is opened when the plan runs.
    look = listed.scan if ending == "parquet" else listed.scan().collect
    with answering_with(status, monkeypatch):
        with pytest.raises(kind, match=rf"s3://shop/log/1.{ending}") as error, reading("s3://shop"):
            look()
        assert "\n" not in str(error.value) and SECRET not in str(error.value)
        if kind is AwayError:
            with pytest.raises(kind, match=r"s3://shop: does not answer"):
                files_of("s3://shop", "log")


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (ConnectionResetError("peer"), True),
        (TimeoutError("took too long"), True),
        (pl.exceptions.ComputeError("Input/output error (os error 5): /mnt/events/1.csv"), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (PermissionError("the key may not"), False),
        (pl.exceptions.ComputeError("parquet: File out of specification"), False),
        (OSError("object-store error: Generic S3 error: Missing region"), False),
    ],
)
def test_what_may_pass_and_what_stays(error: Exception, away: bool) -> None:
    with pytest.raises(AwayError if away else InputError, match="events/1"), reading("events/1"):
        raise error
