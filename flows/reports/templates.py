"""Pages and pictures from the templates beside this file: every value is escaped, nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The text of a template of this folder, filled with `values`."""
    return _environment().get_template(template).render(**values)


def format_number(number: float) -> str:
    """A number as people read it: 12,400 or 0.0312."""
    if 1000 <= abs(number) < 1e12 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.3g}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = format_number
    return environment
