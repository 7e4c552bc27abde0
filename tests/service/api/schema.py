"""Is a JSON value what a JSON Schema says? The words that our OpenAPI document uses, and no others: an unknown one fails."""

from typing import Any

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
_WORDS = {"title", "description", "default", "discriminator"}


def faults(value: Any, schema: dict[str, Any], document: dict[str, Any], place: str = "$") -> list[str]:
    """What is wrong, by place; nothing if the value fits."""
    found: list[str] = []
    for word, rule in schema.items():
        match word:
            case "$ref":
                target: Any = document
                for part in rule.removeprefix("#/").split("/"):
                    target = target[part]
                found += faults(value, target, document, place)
            case "anyOf":
                if all(faults(value, each, document, place) for each in rule):
                    found.append(f"{place}: {value!r} is none of {rule}")
            case "type":
                if not isinstance(value, _KINDS[rule]) or (isinstance(value, bool) and rule != "boolean"):
                    found.append(f"{place}: {value!r} is no {rule}")
            case "enum":
                if value not in rule:
                    found.append(f"{place}: {value!r} is not in {rule}")
            case "required":
                if isinstance(value, dict):
                    found += [f"{place}: {name} is missing" for name in rule if name not in value]
            case "properties":
                if isinstance(value, dict):
                    for name, member in rule.items():
                        if name in value:
                            found += faults(value[name], member, document, f"{place}.{name}")
                    if "additionalProperties" not in schema:
                        found += [f"{place}: {name} is not described" for name in value if name not in rule]
            case "additionalProperties":
                if isinstance(rule, dict) and isinstance(value, dict):
                    for name, member in value.items():
                        found += faults(member, rule, document, f"{place}.{name}")
                elif rule is False and isinstance(value, dict):
                    found += [f"{place}: {name} is too much" for name in value if name not in schema["properties"]]
            case "items":
                if isinstance(value, list) and rule is not False:
                    for number, member in enumerate(value):
                        found += faults(member, rule, document, f"{place}[{number}]")
            case "prefixItems":
                if isinstance(value, list):
                    for number, (member, each) in enumerate(zip(value, rule, strict=False)):
                        found += faults(member, each, document, f"{place}[{number}]")
            case "minItems" | "maxItems":
                few, many = schema.get("minItems", 0), schema.get("maxItems", float("inf"))
                if isinstance(value, list) and not few <= len(value) <= many:
                    found.append(f"{place}: {len(value)} items are not {few} to {many}")
            case _:
                assert word in _WORDS, f"{place}: {word} is not known to this test"
    return found
