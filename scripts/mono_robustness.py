"""Wrong labels, and what trimming and renormalising do about them.

python scripts/mono_robustness.py --out runs/mono_robustness
python scripts/mono_robustness.py --out runs/mono_robustness --steps 1000 --seeds 0,1,2

Trains a small network on rendered scenes whose labels are clean, or wrong over 11 % of their pixels: `near` within the scene's
range, `far` well beyond it; each without trimming, with trim 10, and with trim 10 and renormalise 2. Prints a Markdown table of
AbsRel on held-out scenes and of the difference to the untrimmed row of the same labels, with 95 % intervals over paired images;
the mean training map is the baseline. OUT/results.json holds every image. Runs that are there are read again.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.systems.bridge_mde import trials

LABELS = ("clean", "near", "far")
WAYS = {"trim 0": (0, 0), "trim 10": (10, 0), "trim 10, renormalise 2": (10, 2)}


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scenes", type=int, default=400, help="of training")
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--size", default="56,70", help="height,width")
    args = parser.parse_args(argv)
    try:
        seeds = [int(word) for word in args.seeds.split(",")]
        height, width = (int(side) for side in args.size.split(","))
    except ValueError:
        raise InputError(f"--seeds {args.seeds}, --size {args.size}: expected whole numbers with commas between") from None
    make_folder(args.out, "--out")
    store = args.out / f"results_{args.steps}_{args.scenes}_{args.held_out}_{height}x{width}.json"
    found: dict[str, dict[str, list[float]]] = json.loads(store.read_text()) if store.is_file() else {}
    held = trials.scenes(args.held_out, (height, width), trials.UNSEEN)
    network = trials.SmallDepth()
    for seed in seeds:
        data = None
        for labels in LABELS:
            for way, (percent, renormalise) in WAYS.items():
                key = f"{seed}/{labels}/{way}"
                if key in found:
                    continue
                if data is None:
                    data = trials.scenes(args.scenes, (height, width), seed)
                wrong = trials.Scenes(data.image, trials.corrupted(data.inverse, labels, seed))
                trimmed = np.full(len(data.image), percent)
                params = trials.train_depth(network, wrong, args.steps, seed, percent=trimmed, renormalise=renormalise)
                rows = trials.measure(trials.predict(network, params, held.image), held.inverse)
                found[key] = {name: values.tolist() for name, values in rows.items()}
                print(
                    f"{key}: AbsRel {np.mean(found[key]['abs_rel']):.4f}, delta1 {np.mean(found[key]['delta1']):.4f}",
                    flush=True,
                )
                save(store, found)
        key = f"{seed}/mean map"
        if key not in found:
            data = data or trials.scenes(args.scenes, (height, width), seed)
            flat = np.broadcast_to(trials.mean_map(data.inverse), held.inverse.shape)
            found[key] = {name: values.tolist() for name, values in trials.measure(flat, held.inverse).items()}
            save(store, found)
    table = lambda words, name: np.array([found[f"{seed}/{words}"][name] for seed in seeds])
    print(f"\n{args.steps} steps, {len(seeds)} seeds, {args.held_out} held-out scenes of {height}x{width}\n")
    print("| labels | | AbsRel | delta1 | AbsRel less untrimmed | AbsRel less mean map |\n|---|---|---|---|---|---|")
    base = table("mean map", "abs_rel")
    print(f"| mean map | | {base.mean():.4f} | {table('mean map', 'delta1').mean():.4f} | | |")
    for labels in LABELS:
        plain = table(f"{labels}/trim 0", "abs_rel")
        for way in WAYS:
            values = table(f"{labels}/{way}", "abs_rel")
            change = "" if way == "trim 0" else str(trials.paired(plain, values))
            delta = table(f"{labels}/{way}", "delta1").mean()
            print(f"| {labels} | {way} | {values.mean():.4f} | {delta:.4f} | {change} | {trials.paired(base, values)} |")


def save(path: Path, found: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
