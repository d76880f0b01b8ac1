"""Find steps, encoders, bodies, losses and baselines by file name: a new file is known as soon as it is there.

`steps/drop_repeats.py` offers its class `DropRepeats` (or a function `drop_repeats`) under the name `drop_repeats`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from schemas.errors import unknown


def names(package: ModuleType) -> list[str]:
    """The names a package offers, sorted: its modules that do not begin with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def find(package: ModuleType, name: str) -> Any:
    """The class or function that the module `name` of `package` is named after.

    Raises:
        InputError: when there is no such module, with the known names.
    """
    if name not in names(package):
        raise unknown(package.__name__.rpartition(".")[2].rstrip("s"), name, names(package))
    module = importlib.import_module(f"{package.__name__}.{name}")
    wanted = name.replace("_", "").lower()
    for attribute, value in vars(module).items():
        if attribute.replace("_", "").lower() == wanted and getattr(value, "__module__", "") == module.__name__:
            return value
    raise TypeError(f"{module.__file__} must define a class or function named after its file, such as {name!r}")
