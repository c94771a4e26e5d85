"""Who may import whom: six floors, no arrow that runs back up, no circle.

    rates errors streaming sound writing stopping progress hardware < model < checkpoint runtime
        < data nano systems serve < train evaluate < cli

`omnivox/__init__.py` is the front door: it may show what any floor below `train` offers, and only the top floor may
come in through it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "omnivox"
FLOORS = [
    {"rates", "errors", "streaming", "sound", "stopping", "writing", "progress", "hardware"},
    {"model"},
    {"checkpoint", "runtime"},
    {"data", "nano", "systems", "serve"},
    {"train", "evaluate"},
    {"cli"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = {".".join(("omnivox", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file
         for file in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str, text: str) -> Iterator[str]:
    """Every module that `text`, the source of module `name`, imports anywhere, functions and TYPE_CHECKING included."""
    package = name if FILES.get(name, Path()).name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[:len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (parent, node.module) if part)
            for alias in node.names:  # `from omnivox.model import ctc` is an import of omnivox.model.ctc
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source


def ours(name: str) -> set[str]:
    """The modules of omnivox that module `name` imports."""
    return {found for found in imports(name, FILES[name].read_text()) if found.split(".")[0] == "omnivox"}


def floor(name: str) -> int:
    """The floor of a module; the front door stands just below `train`."""
    return FLOOR[name.split(".")[1]] if "." in name else FLOOR["train"] - 1


def test_every_module_stands_on_a_floor() -> None:
    assert {name.split(".")[1] for name in FILES if "." in name} <= set(FLOOR)


@pytest.mark.parametrize("name", FILES)
def test_no_import_runs_up(name: str) -> None:
    above = {found for found in ours(name) if floor(found) > floor(name)}
    assert not above, f"{name} imports {sorted(above)} from a floor above it"


@pytest.mark.parametrize("name", [name for name in FILES if name != "omnivox" and floor(name) < FLOOR["train"]])
def test_lower_floors_do_not_come_in_by_the_front_door(name: str) -> None:
    assert "omnivox" not in ours(name), f"{name} imports from omnivox/__init__.py; name the module instead"


def test_there_is_no_circle() -> None:
    TopologicalSorter({name: ours(name) - {name} for name in FILES}).prepare()  # raises CycleError and names it


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("omnivox.model.")])
def test_modelling_code_is_pure(name: str) -> None:
    allowed = {"torch"} | ({"transformers"} if name == "omnivox.model.llm" else set())
    found = set(imports(name, FILES[name].read_text()))
    known = {"omnivox", *allowed, *sys.stdlib_module_names}
    foreign = {module for module in found if module.split(".")[0] not in known}
    beside = {module for module in found if module.startswith("omnivox")
              and module.split(".")[1] not in {"rates", "streaming", "model"}}
    assert not foreign, f"{name} imports {sorted(foreign)}; modelling code needs only torch"
    assert not beside, f"{name} imports {sorted(beside)}; of ours, modelling code needs only rates and streaming"


def test_the_reader_of_imports_sees_every_kind() -> None:
    text = "import a.b\nfrom omnivox.model import ctc\nfrom . import mel\nfrom ..rates import X\ndef f():\n    import c"
    assert set(imports("omnivox.model.encoder", text)) == {"a.b", "omnivox.model.ctc", "omnivox.model.mel",
                                                          "omnivox.rates", "c"}
