"""Plotly's script, for pages that hold it whole: they load nothing from elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from schemas.errors import InputError


def script_file() -> Path:
    """The file of the script in the installed package, which is not imported.

    Raises:
        InputError: when the package or its script is not there.
    """
    spec = find_spec("plotly")
    file = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    if file is None or not file.is_file():
        raise InputError("The page needs the package plotly, which is not installed here: pip install plotly.")
    return file
