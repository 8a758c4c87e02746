"""Strict reading of YAML into sections: every problem at once, each with its key path and the nearest valid name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from affect.engine.config.run import RunConfig
from affect.engine.config.section import Section
from affect.shards.errors import InputError, nearest

S = TypeVar("S", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(value).__name__}")
    return value


def parsed(setting: str) -> tuple[str, Any]:
    """Split `a.b=c` of --set into the key and its value, which is read as YAML."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting}: expected key=value, e.g. --set optim.lr=1e-3")
    try:
        return key, as_number(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: the value is not readable as YAML: {error}") from error


def as_number(value: Any) -> Any:
    """Return a number for a text that is one: YAML 1.1 reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` in nested settings; a value in its way, as of a section that is off, is replaced."""
    *parents, last = key.split(".")
    for parent in parents:
        child = settings.setdefault(parent, {})
        if not isinstance(child, dict):
            child = settings[parent] = {}
        settings = child
    settings[last] = value


def validated(kind: type[S], value: dict[str, Any], where: str) -> S:
    """Return the section. Raises InputError with every problem, each on a line that begins with `where`."""
    result = attempt(kind, value)
    if isinstance(result, list):
        raise InputError("\n".join(f"{where}: {problem}" for problem in result))
    return result


def attempt(kind: type[S], value: dict[str, Any]) -> S | list[str]:
    """Return the section, or its problems."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        return [_problem(kind, e) for e in error.errors()]


def _problem(kind: type[Section], error: Any) -> str:
    """Describe one pydantic error as `key: found, expected`, with the nearest valid name for an unknown key."""
    keys = [str(k) for k in error["loc"]]
    if keys[:2] == ["loss", "terms"]:  # in a file, terms are keys of `loss`
        del keys[1]
    where = ".".join(keys)
    if error["type"] == "extra_forbidden":
        known = _keys_at(kind, keys[:-1])
        return f"{where}: unknown key{nearest(keys[-1], known)}; keys here: {', '.join(known)}"
    if error["type"] == "missing":
        by_option = "" if getattr(kind, "ONLY_IN_FILE", False) else f" or by --set {where}=..."
        return f"{where}: missing; it has no default. Set it in the file{by_option}"
    message = error["msg"].removeprefix("Value error, ")
    if not where:  # problems of a whole run name their keys themselves
        return message
    return f"{where}: {message[0].lower()}{message[1:]}" + (
        "" if error["type"] == "value_error" else f", found {error['input']!r}"
    )


def _keys_at(kind: Any, keys: list[str]) -> list[str]:
    for key in keys:
        if key not in kind.entries():  # the name of an entry: its kind is the one of before
            continue
        annotation = kind.entries()[key]
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(k for k in kinds if isinstance(k, type) and issubclass(k, Section))
    return list(kind.entries())


def find_config(name: str) -> Path:
    """Return a YAML file by its path, or a shipped config by its name: `smoke`, `ferplus_rn18`."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(str(resources.files("affect.configs")))
    known = {file.stem: file for file in sorted(shipped.glob("*/*.yaml"))}
    if path.name.removesuffix(".yaml") in known and len(path.parts) == 1:
        return known[path.name.removesuffix(".yaml")]
    raise InputError(f"{name}: no such file or config{nearest(name, known)}; configs: {', '.join(known)}")


def load_config(name: str, settings: list[str] | None = None) -> RunConfig:
    """Read a config file, apply `a.b=c` settings. Raises InputError with every problem at once."""
    path = find_config(name)
    value = read_yaml(path)
    for setting in settings or []:
        put(value, *parsed(setting))
    return validated(RunConfig, value, str(path))
