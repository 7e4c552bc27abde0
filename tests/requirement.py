"""What a test needs and a machine may lack: a visible skip with the reason, a failure where nothing may be lacking."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test because of the machine; with `CI=true` fail it instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"With CI=true nothing may be missing. {reason}", pytrace=False)
    pytest.skip(reason)
