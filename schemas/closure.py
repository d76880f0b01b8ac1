"""The code that a result was made by: some modules and all that they import, found by reading files, without importing any.

A stage names the modules it begins with and the parts that were chosen. What it never imports (another body, a report, the
service) may change, and its results stay what they are.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from schemas.places import TABLE, rows_of

ROOMS = ("flows", "preprocessing", "modeling", "schemas")  # libraries may lie next to these, and are not followed
BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")  # where a statement holds statements
Part = tuple[str, str]  # package and name, such as ("modeling.bodies", "sasrec")


@cache
def code_of(
    root: Path,
    modules: tuple[str, ...],
    parts: tuple[Part, ...] = (),
    files: tuple[Path, ...] = (),
    alone: tuple[str, ...] = (),
) -> str:
    """A hash of `modules`, of `parts` by name, and of all modules below `root` that these and `files` import.

    `files` are those of people's own parts; what they hold is hashed elsewhere (`plugins.contents`). Names that are no built-in
    part are passed over. A part that is a row of a table counts by its row and the table's imports. `alone` are modules whose
    imports do not count.
    """
    seeds, rows = [*modules], []
    for package, name in sorted(set(parts)):
        folder = root.joinpath(*package.split("."))
        if _file_of(root, f"{package}.{name}"):
            seeds.append(f"{package}.{name}")
        elif (table := folder / f"{TABLE}.py").is_file():
            rows.append(f"{package} {name} {rows_of(folder).get(name) or table.read_text()}")
            seeds += _imports(table, f"{package}.{TABLE}", root)
    for file in files:
        seeds += _imports(file, "", root)
    found = {module: _file_of(root, module) for module in {*_closure(root, seeds), *alone}}
    digest = hashlib.sha256()
    for module, path in sorted(found.items()):
        if path:
            digest.update(module.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join(rows).encode())
    return digest.hexdigest()


def _closure(root: Path, seeds: Iterable[str]) -> set[str]:
    """The seeds, the packages they lie in, and all that these import, over and over."""
    waiting, reached = [*seeds], set[str]()
    while waiting:
        module = waiting.pop()
        if module in reached or module.rpartition(".")[2] == TABLE:  # of a table, the rows that are used count
            continue
        reached.add(module)
        waiting += [module.rpartition(".")[0]] if "." in module else []
        if path := _file_of(root, module):
            waiting += _imports(path, module if path.name != "__init__.py" else f"{module}.__init__", root)
    return reached


def _imports(path: Path, module: str, root: Path) -> list[str]:
    """The modules below `root` that a file imports, at its top or in a function; what only type checkers import is left out.

    `module` is its own name, from which relative imports count; without one these are left out, too.
    """
    return [name for name in _named(path.read_text(), module) if _file_of(root, name)]


@cache
def _named(text: str, module: str) -> tuple[str, ...]:
    """All modules that a text imports, and names that may be modules."""
    wanted: list[str] = []
    for node in _statements(ast.parse(text).body):
        if isinstance(node, ast.Import):
            wanted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.level == 0 or module):
            base = module.split(".")[: -node.level] if node.level else []
            package = ".".join([*base, *([node.module] if node.module else [])])
            wanted += [package, *(f"{package}.{alias.name}" for alias in node.names)]
    return tuple(wanted)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All statements of these and in these, without the bodies of `if TYPE_CHECKING:`; an import is never in an expression."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _statements(node.orelse)
            continue
        yield node
        for field in BLOCKS:
            yield from _statements(getattr(node, field, ()))


@cache
def _file_of(root: Path, module: str) -> Path | None:
    """The file of a module of the rooms below `root`; None for a library, or a name that is no module."""
    if module.partition(".")[0] not in ROOMS:
        return None
    path = root.joinpath(*module.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None
