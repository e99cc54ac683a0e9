"""What a compiled program costs, read from XLA: memory, FLOP, traffic, what devices send each other, and the lines to blame.

The text of an optimised program (`compiled.as_text()`) names for each instruction its shapes with their layout, such as
`bf16[2,32,32,64]{3,2,1,0:T(8,128)(2,1)S(1)}`: the axes from the minor to the major, the tiles that the minor ones are
padded to, and the memory space (S(1): on a TPU the fast memory of the core, whose traffic costs nothing here).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# They name values, or wait for an instruction that is counted where it starts; a loop or a branch is counted by its body.
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "async-update",
)
_ARRAY = re.compile(
    r"\b(?P<type>pred|[a-z]+[0-9]+[a-z0-9]*)\[(?P<shape>[0-9,]*)\](?:\{(?P<order>[0-9,]*)(?P<layout>:[^}]*)?\})?"
)
_TILE = re.compile(r"T\(([0-9,*]+)\)")
_FIRST = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) (?:\([^=]*)?.*-> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_ROW = re.compile(r"^(\d+) (.*)$")


class Instruction(NamedTuple):
    """One instruction of the program that runs, or all copies of it in a loop."""

    kind: str  # fusion, convolution, copy ...
    shape: str  # of its result, with the layout
    bytes: int  # read and written, padding of the tiles included, times `runs`
    runs: int  # trips of the loops around it
    where: str  # file:line of the innermost frame in the project, or the operation's name
    cycles: int  # the compiler's own estimate, times `runs`; 0 where it makes none


def instructions(text: str) -> list[Instruction]:
    """All that an optimised program runs, in order; what is fused counts as one."""
    computations, entry, frames = _parse(text)
    return list(_walk(computations, entry, 1, frames)) if entry else []


def collective_bytes(text: str) -> dict[str, Counter[str]]:
    """Of an optimised HLO text, by kind: `bytes` of the results on a device, `count`, and `largest` single result."""
    line = re.compile(rf"= (?P<types>.*?) (?P<kind>{'|'.join(COLLECTIVES)})(?:-start)?\(")
    found: dict[str, Counter[str]] = {}
    for match in filter(None, map(line.search, text.splitlines())):
        size = sum(_size(array, padded=False) for array in _ARRAY.finditer(match["types"]))
        row = found.setdefault(match["kind"], Counter())
        row.update(bytes=size, count=1)
        row["largest"] = max(row["largest"], size)
    return found


def memory(compiled: Any) -> dict[str, float]:
    """GiB on a device: `arguments` (state, frozen parameters, batch), `temporary` (activations, gradients), `peak` of both."""
    parts = compiled.memory_analysis()
    gib = {name: getattr(parts, f"{name}_size_in_bytes") / 2**30 for name in ("argument", "temp", "output", "alias")}
    peak = gib["argument"] + gib["temp"] + gib["output"] - gib["alias"]
    return {"arguments": gib["argument"], "temporary": gib["temp"], "peak": peak}


def cost(compiled: Any, name: str) -> float:
    """`flops` or `bytes accessed` of one run on one device as XLA counts them; nan where it does not (GPUs)."""
    costs = compiled.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    return float((costs or {}).get(name, np.nan))


def _parse(text: str) -> tuple[dict[str, list[str]], str | None, dict[str, str]]:
    """({computation: its lines}, name of the entry, {stack frame: file:line})."""
    computations: dict[str, list[str]] = {}
    tables: dict[str, dict[str, str]] = {}
    current, entry, table = None, None, None
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
        elif table is not None and (row := _ROW.match(line)):
            table[row[1]] = row[2]
        elif line.endswith("{") and (first := _FIRST.match(line)):
            current = computations.setdefault(first["name"], [])
            entry = first["name"] if first["entry"] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    return computations, entry, _frames(tables)


def _frames(tables: dict[str, dict[str, str]]) -> dict[str, str]:
    """Where each stack frame stands: its own line, or the nearest caller's in this project."""

    def number(row: str, key: str) -> str:
        found = re.search(rf"\b{key}=(\d+)", row)
        return found[1] if found else ""

    places = {}
    for key, row in tables.get("FileLocations", {}).items():
        file = tables.get("FileNames", {}).get(number(row, "file_name_id"), "?").strip('"')
        places[key] = f"{file}:{number(row, 'line')}"
    rows, found = tables.get("StackFrames", {}), {}
    for key in rows:
        frame, seen, place = key, set(), None
        while frame in rows and frame not in seen:
            seen.add(frame)
            here = places.get(number(rows[frame], "file_location_id"), "?")
            if "bridgedepth_jax/" in here:
                place = here[here.rindex("bridgedepth_jax/") :]
                break
            place = place or here
            frame = str(int(number(rows[frame], "parent_frame_id") or 1) - 1)  # which XLA writes one too high; 0: none
        found[key] = place or "?"
    return found


def _walk(computations: dict[str, list[str]], name: str, runs: int, frames: dict[str, str]) -> Iterator[Instruction]:
    shapes: dict[str, str] = {}
    places: dict[str, str] = {}
    for line in computations.get(name, []):
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        shape, kind, arguments, rest = _split(match["rest"])
        operands = list(dict.fromkeys(re.findall(r"%([\w.\-]+)", arguments)))
        frame, called = re.search(r"stack_frame_id=(\d+)", rest), re.search(r'op_name="([^"]*)"', rest)
        where = (frames.get(frame[1], "") if frame else "") or (called[1] if called else "")
        places[match["name"]] = where = where or next(filter(None, map(places.get, operands)), "")  # else of what it moves
        shapes[match["name"]] = shape
        if kind in ("while", "conditional", "call"):
            trips = _trips(computations, rest) if kind == "while" else 1
            for single, several in _CALLED.findall(rest):
                for body in [single] if single else re.findall(r"[\w.\-]+", several):
                    yield from _walk(computations, body, runs * trips, frames)
        elif kind not in FREE and not kind.endswith("-done"):
            used = [] if kind.endswith("-start") else [shapes.get(operand, "") for operand in operands]  # its result repeats it
            moved = sum(_size(array) for text in (shape, *used) for array in _ARRAY.finditer(text))
            cycles = re.search(r'"estimated_cycles":"(\d+)"', rest)
            yield Instruction(kind, shape, moved * runs, runs, where, int(cycles[1]) * runs if cycles else 0)


def _split(rest: str) -> tuple[str, str, str, str]:
    """(shape, kind, arguments, what follows) of `shape kind(arguments), ...`; a tuple's shape is in brackets itself."""
    end = _closing(rest, 0) if rest.startswith("(") else -1
    space = rest.index(" ", end + 1)
    shape, rest = rest[:space], rest[space + 1 :]
    opening = rest.index("(")
    closing = _closing(rest, opening)
    return shape, rest[:opening], rest[opening:closing], rest[closing:]


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


def _trips(computations: dict[str, list[str]], rest: str) -> int:
    """How often a loop runs: said by XLA, else the bound that its condition compares with, else once."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', rest)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", rest)
    lines = computations.get(condition[1], []) if condition else []
    bounds = [int(n) for line in lines for n in re.findall(r"s32\[\]\S* constant\((\d+)\)", line)]
    return max(bounds, default=1) or 1


def _size(array: re.Match[str], padded: bool = True) -> int:
    """Bytes of an array; 0 for what lies in a core's own memory."""
    layout = array["layout"] or ""
    if padded and re.search(r"S\([1-9]", layout):
        return 0
    bits = 8 if array["type"] == "pred" else int(re.sub(r"^[a-z]+", "", array["type"].split("e")[0]) or 8)
    shape = [int(n) for n in array["shape"].split(",") if n]
    tile = _TILE.search(layout)
    if padded and tile and shape and array["order"]:
        sides = [int(n) for n in tile[1].split(",") if n != "*"]
        order = [int(n) for n in array["order"].split(",")]
        for axis, side in zip(order, reversed(sides), strict=False):  # minor first
            shape[axis] = -(-shape[axis] // side) * side
    return bits * math.prod(shape) // 8
