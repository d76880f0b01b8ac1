"""Run the checks one after the other."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tests.cuda
from tests.cuda import CHECKS, NEED_KERNELS


def main() -> None:
    """Run checks one after the other; what fails is said with its trace and stops nothing."""
    parser = argparse.ArgumentParser(
        description=tests.cuda.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--within", type=float, default=100, help="no check begins after so many seconds")
    parser.add_argument("--pretend", action="store_true")
    given = parser.parse_intermixed_args()
    given.out.mkdir(parents=True, exist_ok=True)
    names = given.names or [name for name in CHECKS if not given.pretend or name not in NEED_KERNELS]
    began, failed = time.monotonic(), 0
    for name in names:
        if time.monotonic() - began > given.within:
            report(given.out, {"check": name, "left_out": True})
            continue
        failed += not run(name, given.out, given.pretend)
    sys.exit(failed > 0)


def run(name: str, out: Path, pretend: bool) -> bool:
    """One check in a folder of its own; whether it passed."""
    folder, began = Path(tempfile.mkdtemp(prefix="cuda")), time.monotonic()
    line: dict[str, Any] = {"check": name}
    try:
        with ExitStack() as stack:
            if pretend:
                from tests.second_device import pretended_cuda

                stack.enter_context(pretended_cuda())
            line |= {"passed": True, "about": CHECKS[name](folder)}
    except Exception as error:
        line |= {"passed": False, "error": repr(error)[:500], "trace": traceback.format_exc()[-2500:]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(out, line | {"seconds": round(time.monotonic() - began, 1)})
    return bool(line["passed"])


def report(out: Path, line: dict[str, Any]) -> None:
    """Print a line, and keep it."""
    text = json.dumps(line, default=str)
    print(text, flush=True)
    with (out / "cuda.jsonl").open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
