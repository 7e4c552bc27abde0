"""Build hook: the wheel carries the order example, so that `headrace demo` runs without a checkout.

Not `force-include` in pyproject.toml: that applies to editable installs too, where the copy would go stale and, as a
folder `headrace` without `__init__.py`, would stand beside the real package.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ExampleHook(BuildHookInterface[Any]):
    """Adds `examples/orders` to a standard wheel as `headrace/_examples/orders`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["examples/orders"] = "headrace/_examples/orders"
