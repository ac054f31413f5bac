"""docs/api.md from the OpenAPI document: every operation with its own examples. `make docs` writes it.

python -m api.server.reference docs/api.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from api.server.app import create_app
from api.server.errors import PROBLEM_JSON
from api.server.examples import Schema, resolve
from core.settings import Settings

_HEAD = """# The API

Made by `make docs` from the OpenAPI document (`make run`, then `/openapi.json` or `/docs`): change routes and models,
not this file. Paths are under the service's address, `http://127.0.0.1:8000` for `make run`. Where there are API keys,
send `Authorization: Bearer hdb_...`. A [test key](keys.md#test-keys) answers with fixed pictures in about a second.

Every failure is an `application/problem+json` with a stable `code`; its `detail` says what to do, and `request_id`
names the request in the service's logs. What can succeed later has `Retry-After`. Query parameters and fields that are
not listed here are refused with 422, on every path.

```json
PROBLEM
```
"""


def reference(document: dict[str, Any]) -> str:
    """The OpenAPI document as Markdown; the same document always gives the same text."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines = _operation(method, path, operation, document["components"]["schemas"])
            by_tag.setdefault(operation["tags"][0], []).append("\n".join(lines))
    contents = [f"- [{tag}](#{tag})" for tag in by_tag]
    sections = ["\n\n".join([f"## {tag}", *operations]) for tag, operations in by_tag.items()]
    problem = document["paths"]["/v1/subjects"]["post"]["responses"]["422"]["content"][PROBLEM_JSON]["examples"]
    head = _HEAD.replace("PROBLEM", _json(problem["no-face"]["value"]))
    return "\n\n".join([head + "\n" + "\n".join(contents), *sections]) + "\n"


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield f"**{operation['summary']}.** {operation['description']}"
    yield from _parameters(operation.get("parameters", []), schemas)
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        yield f"\nSend `{kind}`:\n"
        yield from _fields(resolve(media["schema"], schemas), schemas)
        yield from _examples(media)
        yield from _examples({"examples": {n: {"value": v} for n, v in enumerate(_further_examples(media, schemas))}})
    failures = []
    for status, response in sorted(operation["responses"].items()):
        problems = response.get("content", {}).get(PROBLEM_JSON, {}).get("examples", {})
        failures += [(status, code, example["summary"]) for code, example in problems.items()]
        if not problems:
            yield from _answer(status, response)
    if failures:
        yield "\n| failure | code | |\n|---|---|---|"
        yield from (f"| {status} | `{code}` | {_cell(text)} |" for status, code, text in failures)


def _parameters(parameters: list[dict[str, Any]], schemas: dict[str, Any]) -> Iterator[str]:
    if parameters:
        yield "\n| parameter | in | | |\n|---|---|---|---|"
    for each in parameters:
        kind = _kind(each["schema"], schemas)
        yield f"| `{each['name']}` | {each['in']} | {kind} | {_cell(each.get('description', ''))} |"


def _fields(schema: Schema, schemas: Mapping[str, Schema]) -> Iterator[str]:
    if not schema.get("properties"):
        return
    yield "| field | | |\n|---|---|---|"
    yield from _rows(schema, schemas)
    yield ""


def _rows(schema: Schema, schemas: Mapping[str, Schema], inside: str = "") -> Iterator[str]:
    """A row for each field, followed by rows for the fields in it: `options.rank`, `blend[].weight`."""
    needed = schema.get("required", [])
    for name, field in schema["properties"].items():
        mark = " (needed)" if name in needed else ""
        yield f"| `{inside}{name}`{mark} | {_kind(field, schemas)} | {_cell(field.get('description', ''))} |"
        for choice in field.get("anyOf", [field]):
            found = resolve(choice, schemas)
            items = resolve(found.get("items", {}), schemas)
            for part, dots in ((found, "."), (items, "[].")):
                if part.get("properties"):
                    yield from _rows(part, schemas, f"{inside}{name}{dots}")


def _answer(status: str, response: dict[str, Any]) -> Iterator[str]:
    headers = ", ".join(f"`{name}`" for name in response.get("headers", {}))
    yield f"\n**{status}** {response['description']}" + (f" With {headers}." if headers else "")
    for kind, media in response.get("content", {}).items():
        if media["schema"].get("format") == "binary":
            yield f"\n`{kind}`"
        else:
            yield ""
            yield from _examples(media)


def _examples(media: dict[str, Any]) -> Iterator[str]:
    single = [media["example"]] if "example" in media else []
    for value in single + [example["value"] for example in media.get("examples", {}).values()]:
        yield f"```\n{value.strip()}\n```" if isinstance(value, str) else f"```json\n{_json(value)}\n```"


def _further_examples(media: dict[str, Any], schemas: Mapping[str, Schema]) -> list[Any]:
    """The examples of a body's model but the first, which is used everywhere."""
    return list(resolve(media["schema"], schemas).get("examples", [])[1:])


def _kind(schema: Schema, schemas: Mapping[str, Schema]) -> str:
    """A type in a few words: its name, its bounds, its default."""
    schema = resolve(schema, schemas)
    choices = [resolve(choice, schemas) for choice in schema.get("anyOf", [])]
    choices = [choice for choice in choices if choice.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(_kind(choice, schemas) for choice in choices))
    words = [" ".join(f"`{value}`" for value in schema["enum"]) if "enum" in schema else schema.get("type", "")]
    if "const" in schema:
        words = [f"`{schema['const']}`" if isinstance(schema["const"], str) else f"`{_json(schema['const'])}`"]
    if schema.get("items"):
        words[0] = f"list of {_kind(schema['items'], schemas)}"
        few, many = schema.get("minItems", 0), schema.get("maxItems")
        words += [f"({few}–{many})"] if many else []
    low, above, high = (_number(schema.get(key)) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above:
        words.append(f"over {above}, at most {high}" if high else f"over {above}")
    elif low or high:
        words.append(f"{low}–{high}")
    if "multipleOf" in schema:
        words.append(f"in steps of {_number(schema['multipleOf'])}")
    if schema.get("maxLength") is not None:
        words.append(f"of at most {schema['maxLength']} characters")
    if isinstance(schema.get("default"), bool | int | float | str) and schema["default"] != "":
        words.append(f"({schema['default']})")
    return " ".join(words)


def _number(bound: float | None) -> str:
    return "" if bound is None else str(int(bound) if bound == int(bound) else bound)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the named file, and return the exit status: 2 without a name."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m api.server.reference FILE\n")
        return 2
    Path(arguments[0]).write_text(reference(create_app(Settings()).openapi()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
