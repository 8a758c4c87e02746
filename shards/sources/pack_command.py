"""Declares the commands of `affect pack`. A file of this folder with one is found by listing the folder:

    @pack_command("folder")
    def folder_source(
        root: Annotated[Path, Argument("ROOT/<class>/*.jpg")],
        val: Annotated[float, Option("share that becomes val", min=0, max=1)] = 0.1,
    ) -> FolderSource:
        '''Pictures in a folder per class.'''
        return FolderSource(root, val=val)

The function makes the source. Its parameters are the command's own arguments and options, its docstring is the help; what all
commands have in common (--out, --on-leak, --calib, ...) is added where commands are built, in engine/cli.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from affect.shards.errors import InputError

if TYPE_CHECKING:  # so that commands can be listed without numpy and pyarrow
    from affect.shards.sample import Source

DECLARATION = re.compile(r'^@pack_command\(\s*"([\w-]+)"', re.MULTILINE)

Build = TypeVar("Build", bound="Callable[..., Source]")


@dataclass(frozen=True)
class Argument:
    """A positional parameter."""

    help: str
    metavar: str | None = None


@dataclass(frozen=True)
class Option:
    """A named parameter, `--like-this` for `like_this`. min, max: of a number."""

    help: str | None = None
    metavar: str | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class PackCommand:
    """A command that packs what `build` returns.

    quality: the default of --quality, which is JPEG's, 0 for PNG. checked: whether files may be unreadable, or leak from split to
    split; else there is neither --max-rejects nor --on-leak. crop: of clips, with --crop and --crop-margin. parts: of clips,
    with --sharpest, --background and --box. animals: what is shown where a detector of human faces would be a mistake.
    """

    name: str
    build: Callable[..., Source]
    quality: int = 0
    checked: bool = True
    crop: bool = False
    parts: bool = False
    animals: str = ""


COMMANDS: dict[str, PackCommand] = {}  # of the modules that have been imported


def pack_command(
    name: str, *, quality: int = 0, checked: bool = True, crop: bool = False, parts: bool = False, animals: str = ""
) -> Callable[[Build], Build]:
    """Declare `affect pack NAME`; see PackCommand for the options. The name is read from the text, right behind the bracket."""

    def declared(build: Build) -> Build:
        COMMANDS[name] = PackCommand(name, build, quality, checked, crop, parts, animals)
        return build

    return declared


def command_modules() -> dict[str, str]:
    """{command: the module of this folder that declares it}, in alphabetical order; nothing is imported."""
    folder, package = Path(__file__).parent, __name__.rpartition(".")[0]
    modules = {
        name: f"{package}.{path.stem}"
        for path in sorted(folder.glob("*.py"))
        if path.name != Path(__file__).name
        for name in DECLARATION.findall(path.read_text(encoding="utf-8"))
    }
    return dict(sorted(modules.items()))


def load_command(name: str) -> PackCommand:
    """Import the module of a command and return its declaration. Raises KeyError where no file declares it."""
    import_module(command_modules()[name])
    return COMMANDS[name]


def words(text: str) -> list[str]:
    """Split names separated by commas, without the spaces around them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def output_name(text: str) -> str:
    """Check the name of --output. Raises InputError: columns are `<output>.<name>`, so the name has no dot."""
    if not re.fullmatch(r"[\w-]+", text):
        raise InputError(f"--output {text}: expected letters, digits, - and _, such as emotion")
    return text
