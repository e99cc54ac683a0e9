"""Exported programs beside JAX: how far disparities are apart, how long both take, time and memory of the export.

python scripts/export_table.py --reference ../shared/reference --out table.jsonl
python scripts/export_table.py --network nano --size 480x640 --rounds 7 --out table.jsonl
python scripts/export_table.py --network nano --size 500x741 --dtype float16 --out table.jsonl
python scripts/export_table.py --out table.jsonl --show

The table of `bridgedepth_jax/export/README.md`. nano has its trained weights, the others the name-seeded ones of REFERENCE.
Each network and size is a process of its own; rows of --out are not measured again under the same version of JAX. --rounds
times onnxruntime and jitted JAX alternately. Trained weights are measured against ground truth too.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from bridgedepth_jax.commands.options import size
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.export import pairs
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
from bridgedepth_jax.parity import load_synth, relative
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint
from bridgedepth_jax.systems.bridgedepth.parity import load_weights

NETWORKS = ("nano", "convnext_vits", "swin_vits", "resnet_vitl")
SIZES = ("96x160", "101x150", "480x640", "540x960")
LIMITS = {"nano": (1e-5, 0.02)}  # median px, share beyond 0.05 px; the others have pairs.LIMITS
POINTS = 0.2  # of bad-2, float16
TAPS = 1e-4  # of the RMS, before the first discrete choice
SOWN = ("depth_prior", "mono_features", "stereo_encoder/fmap4", "stereo_encoder/fmap8", "stereo_encoder/dpn/volume")


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="repeatable; default: all")
    parser.add_argument("--size", action="append", help=f"HEIGHTxWIDTH, repeatable; default: {', '.join(SIZES)}")
    parser.add_argument("--reference", type=Path, help="folder with synth.py, for all but nano")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--taps", action="store_true", help="intermediate maps too, in a graph of their own")
    parser.add_argument("--rounds", type=int, default=0, help="times each program runs, in turns; 0: not timed")
    parser.add_argument("--out", type=Path, required=True, help="a JSON row a line, added to")
    parser.add_argument("--show", action="store_true", help="print the table of --out alone")
    args = parser.parse_args()
    networks, sizes = args.network or NETWORKS, args.size or SIZES
    if not args.show and args.reference is None and set(networks) != {"nano"}:
        raise InputError("--reference is missing: where the weights of all but nano come from")
    for name in [] if args.show else networks:
        for text in sizes:
            asked = {"network": name, "size": text, "jax": jax.__version__, "dtype": args.dtype, "batch": args.batch}
            asked |= {"rounds": args.rounds, "taps": args.taps}
            if any(asked.items() <= row.items() for row in rows(args.out)):
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = asked | pool.apply(measure, (name, size("--size", text), args))
            with args.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    show(rows(args.out))


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def weights(name: str, reference: Path | None) -> tuple[Checkpoint, Path]:
    """A checkpoint and the folder that its metadata is taken from."""
    if name == "nano" or reference is None:
        return load_checkpoint(DEFAULT_MODEL), DEFAULT_MODEL
    config, params = load_weights(load_synth(reference), name, float64=False)
    return Checkpoint("bridgedepth", jax.tree.map(np.asarray, params), config, {}), DEFAULT_MODEL


def measure(name: str, shape: tuple[int, int], args: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    checkpoint, folder = weights(name, args.reference)
    sample, truth = demo.motorcycle()
    pair = sample.left, sample.right
    options = pairs.OnnxOptions((shape,), args.batch, args.dtype, external=name == "resnet_vitl")
    with tempfile.TemporaryDirectory() as scratch:
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        (exported,) = pairs.export_onnx(checkpoint, folder, Path(scratch), name, pair, options)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        row: dict[str, Any] = {
            "nodes": exported.nodes,
            "megabytes": sum(file.stat().st_size for file in Path(scratch).iterdir()) / 1e6,
            **exported.difference._asdict(),
            "seconds": seconds,  # with compilation of JAX's program and both runs
            "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_gigabytes": after.ru_maxrss / 1e6,
        }
        images = [image.astype(np.float32) for image in pairs.resized(*pair, *shape, args.batch)]
        if name in LIMITS:
            row |= bad2(exported.path, checkpoint, images, truth)
        if args.rounds:
            row |= timed(exported.path, checkpoint, images, args.rounds)
    if args.taps:
        row["worst"] = taps(checkpoint, images)
    return row


def bad2(file: Path, checkpoint: Checkpoint, images: list[np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """bad-2 in per cent, at the size of the ground truth, of the file and of JAX in float32."""
    forward = jax.jit(pairs.nchw(pairs.stereo(checkpoint), checkpoint.config))
    found = {"bad2": pairs.run_onnx(file, images)[0], "bad2_jax": np.asarray(forward(checkpoint.params, *images)[0])}
    height, width = truth.shape
    whole = {key: cv2.resize(value[0, 0], (width, height)) * (width / value.shape[-1]) for key, value in found.items()}
    return {key: demo.errors(value, truth).bad2 for key, value in whole.items()}


def timed(file: Path, checkpoint: Checkpoint, images: list[np.ndarray], rounds: int) -> dict[str, Any]:
    """Seconds of onnxruntime and of jitted JAX, in turns, and the ratio of their medians."""
    from bridgedepth_jax.export.runtime import session

    loaded = session(file)
    inputs = dict(zip(("left", "right"), images, strict=True))
    forward = jax.jit(pairs.nchw(pairs.stereo(checkpoint), checkpoint.config))
    params = jax.device_put(checkpoint.params)
    programs: dict[str, Callable[[], Any]] = {
        "onnxruntime": lambda: loaded.run(None, inputs),
        "jitted": lambda: jax.block_until_ready(forward(params, *images)),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    processor: dict[str, float] = dict.fromkeys(programs, 0.0)
    for i in range(rounds + 1):
        for name, program in programs.items():
            started, spent = time.perf_counter(), time.process_time()
            program()
            if i:  # the first one compiles
                times[name].append(time.perf_counter() - started)
                processor[name] += time.process_time() - spent
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = [a / b for a, b in zip(times["onnxruntime"], times["jitted"], strict=True)]
    medians |= {"ratio": medians["onnxruntime"] / medians["jitted"], "ratio_of_rounds": statistics.median(ratios)}
    return medians | {"ratio_of_processor_seconds": processor["onnxruntime"] / processor["jitted"]}


def taps(checkpoint: Checkpoint, images: list[np.ndarray]) -> Mapping[str, float]:
    """Largest difference of each map before the first discrete choice, over its RMS."""
    from bridgedepth_jax.export import onnx, onnx_graph, runtime
    from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

    network = BridgeDepth(checkpoint.config)

    def run(weights: Any, left: jax.Array, right: jax.Array) -> tuple[jax.Array, ...]:
        left, right = (image.transpose(0, 2, 3, 1) for image in (left, right))
        output, state = network.apply({"params": weights}, left, right, mutable=["taps"])
        found = [output.prob]
        for path in SOWN:
            value: Any = state["taps"]
            for part in path.split("/"):
                value = value[part]
            found.append(value[0])
        return tuple(found)

    names = ("prob", *(path.rsplit("/")[-1] for path in SOWN))
    kind = jax.ShapeDtypeStruct(images[0].shape, np.float32)
    graph = onnx.to_graph(run, checkpoint.params, {"left": kind, "right": kind}, names)
    with tempfile.TemporaryDirectory() as scratch:
        with open(Path(scratch) / "weights", "wb") as stream:
            places = onnx_graph.write_weights(stream, "weights", onnx_graph.large(graph))
        onnx_graph.write(Path(scratch) / "taps.onnx", graph, {}, places)
        del graph
        found = runtime.session(Path(scratch) / "taps.onnx").run(None, dict(zip(("left", "right"), images, strict=True)))
    expected = jax.jit(run)(checkpoint.params, *images)
    return {name: relative(a, np.asarray(b)) for name, a, b in zip(names, found, expected, strict=True)}


def show(found: list[dict[str, Any]]) -> None:
    """The table, and whether each row is within its limits."""
    print(
        "| network | size | JAX | median px | beyond 0.05 px | worst tap | bad-2, JAX's | nodes | MB | processor s | peak GB"
        " | ORT / JAX | |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in found:
        median, beyond = LIMITS.get(row["network"], pairs.LIMITS["float32"])
        worst = max(row["worst"].values()) if "worst" in row else None
        if row["dtype"] == "float32":
            good = row["median"] <= median and row["beyond"] <= beyond and (worst is None or worst <= TAPS)
        else:  # random weights amplify its roundings
            good = abs(row["bad2"] - row["bad2_jax"]) <= POINTS if "bad2" in row else None
        verdict = "not judged" if good is None else "ok" if good else "BEYOND"
        name = row["network"] + ("" if row["dtype"] == "float32" else f", {row['dtype']}")
        columns = [name, row["size"], row["jax"], f"{row['median']:.1e}", f"{100 * row['beyond']:.2f} %"]
        columns += ["" if worst is None else f"{worst:.0e}"]
        columns += [f"{row['bad2']:.2f}, {row['bad2_jax']:.2f} %" if "bad2" in row else ""]
        columns += [str(row["nodes"]), f"{row['megabytes']:.1f}"]
        columns += [f"{row['processor_seconds']:.0f}", f"{row['peak_gigabytes']:.1f}"]
        columns += [f"{row['ratio']:.2f}" if "ratio" in row else "", verdict]
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
