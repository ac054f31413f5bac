"""Examples for the OpenAPI document, made from those of schemas and their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def example_of(schema: Schema, components: Mapping[str, Schema]) -> Any:
    """A value that fits the schema: its own first example, or one made of the examples and defaults of its fields.

    A nullable field without an example is null. `components` are the schemas that may be referred to. Any other field
    without an example or default becomes null as well, which does not fit its schema: give it `examples=[...]`.
    """
    schema = resolve(schema, components)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    choices = [resolve(choice, components) for key in ("anyOf", "oneOf") for choice in schema.get(key, ())]
    if choices and not any(choice.get("type") == "null" for choice in choices):
        return example_of(choices[0], components)
    if schema.get("type") == "array":
        return [example_of(schema["items"], components)] if "items" in schema else []
    if schema.get("type") == "object":
        return {name: example_of(part, components) for name, part in schema.get("properties", {}).items()}
    return None


def resolve(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    """The schema that a reference leads to, or the schema itself; keys beside the reference override it."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**components[reference.rpartition("/")[2]], **beside}
