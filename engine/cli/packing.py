"""affect pack: a command for every `@pack_command` in shards/sources, with the options that all commands share."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from affect.engine.cli import clip_parts

if TYPE_CHECKING:
    from affect.shards.sample import Source
    from affect.shards.schema import DatasetInfo
    from affect.shards.sources.pack_command import PackCommand

WORKERS = min(8, os.cpu_count() or 1)
OPTIONS: dict[str, tuple[Any, Any, Any]] = {  # parameter -> type, option, default
    "on_leak": (
        Literal["error", "drop-train", "keep"],
        typer.Option(help="the same pixels, or one group, in two splits"),
        "error",
    ),
    "max_rejects": (float, typer.Option(min=0, max=1, help="accepted share of unreadable pictures"), 0.001),
    "calib": (float, typer.Option(min=0, max=1, help="share of val that becomes calib, by group or else by picture"), 0),
    "max_side": (int, typer.Option(min=0, help="reduce the longer side of pictures to this many pixels; 0: never"), 0),
    "quality": (
        int,
        typer.Option(min=0, max=100, help="JPEG quality of pictures that cannot keep their bytes, 1 to 100; 0: PNG, lossless"),
        0,
    ),
    "workers": (int, typer.Option(min=1, help="threads"), WORKERS),
    "as_json": (bool, typer.Option("--json", help="one machine-readable line at the end"), False),
}
OUT = typer.Option("--out", help="the folder of the packed dataset; must not exist yet")


class Commands(Mapping[str, Any]):
    """The commands by name. A command is built, and its source's module imported, when it is looked up."""

    def __init__(self) -> None:
        self.built = dict[str, Any]()

    @cached_property
    def names(self) -> list[str]:
        from affect.shards.sources.pack_command import command_modules

        return list(command_modules())

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        if name not in self.built:
            self.built[name] = typer_command(name)
        return self.built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class PackGroup(TyperGroup):
    """Lists the commands of shards/sources when they are needed, so that `affect --help` does not."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()  # type: ignore[assignment]


pack_app = typer.Typer(
    cls=PackGroup, no_args_is_help=True, help="Pack raw files into tar shards with an index.", rich_markup_mode=None
)


def typer_command(name: str) -> Any:
    """Build the command of that name."""
    from affect.shards.sources.pack_command import load_command

    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name)(packer(load_command(name)))
    return typer.main.get_command(alone)


def packer(declared: PackCommand) -> Callable[..., None]:
    """Return a function that packs. Typer reads its signature: the source's parameters, those of clip_parts, then OPTIONS."""
    of_source = source_parameters(declared.build)
    parts = clip_parts.parameters(declared.crop, declared.parts)
    required = [parameter for parameter in of_source if parameter.default is inspect.Parameter.empty]
    optional = [parameter for parameter in of_source if parameter.default is not inspect.Parameter.empty]
    everything = [*required, parameter_of("out", Path, OUT), *optional, *parts, *common_parameters(declared)]

    def pack(**values: Any) -> None:
        part_values = {parameter.name: values.pop(parameter.name) for parameter in parts}
        source_values = {parameter.name: values.pop(parameter.name) for parameter in of_source}
        clip_parts.check(part_values, declared.animals)
        source = clip_parts.apply(declared.build(**source_values), **part_values)
        pack_source(source, **values)

    pack.__doc__ = inspect.getdoc(declared.build)
    pack.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    return pack


def source_parameters(build: Callable[..., Source]) -> list[inspect.Parameter]:
    """The parameters of a source's function, with typer's arguments and options in place of those of pack_command.py."""
    from affect.shards.sources.pack_command import Argument, Option

    hints, parameters = get_type_hints(build, include_extras=True), list[inspect.Parameter]()
    for name, parameter in inspect.signature(build).parameters.items():
        kind, *facts = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        fact = facts[0] if facts else Option()
        if isinstance(fact, Argument):
            shown: Any = typer.Argument(help=fact.help, metavar=fact.metavar)
        else:
            flag = [f"--{name.replace('_', '-')}"] if kind is bool else []  # else typer adds --no-...
            shown = typer.Option(*flag, help=fact.help, metavar=fact.metavar, min=fact.min, max=fact.max)
        parameters.append(parameter_of(name, kind, shown, parameter.default))
    return parameters


def common_parameters(declared: PackCommand) -> list[inspect.Parameter]:
    """The parameters of OPTIONS that a command has."""
    asked = {name: option for name, option in OPTIONS.items() if declared.checked or name not in ("on_leak", "max_rejects")}
    defaults = {"quality": declared.quality}
    return [parameter_of(name, kind, shown, defaults.get(name, default)) for name, (kind, shown, default) in asked.items()]


def parameter_of(name: str, kind: Any, shown: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown])


def pack_source(
    source: Source,
    out: Path,
    *,
    calib: float,
    max_side: int,
    quality: int,
    workers: int,
    as_json: bool,
    on_leak: Literal["error", "drop-train", "keep"] = "error",
    max_rejects: float = 0,
) -> None:
    """Pack a source and print a summary."""
    from affect.engine.system.log import say
    from affect.engine.system.progress import Progress
    from affect.shards.images import Storage
    from affect.shards.pack import pack

    with Progress("pack", None, "images") as progress:
        info = pack(
            source,
            out,
            on_leak=on_leak,
            max_rejects=max_rejects,
            calib=calib,
            storage=Storage(max_side or None, quality or None),
            workers=workers,
            advance=progress.advance,
            say=say,
        )
    _print_packed(source, out, info)
    if as_json:
        print(json.dumps({"dataset": str(out), "counts": info.counts, "dropped": info.dropped}))


def _print_packed(source: Source, out: Path, info: DatasetInfo) -> None:
    print(
        f"{out}: " + ", ".join(f"{count:,} {split}" for split, count in info.counts.items()) + f"; labels: {info.label_protocol}"
    )
    left_out = {reason: count for reason, count in info.dropped.items() if count}
    if left_out:
        print("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()))
    for note in (*getattr(source, "notes", ()), *(clip_parts.notes(out) if info.clip else ())):
        print(note)
    near = info.near_duplicates
    print(
        f"near-duplicates (difference hashes within {near['distance']} of 64 bits): {near['train_like_held_out']:,} training "
        f"pictures are like a held-out one, {near['pairs_in_train']:,} pairs within train are alike"
    )
    for output in info.layout.outputs:
        print(f"{output.name} ({output.kind}): {', '.join(output.names)}")
