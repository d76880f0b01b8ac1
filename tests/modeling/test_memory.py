"""Page faults are counted in processes of their own: the setting is a process's, and so is what was allocated before.

They are forks of one that has torch loaded and has allocated nothing else.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from modeling.stages import memory
from modeling.stages.memory import CHOSEN, kept_memory

BLOCK_MIB, TIMES = 48, 40
FORKS = f"""
import json, os, resource, sys, threading
import torch
from modeling.stages.memory import kept_memory

def loop(mib={BLOCK_MIB}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    total = sum(float(torch.ones(mib << 18)[:: 1 << 18].sum()) for _ in range({TIMES}))
    assert total == mib * {TIMES}
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for script in sys.stdin:
    if not (pid := os.fork()):
        exec(json.loads(script))
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(1)
"""
Run = Callable[[str], dict[str, int]]
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a script in a process of its own: what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(CHOSEN)}
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdin and process.stdout
    lines, said = process.stdin, process.stdout

    def one(script: str) -> dict[str, int]:
        print(json.dumps(script), file=lines, flush=True)
        return dict(json.loads(said.readline()))

    yield one
    process.communicate()


@needs_glibc
def test_large_tensors_cause_few_page_faults_within_and_as_many_as_ever_after(run: Run) -> None:
    faults = run("""
before = loop()
with kept_memory() as kept:
    first, again = loop(), loop()
print(json.dumps({"before": before, "again": again, "after": loop(), "kept": kept}))
""")
    assert faults["kept"]
    assert faults["again"] < faults["before"] / 4
    assert faults["after"] > faults["before"] / 4


@needs_glibc
def test_the_outermost_of_several_blocks_ends_it_also_among_threads(run: Run) -> None:
    faults = run("""
before = loop()
with kept_memory():
    with kept_memory():
        loop()
    inner = loop()
    def other():
        with kept_memory():
            loop(1)
    threads = [threading.Thread(target=other) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    joined = loop()
print(json.dumps({"before": before, "inner": inner, "joined": joined}))
""")
    assert faults["inner"] < faults["before"] / 4
    assert faults["joined"] < faults["before"] / 4


@needs_glibc
def test_what_is_free_is_returned_at_the_end(run: Run) -> None:
    resident = run("""
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
loop()
before = resident()
with kept_memory():
    blocks = [torch.ones(mib << 18) for mib in (96, 96, 96)]
    end = torch.ones(10)
    del blocks
    within = resident()
print(json.dumps({"before": before, "within": within, "after": resident()}))
""")
    assert resident["within"] > resident["before"] + 200
    assert resident["after"] < resident["before"] + 100


def test_nothing_is_done_where_the_c_library_is_another_or_somebody_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    with kept_memory() as kept:
        assert not kept
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    for name in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", name)
        with kept_memory() as kept:
            assert not kept


def test_a_block_that_fails_ends_it_as_well() -> None:
    with pytest.raises(RuntimeError), kept_memory():
        raise RuntimeError
    assert memory._inside == 0
