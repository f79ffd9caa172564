import os

import pytest


@pytest.fixture
def real_data():
    """Skips where no folder of real data is named."""
    if not os.environ.get("STEELYARD_DATA"):
        pytest.skip("STEELYARD_DATA names no folder of real data sets")
