#!/usr/bin/env python3
"""Measure the structure of a checkout, or of two beside each other.

    python tools/structure.py                          this checkout
    python tools/structure.py --before OTHER_CHECKOUT  two checkouts, room by room
    python tools/structure.py --sample 50              also print 50 sentences that contain "where", to be read

Counts lines, files and imports per room, import cycles between modules, `dict[str, Any]` per 1,000 lines, public
functions and classes without a docstring, string constants that name a task outside the task's folder, and the
word "where" in comments, docstrings and messages. Reads Python files only; runs nothing of the project. Needs only
the standard library.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("launcher", "jobs")
#: Tasks of the checkouts that are compared. "chat" is a prompt style too, and counts only beside the word "task".
TASKS = ("sql", "viggo")
AMBIGUOUS_TASKS = ("chat",)
_ANY_DICT = re.compile(r"\bdict\[str, Any\]")
_WHERE = re.compile(r"\bwhere\b", re.IGNORECASE)


@dataclass
class Room:
    """One folder below `launcher/` or `jobs/`, or the loose files directly in one of them."""

    files: int = 0
    lines: int = 0
    imports: Counter[str] = field(default_factory=Counter)
    imported_by: set[str] = field(default_factory=set)


@dataclass
class Structure:
    """What was measured of one checkout."""

    rooms: dict[str, Room]
    cycles: list[list[str]]
    files: int
    lines: int
    any_dicts: int
    functions: int
    functions_over_60_lines: int
    public: int
    public_without_docstring: list[str]
    task_names_outside: list[str]
    wheres: list[str]

    def any_dicts_per_1000_lines(self) -> float:
        return 1000 * self.any_dicts / self.lines


def modules(root: Path) -> dict[str, Path]:
    """Dotted module name -> file, for every module of the project."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports_of(tree: ast.AST, known: dict[str, Path]) -> set[str]:
    """The project's modules that a module imports, lazily or not."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found |= {full} if full in known else {node.module} & known.keys()
    return found


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return found


def room_of(module: str, path: Path) -> str:
    """`jobs.tasks.sql.prompt` -> `jobs/tasks`; a file directly in a package is in the room `jobs (loose)`."""
    package, _, rest = module.partition(".")
    loose = "." not in rest and path.name != "__init__.py"
    return f"{package} (loose)" if loose or not rest else f"{package}/{rest.partition('.')[0]}"


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Module-level functions and classes whose names do not begin with an underscore."""
    for node in tree.body:
        definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if definition and not node.name.startswith("_"):
            yield node


def named_tasks(tree: ast.AST, text: str, where: str) -> Iterator[str]:
    """String constants that are a task's name, as `file:line text`."""
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        line = lines[node.lineno - 1]
        ambiguous = node.value in AMBIGUOUS_TASKS and re.search(r"\btasks?\b", line, re.IGNORECASE)
        if node.value in TASKS or ambiguous:
            yield f"{where}:{node.lineno} {line.strip()}"


def prose_with_where(text: str, where: str) -> Iterator[str]:
    """Lines of comments, docstrings and messages that contain the word "where"."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if (
            token.type == tokenize.COMMENT
            or token.type == tokenize.STRING
            or "FSTRING" in tokenize.tok_name[token.type]
        ):
            for offset, line in enumerate(token.string.splitlines()):
                for _ in _WHERE.finditer(line):
                    yield f"{where}:{token.start[0] + offset} {line.strip()}"


def measure(root: Path) -> Structure:
    """Everything about one checkout."""
    known = modules(root)
    rooms: dict[str, Room] = defaultdict(Room)
    graph: dict[str, set[str]] = {}
    found = Structure(rooms, [], len(known), 0, 0, 0, 0, 0, [], [], [])
    for module, path in known.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        relative = path.relative_to(root)
        name = str(relative)
        room = rooms[room_of(module, path)]
        room.files += 1
        room.lines += text.count("\n")
        found.lines += text.count("\n")
        graph[module] = imports_of(tree, known) - {module}
        for other in graph[module]:
            target = room_of(other, known[other])
            if target != room_of(module, path):
                room.imports[target] += 1
                rooms[target].imported_by.add(room_of(module, path))
        found.any_dicts += len(_ANY_DICT.findall(text))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.functions += 1
                found.functions_over_60_lines += (node.end_lineno or node.lineno) - node.lineno >= 60
        for definition in public_definitions(tree):
            found.public += 1
            if ast.get_docstring(definition) is None:
                found.public_without_docstring.append(f"{name}:{definition.lineno} {definition.name}")
        if relative.parts[:2] != ("jobs", "tasks") or len(relative.parts) < 4:
            found.task_names_outside += named_tasks(tree, text, name)
        found.wheres += prose_with_where(text, name)
    found.cycles = cycles(graph)
    return found


def print_rooms(structure: Structure) -> None:
    print(f"  {'room':24} {'files':>5} {'lines':>6}  imports from other rooms")
    for name, room in sorted(structure.rooms.items()):
        targets = ", ".join(f"{other} {count}" for other, count in sorted(room.imports.items()))
        print(f"  {name:24} {room.files:5} {room.lines:6}  {targets or '–'}")


def print_totals(structures: dict[str, Structure]) -> None:
    rows: list[tuple[str, list[str]]] = [
        ("files", [str(s.files) for s in structures.values()]),
        ("lines", [str(s.lines) for s in structures.values()]),
        ("loose files in launcher/", [str(_loose(s, "launcher")) for s in structures.values()]),
        ("loose files in jobs/", [str(_loose(s, "jobs")) for s in structures.values()]),
        ("import cycles", [str(len(s.cycles)) for s in structures.values()]),
        ("modules in cycles", [str(sum(map(len, s.cycles))) for s in structures.values()]),
        (
            "dict[str, Any] per 1,000 lines",
            [f"{s.any_dicts_per_1000_lines():.1f}" for s in structures.values()],
        ),
        ("task names outside their folder", [str(len(s.task_names_outside)) for s in structures.values()]),
        ('"where" in prose', [str(len(s.wheres)) for s in structures.values()]),
        ("public definitions", [str(s.public) for s in structures.values()]),
        ("  without a docstring", [str(len(s.public_without_docstring)) for s in structures.values()]),
        ("functions over 60 lines", [str(s.functions_over_60_lines) for s in structures.values()]),
    ]
    print(f"{'':34}" + "".join(f"{name:>10}" for name in structures))
    for title, values in rows:
        print(f"{title:34}" + "".join(f"{value:>10}" for value in values))


def _loose(structure: Structure, package: str) -> int:
    room = structure.rooms.get(f"{package} (loose)")
    return room.files if room else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument(
        "--sample", type=int, default=0, metavar="N", help='print N random lines with "where"'
    )
    parser.add_argument("--list", action="store_true", help="list cycles, task names and missing docstrings")
    options = parser.parse_args()
    structures = {"before": measure(options.before)} if options.before else {}
    structures["after" if options.before else "here"] = measure(options.checkout)
    for name, structure in structures.items():
        print(f"{name}:")
        print_rooms(structure)
        print()
    print_totals(structures)
    last = list(structures.values())[-1]
    if options.list:
        for title, lines in (
            ("cycles", [" ".join(group) for group in last.cycles]),
            ("task names outside their folder", last.task_names_outside),
            ("public definitions without a docstring", last.public_without_docstring),
        ):
            print(f"\n{title}:", *lines, sep="\n  ")
    if options.sample:
        chosen = random.Random(0).sample(last.wheres, min(options.sample, len(last.wheres)))
        print('\n"where":', *chosen, sep="\n  ")


if __name__ == "__main__":
    main()
