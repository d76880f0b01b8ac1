"""Build the image with Debian's buildah and run it, and the services of compose.yaml, where no container engine is.

    apt-get install --no-install-recommends buildah debootstrap crun iproute2
    make image                                          # as root
    .venv/bin/python docker/try_image.py --store DIR    # keeps the store, so that the next build is short
    .venv/bin/python docker/try_image.py --targets cpu,nvtabular,gpu    # the last takes gigabytes of CUDA

Base images come from Docker Hub; where it cannot be reached, Debian's Python (by debootstrap) and PostgreSQL (of
docker/postgres) take their names. The services run in a network of their own, so ports of this machine do not matter.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from buildah import Buildah
from pip_settings import build_options
from services import Services, read_services

DOCKER = Path(__file__).resolve().parent
PROJECT = DOCKER.parent
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
ANSWER_SECONDS = 60
DEPLOYMENT = "retrain/nightly"
# Little training; what it gives need not beat popularity to be in service.
QUICK = ('training={"epochs": 1, "threads": 1}', 'promotion={"min_gain": -0.9}')
ENGINES = {"cpu": "cpu", "nvtabular": "nvtabular"}  # by target of the Dockerfile; that of gpu needs a card
# In a network of its own with nothing but loopback; whatever runs there ends with its first process.
ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main() -> None:
    """Build, run by hand, run as compose.yaml says, each timed; ends with an error when anything fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="folder for images and containers; kept when named")
    parser.add_argument("--targets", default="cpu,nvtabular", help="of the Dockerfile; cpu is what the services are")
    parser.add_argument("--only-services", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    store = Buildah((options.store or Path(tempfile.mkdtemp(prefix="overnight-store-"))).resolve())
    if options.only_services:
        try_services(store, options.only_services)
        return
    try:
        with tempfile.TemporaryDirectory(prefix="overnight-image-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # the image's user reads the shop in it
            targets = [target for target in options.targets.split(",") if target]
            build(store, folder, targets)
            for target in targets:
                try_terminal(store, folder, target)
            again = [sys.executable, __file__, "--store", str(store.folder), "--only-services", name]
            subprocess.run([*ALONE, *again], check=True)
    finally:
        if not options.store:
            store.remove()


def build(store: Buildah, folder: Path, targets: list[str]) -> None:
    """The images of compose.yaml, and of other targets of the Dockerfile."""
    database = compose(folder)["postgres"]["image"]
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    base = next(line.split()[1] for line in lines if line.startswith("FROM python:"))
    with timed(f"base image {base}"):
        if not (store.has(base) or store.pulled(base)):
            print("Docker Hub cannot be reached: Debian's Python takes its name", flush=True)
            store.build_base(base)
    options = [f"--ignorefile={DOCKER / 'Dockerfile.dockerignore'}", *build_options(folder / "pip")]
    if not reachable(TORCH_INDEX):
        options.append("--build-arg=TORCH_INDEX=")
    for target in targets:
        with timed(f"image {image_of(folder, target)}"):
            store.build(image_of(folder, target), DOCKER / "Dockerfile", PROJECT, f"--target={target}", *options)
    with timed(f"image {database}"):
        if not (store.has(database) or store.pulled(database)):
            store.build(database, DOCKER / "postgres" / "Dockerfile", DOCKER / "postgres")
    print(store("images"), flush=True)


def image_of(folder: Path, target: str) -> str:
    """The tag of a target of the Dockerfile: that of the services for cpu, with the target behind it for others."""
    ours = str(compose(folder)["worker"]["image"])
    return ours if target == "cpu" else f"{ours}-{target}"


def try_terminal(store: Buildah, folder: Path, target: str) -> None:
    """An image by itself: whose it is, what it kept of this machine, its help, a shop and its sessions."""
    store.fresh(image_of(folder, target), "terminal")
    shop, results = folder / "shop", folder / f"results-{target}"
    for place in (shop, results):
        place.mkdir(exist_ok=True)
        place.chmod(0o777)

    def run(*words: str) -> str:
        with timed(f"{target} $ {' '.join(words)}"):
            command = store.run_words("terminal", words, {}, [f"{shop}:/events:rw", f"{results}:/artifacts:rw"])
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    require(run("id", "-u").strip() not in ("", "0"), "the image runs as root")
    require(not run("pip", "config", "list").strip(), "this machine's pip configuration is in the image")
    left = run("find", "/mnt", "/run", "-type", "f", "-not", "-name", ".containerenv")  # that is buildah's, for a run
    require(not left.strip(), f"files of the build are in the image: {left}")
    require("retrain" in run("overnight", "--help"), "overnight does not help")
    if not (shop / "events").exists():
        run("overnight", "simulate", "--out", "/events", "--days", "4", "--users", "150")
    prepare = ("overnight", "prepare", "--source", "/events", "--root", "/artifacts", "--json")
    last = run(*prepare, "--engine", ENGINES.get(target, "cpu")).splitlines()[-1]
    require(json.loads(last)["sessions"] > 0, f"no sessions: {last}")


def try_services(store: Buildah, folder: Path) -> None:
    """All services, a run by hand that completes; then all again, which still know it and serve its model."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    services = Services(store, compose(folder), folder / "compose")
    quick = [word for setting in QUICK for word in ("--param", setting)]
    run_by_hand = ("prefect", "deployment", "run", DEPLOYMENT, "--watch", *quick, "--flow-run-name")
    with services, timed("a run by hand"):
        services.run("worker", *run_by_hand, "by-hand")
    item = pl.read_parquet(folder / "shop" / "events")["item_id"].drop_nulls().mode().sort()[0]
    with services:
        runs = json.loads(services.run("worker", "prefect", "flow-run", "ls", "--limit", "200", "--output", "json"))
        states = {run["name"]: run["state"]["type"] for run in runs}
        require(states.get("by-hand") == "COMPLETED", f"the database's volume lost the run: {states}")
        require("SCHEDULED" in states.values(), f"the schedule made no runs: {states}")
        with timed("the same run again"):
            services.run("worker", *run_by_hand, "again")
        with timed("a recommendation of the model in service"):
            print(services.run("worker", "overnight", "recommend", item, "--root", "/artifacts").strip())
    print("Images and services work.", flush=True)


def compose(folder: Path) -> dict[str, Any]:
    """The services of compose.yaml, whose events are the shop in `folder`; the password is made once for it."""
    password = folder / "password"
    if not password.exists():
        password.write_text(secrets.token_hex(16))
    variables = {"POSTGRES_PASSWORD": password.read_text(), "OVERNIGHT_EVENTS": str(folder / "shop")}
    return read_services(DOCKER / "compose.yaml", variables | {"COMPOSE_PROFILES": "cpu"}, {"cpu"})


def require(holds: bool, otherwise: str) -> None:
    """Raise RuntimeError with what is the case otherwise."""
    if not holds:
        raise RuntimeError(otherwise)


def reachable(url: str) -> bool:
    """Whether something answers there."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say what was done and how long it took."""
    begun = time.monotonic()
    yield
    print(f"{what}   ({time.monotonic() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
