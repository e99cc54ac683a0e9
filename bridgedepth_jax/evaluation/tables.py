"""The result of an evaluation as files: JSON with everything, CSV per image, Markdown to read.

The JSON: `method` (what was evaluated), `settings`, and `datasets`: for each its `protocol`, the means of `summarize`, and
`per_image` {name: {mask: {metric: value}}}.
"""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.protocol import MASKS
from bridgedepth_jax.evaluation.quoted import MEANING, quoted
from bridgedepth_jax.files import replacing

_FIRST = ("epe", "rmse", "bad", "d1", "a50", "a90", "a99", "density")
FORMAT = "bridgedepth_jax evaluation, version 1"
UNITS = {
    "epe": "px",
    "rmse": "px",
    "a50": "px",
    "a90": "px",
    "a99": "px",
    "prop_epe": "px",
    "depth_absrel": "",
    "depth_rmse": "m",
}


def write_results(folder: str | os.PathLike, result: Mapping[str, Any]) -> list[Path]:
    """Writes results.json, images.csv and results.md into `folder`; returns their paths."""
    folder = Path(folder)
    result = {"format": FORMAT, **result}
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    with replacing(folder / "images.csv") as temporary, open(temporary, "w", newline="") as file:
        _write_images(file, result)
    with replacing(folder / "results.md") as temporary:
        temporary.write_text(markdown(result))
    return [folder / name for name in ("results.json", "images.csv", "results.md")]


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """A results.json, or that of a folder of `bridgedepth evaluate`. InputError where it is none."""
    path = Path(path)
    if path.is_dir():
        path = path / "results.json"
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        words = "expected a results.json of bridgedepth evaluate, or its folder"
        raise InputError(f"{path}: cannot be read ({error.strerror}), {words}") from None
    except ValueError:
        raise InputError(f"{path}: not JSON, expected a results.json of bridgedepth evaluate") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise InputError(f"{path}: expected a results.json of bridgedepth evaluate ({FORMAT})")
    return result


def markdown(result: Mapping[str, Any]) -> str:
    """A page: for each data set our numbers by the paper's protocol with the published ones beside, then every protocol."""
    lines = [f"# {result['method']['name']}", ""]
    lines += [f"{key}: {value}" for key, value in result["settings"].items()] + [""]
    for name, entry in result["datasets"].items():
        lines += _dataset(name, entry, result["method"]["name"])
    return "\n".join(lines)


def _dataset(name: str, entry: Mapping[str, Any], method: str) -> list[str]:
    counted = f"{entry['images']} images" + (f", {len(entry['problems'])} left out" if entry["problems"] else "")
    lines = [f"## {name}", "", f"Paper's protocol: {entry['protocol']['words']}; {counted}.", ""]
    metrics = ["epe", *(f"bad-{t:g}" for t in entry["protocol"]["thresholds"]), "d1"]
    metrics = list(dict.fromkeys(metrics))
    rows = []
    for mask, label in (("paper", method), ("raw/paper", f"{method}, raw")):
        if mask in entry["protocols"]:
            table = entry["protocols"][mask]
            density = table["density"]["images"]
            for key, words in (("images", "mean over images"), ("pixels", "over pixels")):
                rows.append(
                    [label, words, *(_number(table[m][key] if m in table else None) for m in metrics), f"{density:.1f}"]
                )
    for row in quoted(name):
        values = [_number(row.metrics.get(m)) for m in metrics]
        rows.append([row.model, f"quoted [{row.source}]: {row.protocol}", *values, ""])
    lines += _table(["method", "", *map(_header, metrics), "density %"], rows)
    if quoted(name):
        marks = sorted({row.source for row in quoted(name)})
        lines += ["", "Not measured here: " + "; ".join(f"[{m}] {MEANING[m]}" for m in marks) + "."]
    lines += ["", "Every protocol, mean over images (n: images that have such pixels):", ""]
    for prefix in ("", "raw/"):
        masks = [prefix + mask for mask in MASKS if prefix + mask in entry["protocols"]]
        if masks:
            columns = [m for m in entry["protocols"][masks[0]] if not m.startswith(("prop_", "depth_"))]
            columns.sort(key=lambda m: (_FIRST.index(m.split("-")[0]), m))
            body = [[m, str(entry["protocols"][m]["density"]["count"]), *_row(entry["protocols"][m], columns)] for m in masks]
            lines += [*_table(["pixels", "n", *map(_header, columns)], body), ""]
    for group, title in (("prop_", "Proposals"), ("depth_", "Depth")):
        masks = [m for m in entry["protocols"] if any(k.startswith(group) for k in entry["protocols"][m])]
        if masks:
            columns = [k for k in entry["protocols"][masks[0]] if k.startswith(group)]
            body = [[m, *_row(entry["protocols"][m], columns)] for m in masks]
            lines += [f"{title}:", "", *_table(["pixels", *map(_header, columns)], body), ""]
    if entry["problems"]:
        lines += ["Left out of every mean:", "", *(f"* {k}: {v}" for k, v in entry["problems"].items()), ""]
    if entry["without_protocol_pixels"]:
        names = ", ".join(entry["without_protocol_pixels"])
        lines += [f"Without a pixel of the paper's protocol, so not in its means: {names}", ""]
    return lines


def _row(table: Mapping[str, Any], columns: list[str]) -> list[str]:
    return [_number(table[c]["images"] if c in table else None) for c in columns]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _header(metric: str) -> str:
    unit = UNITS.get(metric, "%")
    return f"{metric} {unit}".strip()


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _write_images(file: Any, result: Mapping[str, Any]) -> None:
    columns = sorted(
        {
            f"{mask}:{metric}"
            for entry in result["datasets"].values()
            for table in entry["per_image"].values()
            for mask, row in table.items()
            for metric in row
        }
    )
    writer = csv.writer(file)
    writer.writerow(["dataset", "name", "problem", *columns])
    for dataset, entry in result["datasets"].items():
        for name in sorted([*entry["per_image"], *entry["problems"]]):
            table = entry["per_image"].get(name, {})
            values = {f"{mask}:{metric}": value for mask, row in table.items() for metric, value in row.items()}
            writer.writerow([dataset, name, entry["problems"].get(name, ""), *(values.get(c, "") for c in columns)])
