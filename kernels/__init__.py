"""Fused losses on tensors; imports neither engine nor shards. An op is a folder: contract, torch reference, Triton kernel.

The folders are listed, so a new op is a new folder: `__init__.py` with a function of the folder's name, `reference.py` that
defines it, `fused.py` that is fast; see dispatch.py for how one of the two is chosen. What an op's `__all__` names, or else its
function, can be imported from here, too.
"""

from importlib import import_module
from pathlib import Path

OPS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/fused.py")))
__all__ = ["OPS"]

for _op in OPS:
    _module = import_module(f"{__name__}.{_op}")
    for _name in getattr(_module, "__all__", (_op,)):
        globals()[_name] = getattr(_module, _name)
        __all__ += [_name]
