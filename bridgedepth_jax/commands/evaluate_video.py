"""`bridgedepth evaluate --video SET`: depth of videos by several methods on one set."""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

from bridgedepth_jax.errors import InputError, unknown


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.commands.evaluate import print_files
    from bridgedepth_jax.systems.stereodiff import evaluate, sets

    names = [*sets.CLIPS, *sets.READERS]
    if args.video not in names:
        raise unknown("set of videos", args.video, names)
    if args.limit < 0:
        raise InputError(f"--limit {args.limit}, expected 0 or more")
    root = Path(args.root or "data")
    if args.video in sets.CLIPS:
        total = args.limit or 20
        samples = sets.clips(total, haze=sets.CLIPS[args.video])
    else:
        if not root.is_dir():
            raise InputError(f"--root {root}: no such folder, expected the data of {args.video}")
        samples = itertools.islice(sets.READERS[args.video](root), args.limit or None)
        total = args.limit or None
    methods = arms(args)
    result = evaluate.evaluate(samples, methods, total=total)
    means, rows, problems = result
    about = {name: getattr(args, name) for name in ("window", "overlap", "steps", "first")}
    about["methods"] = [arm.name for arm in methods]
    evaluate.write(Path(args.out), args.video, result, about)
    for arm, protocols in means.items():
        values = protocols["video"]
        text = ", ".join(f"{name} {values[name]['mean']:.4f}" for name in ("absrel", "delta1"))
        print(f"{arm}: {text} ({values['absrel']['videos']} videos)")
    for text in problems:
        print(f"in no mean: {text}", file=sys.stderr)
    print_files(Path(args.out), "videos.csv")
    if not rows:
        raise SystemExit(1)


def arms(args: argparse.Namespace) -> list[Any]:
    """The methods that the options name; on clips also stereo. InputError: none."""
    from bridgedepth_jax.store.checkpoint import load_checkpoint
    from bridgedepth_jax.systems.stereodiff import evaluate, sets, sources
    from bridgedepth_jax.systems.stereodiff.config import RefineOptions
    from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion

    found, second = [], []
    if args.video in sets.CLIPS:
        from bridgedepth_jax.inference.stereo import Predictor

        predictor = Predictor.load(args.checkpoint, dtype=args.dtype, check_order=False)
        make = lambda s: sources.StereoSource(s.video, s.right, lambda *_: s.camera, predictor, 1, 1.0)
        found.append(evaluate.first_stage("stereo", make))
    if args.pairs:
        found.append(_pairs(args.pairs))
    if args.predictions:
        folder = Path(args.predictions)
        kind: Any = "disparity" if args.disparity else "depth"
        arm = evaluate.first_stage("file", lambda s: sources.FileSource(s.video, folder / f"{Path(s.name).name}.npy", kind))
        found.append(arm._replace(space=kind))
    found = [evaluate.remembered(arm) for arm in found]
    if args.diffusion:
        loaded = load_checkpoint(args.diffusion)
        if loaded.kind != "depthcrafter":
            raise InputError(f"--diffusion {args.diffusion} holds {loaded.kind}, expected depthcrafter")
        model, fields = VideoDiffusion(loaded.config, loaded.params), {"window": args.window, "overlap": args.overlap}
        try:
            both = RefineOptions(share=args.share, steps=args.steps, first=args.first, **fields)
            alone = RefineOptions.from_noise(**fields)
        except ValueError as error:
            raise InputError(f"--window, --overlap, --steps and --first: {error}") from None
        second = [evaluate.second_stage("from noise", model, alone, None)]
        if args.ablation:
            second.append(evaluate.second_stage("from noise, no images", evaluate.without(model, "images"), alone, None))
        for arm in found:
            second.append(evaluate.second_stage(f"{arm.name} + diffusion", model, both, arm))
            second += evaluate.ablation(model, both, arm) if args.ablation else []
    elif args.ablation:
        raise InputError("--ablation without --diffusion, expected a model whose parts can be switched")
    if args.baselines:
        in_depth = [arm for arm in found if arm.space == "depth"]
        second += [evaluate.constant(), *map(evaluate.in_disparity, in_depth), *map(evaluate.smoothed, found)]
    if not found and not second:
        raise InputError("no method, expected --predictions, --pairs or --diffusion")
    return [*found, *second]


def _pairs(checkpoint: str) -> Any:
    import tempfile

    from bridgedepth_jax.convert.published import load, of
    from bridgedepth_jax.systems.stereodiff import evaluate, sources

    loaded = load(checkpoint, of("dust3r"))
    model = sources.PairModel(loaded.config, loaded.params)

    def predict(sample: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return evaluate.first_stage("pairs", lambda s: sources.PairSource(s.video, model, Path(folder))).predict(sample)

    return evaluate.Arm("pairs", "depth", predict)
