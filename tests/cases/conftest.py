"""What several files of cases begin with."""

from __future__ import annotations

import pytest

from tests.cases.test_model_in_service import Shop


@pytest.fixture(scope="session")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Two nights that both promoted; a test works on a copy."""
    shop = Shop(tmp_path_factory.mktemp("nights"))
    for until in (5, 6):
        assert shop.night("", until)["promote"]
    return shop
