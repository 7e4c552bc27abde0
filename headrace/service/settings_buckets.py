"""`telemetry.buckets`: a histogram's own bounds, one key for each family of the metric table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Final, cast

from pydantic import BeforeValidator, Field

from headrace.observability.metrics import TABLE, Kind

BOUNDS_MAX: Final = 50
"""Each bound is a series for every set of labels."""
FAMILIES: Final = tuple(family.name for family in TABLE if family.kind is Kind.HISTOGRAM)


def bounds(value: object) -> tuple[float, ...] | None:
    """Rising numbers, as a list or with commas; the last bucket, without a bound, comes by itself. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of numbers")  # noqa: TRY004 - pydantic takes this one
    found = tuple(_number(each) for each in cast("Sequence[object]", value))
    if not found or len(found) > BOUNDS_MAX:
        raise ValueError(f"it should have 1 to {BOUNDS_MAX} numbers, but has {len(found)}")
    if any(low >= high for low, high in pairwise(found)):
        raise ValueError("each number should be larger than the one before")
    return found


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004 - as above
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{value!r} is not above 0 and finite")
    return number


Bounds = Annotated[tuple[float, ...] | None, BeforeValidator(bounds)]


def fields() -> dict[str, Any]:
    """Fields for a section made at import, in the order of the table."""
    return {
        name: (Bounds, Field(default=None, description=f"Upper bounds of `headrace_{name}`, such as `0.1, 1, 10`."))
        for name in FAMILIES
    }
