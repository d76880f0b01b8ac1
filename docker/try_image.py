"""Try the image and the compose file without Docker: the same steps, in a scratch folder, as a user without rights.

.venv/bin/python docker/try_image.py [--keep] [--skip-run] [--sqlite] [--build-arg NAME=VALUE]

The Dockerfile is followed line by line: a new virtual environment stands for the image's Python, a folder for its file
system, and only what the ignore file lets through is copied. Then the image's command, a simulated shop and `prepare`
run in it; then the services of compose.yaml, in order, wait for each other's health, and a run started by hand must
complete and a scheduled one be waiting. PostgreSQL is real where it is installed, else SQLite takes its place. Not
tried: Docker itself, the base images, isolation, networks, restarts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

from image import Image
from recipe import RecipeError, context_files, read_compose, read_dockerfile
from stack import Stack, call, wait_until

DOCKER = Path(__file__).resolve().parent
PROJECT = DOCKER.parent
SHOP = ["--days", "4", "--users", "150"]
QUICK = {"training": {"epochs": 1, "threads": 1}}
RUN_SECONDS = 300


def main() -> None:
    """Try it all; exit code 0 only if every step worked."""
    parser = argparse.ArgumentParser(description="Try image and compose file without Docker.")
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder, with the logs")
    parser.add_argument("--skip-run", action="store_true", help="only build and try the terminal, no services")
    parser.add_argument("--sqlite", action="store_true", help="SQLite even where PostgreSQL is installed")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as docker build's")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="overnight-image-"))
    scratch.chmod(0o755)  # the image's user must be able to enter
    begun = time.monotonic()
    try:
        image = build(scratch, dict(pair.split("=", 1) for pair in options.build_arg))
        try_terminal(image)
        if not options.skip_run:
            try_services(image, options.sqlite)
        say(f"All of it worked, in {time.monotonic() - begun:.0f} s.")
    except (RecipeError, RuntimeError) as error:
        say(f"FAILED: {error}")
        sys.exit(1)
    finally:
        if options.keep:
            say(f"Kept: {scratch}")
        else:
            shutil.rmtree(scratch)


def build(scratch: Path, arguments: dict[str, str]) -> Image:
    """Follow the Dockerfile."""
    steps = read_dockerfile((DOCKER / "Dockerfile").read_text())
    if "TORCH_INDEX" not in arguments and not reachable("download.pytorch.org"):
        say(
            "download.pytorch.org cannot be reached: TORCH_INDEX is emptied, pip takes torch from where it is set up to."
        )
        arguments = arguments | {"TORCH_INDEX": ""}
    context = scratch / "context"
    files = context_files(PROJECT, (DOCKER / "Dockerfile.dockerignore").read_text())
    for file in files:
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / file, context / file)
    size = sum((context / file).stat().st_size for file in files)
    say(f"Build context: {len(files)} files, {size / 1e3:.0f} kB")
    image = Image(scratch / "image", context, arguments)
    begun = time.monotonic()
    for step in steps:
        image.apply(step, say)
    say(f"Image built in {time.monotonic() - begun:.0f} s.")
    return image


def try_terminal(image: Image) -> None:
    """The default command, then a small shop and its sessions."""
    for words in (
        image.command,
        ["overnight", "simulate", "--out", "/artifacts/shop", *SHOP],
        ["overnight", "prepare", "--source", "/artifacts/shop", "--root", "/artifacts/by-hand", "--json"],
    ):
        begun = time.monotonic()
        last = image.run(words).strip().splitlines()[-1]
        say(f"$ {' '.join(words)}   ({time.monotonic() - begun:.1f} s)\n    {last[:150]}")


def try_services(image: Image, sqlite: bool) -> None:
    """The services of compose.yaml, one run by hand, one waiting for the night."""
    variables = {"POSTGRES_PASSWORD": "only4this2try", "OVERNIGHT_EVENTS": str(image.path("/artifacts/shop"))}
    services = read_compose(DOCKER / "compose.yaml", variables)
    with Stack(image, services, sqlite, say) as stack:
        api = stack.url("server", "/api")
        settings = call(stack.url("server", "/ui-settings"))
        if settings["api_url"].split(":")[0] != "http" or "<html" not in str(call(stack.url("server", "/")))[:500]:
            raise RuntimeError(f"the server does not serve its UI: {settings}")
        deployment = call(f"{api}/deployments/name/retrain/nightly")
        begun = time.monotonic()
        run = call(f"{api}/deployments/{deployment['id']}/create_flow_run", {"parameters": QUICK})
        say(f"A run by hand: {run['name']}, with {json.dumps(QUICK)}")

        def ended() -> bool:
            stack.check_alive()
            return call(f"{api}/flow_runs/{run['id']}")["state"]["type"] not in ALIVE

        wait_until(ended, RUN_SECONDS, "the run")
        state = call(f"{api}/flow_runs/{run['id']}")["state"]
        if state["name"] != "Completed":
            raise RuntimeError(f"the run ended {state['name']}: {state['message']}; see {stack.logs / 'worker.log'}")
        say(f"    Completed after {time.monotonic() - begun:.0f} s: {state['message']}")
        filters = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        waiting = [r["expected_start_time"] for r in call(f"{api}/flow_runs/filter", filters) if r["auto_scheduled"]]
        if not waiting:
            raise RuntimeError("the schedule made no runs")
        say(f"    {len(waiting)} scheduled runs are waiting, the first for {min(waiting)}")


ALIVE = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")


def reachable(host: str) -> bool:
    """Whether something answers on its HTTPS port within three seconds."""
    try:
        with socket.create_connection((host, 443), timeout=3):
            return True
    except OSError:
        return False


def say(line: str) -> None:
    """Print at once: steps take long, and their order is the point."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
