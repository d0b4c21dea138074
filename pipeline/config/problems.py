"""What pydantic found wrong with a job, told as key, rule, value found and fix."""

import difflib
import json
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kmeans_dask.errors import ConfigError
from pipeline.config.keys import redacted

_RULES = {
    "tuple_type": "must be a list of strings",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_too_short": "must not be empty",
    "too_short": "must not be an empty list",
    "model_type": "must be a table of keys",
    "finite_number": "must be finite",
}


def as_config_error(error: ValidationError, model: type[BaseModel], place: str) -> ConfigError:
    """Return one error that lists every problem of the job at `place`."""
    lines = [_line(detail, model) for detail in error.errors(include_url=False)]
    return listed(place, lines)


def listed(place: str, lines: list[str]) -> ConfigError:
    """Return an error for one problem on one line, or for several below each other."""
    if len(lines) == 1:
        return ConfigError(f"{place}: {lines[0]}")
    return ConfigError("\n  - ".join([f"{place}: {len(lines)} problems", *lines]))


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a job, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section(field)
        if section is not None:
            yield from known_keys(section, f"{prefix}{name}.")


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    key, field = _locate(detail["loc"], model)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown(key, model)
    if kind == "missing":
        return f"{key}: required, but missing. {_fix(key, field)}".rstrip()
    if kind in ("secret", "exclusive"):
        return f"{key}: {detail['msg']}." if key else f"{detail['msg']}."
    rule = _RULES.get(kind) or _plain(detail["msg"])
    return f"{key}: {rule}; found {_found(detail['input'])}. {_fix(key, field, detail['input'])}".rstrip()


def _locate(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, FieldInfo | None]:
    """Return the dotted key of a pydantic location, and its field when it is known."""
    key, field, section = "", None, typing.cast(type[BaseModel] | None, model)
    for part in loc:
        if isinstance(part, int):
            key += f"[{part}]"
            continue
        key = f"{key}.{part}" if key else part
        field = section.model_fields.get(part) if section else None
        section = _section(field) if field else None
    return key, field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    candidates = (field.annotation, *typing.get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _unknown(key: str, model: type[BaseModel]) -> str:
    known = list(known_keys(model))
    siblings = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    close = difflib.get_close_matches(key, siblings, n=1, cutoff=0.8)
    if not close:  # the right name in the wrong section
        leaves = {k.rpartition(".")[2]: k for k in reversed(known)}
        close = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1, cutoff=0.75)
        close = [leaves[leaf] for leaf in close]
    if close:
        return f"{key}: unknown key. Did you mean {close[0]}?"
    names = ", ".join(k.rpartition(".")[2] for k in siblings)
    return f"{key}: unknown key. Known here: {names}."


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ")
    for subject in ("Input should", "String should", "Value should"):
        message = message.replace(subject, "must")
    return message


def _toml(value: Any) -> str:
    """Return an example as one would write it into the job."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"


def _found(value: Any) -> str:
    text = redacted(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _fix(key: str, field: FieldInfo | None, found: Any = None) -> str:
    if field is None:
        return ""
    if field.examples:
        example = next((e for e in field.examples if type(e) is type(found)), field.examples[0])
        return f"For example: {key} = {_toml(example)}"
    if _section(field) is not None:
        return f"Add the section [{key}]."
    default = field.get_default(call_default_factory=True)
    return "" if default is None else f"The default is {json.dumps(default)}."
