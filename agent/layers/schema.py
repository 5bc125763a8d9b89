"""The configuration's JSON Schema, by which an editor completes keys and marks what is wrong as it is typed."""

from typing import Any, TypeAlias

from agent.settings import Settings

_Schema: TypeAlias = dict[str, Any]

# How a value of each type may be written: with quotes or without, which its key does not mind.
_WRITTEN: dict[str, _Schema] = {
    "string": {"type": ["string", "number", "boolean"]},
    "integer": {"type": ["integer", "string"], "pattern": r"^[-+]?[0-9]+$"},
    "number": {"type": ["number", "string"], "pattern": r"^[-+]?([0-9]+\.?|[0-9]*\.[0-9]+)([eE][-+]?[0-9]+)?$"},
    "boolean": {"type": ["boolean", "string"], "enum": [True, False, "true", "false", "yes", "no", "on", "off"]},
}


def schema() -> _Schema:
    """Return the JSON Schema (2020-12) of one file, as the layers accept it.

    It is pydantic's of the whole settings, less what a layer is free of: no key has to be in every file, a section may
    be empty, and a value may have quotes or none. Secrets, which have no place in a file, are refused.
    """
    whole = _of_a_layer(Settings.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "description": "A box of edge-slm."}


def _of_a_layer(node: _Schema) -> _Schema:
    if any(each.get("format") == "password" for each in node.get("anyOf", ())):
        return {"not": {}, "description": node["description"]}
    made: _Schema = {}
    for key, value in node.items():
        match key, value:
            case "title" | "required", _:  # titles are the keys again
                pass
            case "properties" | "patternProperties" | "$defs", _:
                made[key] = {name: _of_a_layer(each) for name, each in value.items()}
            case "anyOf", _:
                made[key] = [_of_a_layer(each) for each in value]
            case (("items" | "additionalProperties"), dict()):
                made[key] = _of_a_layer(value)
            case _:
                made[key] = value
    return made | _written(node)


def _written(node: _Schema) -> _Schema:
    """Return what is different about a value once it is written in a layer."""
    if "enum" in node:
        return {"type": ["string", "number"], "enum": [*node["enum"], *map(int, filter(str.isdigit, node["enum"]))]}
    if node.get("type") == "object":
        # A section of which every key is commented out is null. What names may look like, patternProperties says.
        return {"type": ["object", "null"], **({"additionalProperties": False} if "patternProperties" in node else {})}
    return _WRITTEN.get(node.get("type", ""), {})
