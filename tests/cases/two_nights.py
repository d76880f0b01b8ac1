"""Two nights of a small shop, and commands over them."""

from __future__ import annotations

from typer.testing import CliRunner

from flows.cli import app
from modeling.evaluation.pointer import champion_of
from schemas.errors import InputError
from tests.cases.test_model_in_service import Shop


def models_of(shop: Shop) -> list[str]:
    """The models that were in service, in order."""
    champion = champion_of(shop.artifacts, "shop")
    assert champion
    return [change.model for change in champion.history]


def answers(*arguments: object) -> tuple[int, str]:
    """The exit code and what was said."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    return done.exit_code if not isinstance(done.exception, InputError) else 2, done.output or str(done.exception)
