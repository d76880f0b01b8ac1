"""The table of faults in docs/operating.md: what tests marked with `fault` say.

`python -m tests.faults.table` writes it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "operating.md"
BEGIN, END = "<!-- faults: written by python -m tests.faults.table -->\n", "<!-- end of faults -->\n"
USUAL = {
    "goes on": "the next run goes on; its end is that of an undisturbed night",
    "one line": "one line says what it is and what to do; what was there stays, and once mended the next run goes on",
    "made again": "found before it is used, or by the next run, and made again: the same model in service",
}


def faults() -> Iterator[tuple[str, str, str]]:
    """Fault, outcome and file of each mark, the tests of this folder first."""
    files = sorted(TESTS.rglob("test_*.py"), key=lambda path: (path.parent != Path(__file__).parent, str(path)))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("fault", "pytest.mark.fault"):
                (name,) = (ast.literal_eval(given) for given in node.args)
                (outcome,) = (ast.literal_eval(given.value) for given in node.keywords)
                yield name, USUAL.get(outcome, outcome), path.relative_to(TESTS.parent).as_posix()


def table() -> str:
    rows = [f"| {name} | {outcome} | [{Path(file).stem}](../{file}) |" for name, outcome, file in faults()]
    return "\n".join(["| fault | what follows | tested in |", "|---|---|---|", *rows, ""])


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
