"""PyTorch weights to a checkpoint folder, and back.

bridgedepth convert bridgedepth bridge_rvc.pth checkpoints/rvc
bridgedepth convert depth-anything depth_anything_v2_vits checkpoints/depth_anything_v2_vits
bridgedepth convert singlenet mono_640x192 checkpoints/mono_640x192     # a folder of encoder.pth and depth.pth (monodepth2)
bridgedepth convert to-torch checkpoints/rvc rvc.pth
bridgedepth convert diffusers stable-diffusion-2-inpainting checkpoints/sd2
bridgedepth convert to-safetensors checkpoints/rvc rvc
"""

import argparse
import time
from pathlib import Path

from bridgedepth_jax.errors import InputError

DEPTHS = ("depth-anything", "bridge_mde")  # systems whose files do not say whether they are metric


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.convert import diffusion, flux, video
    from bridgedepth_jax.convert.engine import find_rules
    from bridgedepth_jax.system import SYSTEMS, find_system

    commands = parser.add_subparsers(dest="command", required=True, metavar="SYSTEM")
    for kind in SYSTEMS:
        system = find_system(kind)
        if not system.rules:
            continue
        names = ", ".join(system.published) or "none yet"
        sub = commands.add_parser(kind, help=f"a {kind} .pth file to a checkpoint folder")
        sub.add_argument("source", metavar="SOURCE", help=f".pth file or folder of them, or a published name: {names}")
        sub.add_argument("out", metavar="OUT", type=Path, help="checkpoint folder to write")
        sub.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="stored parameters")
        sub.add_argument("--revision", help="of a published name: branch, tag or commit in its repository")
        sub.add_argument("--accept-new", action="store_true", help="a published file may differ from the one fetched before")
        sub.add_argument("--overwrite", action="store_true", help="replace OUT")
        if variants := find_rules(kind).variants:
            sub.add_argument("--variant", choices=list(variants), help="network of a file that does not say which it is")
        if kind in DEPTHS:
            sub.add_argument(
                "--max-depth", type=float, metavar="M", help="metres: the file is of a metric network that reaches them"
            )
    sub = commands.add_parser("to-torch", help="a checkpoint folder to a .pth file (or folder of them) that the original loads")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="folder or published name")
    sub.add_argument("out", metavar="OUT.pth", type=Path, help="file to write")
    sub.add_argument("--backbone", action="store_true", help="torchvision's encoder of a singlenet checkpoint alone")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT.pth")
    sub = commands.add_parser(
        "to-safetensors", help="a checkpoint folder to one of model.safetensors and config.json, without Orbax"
    )
    sub.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="folder or published name")
    sub.add_argument("out", metavar="OUT", type=Path, help="folder to write; it is a checkpoint everywhere")
    sub.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of parameters, default: as they are stored")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")
    diffusion.add_commands(commands)
    video.add_commands(commands)
    flux.add_commands(commands)


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.convert import diffusion, flux, video

    start = time.perf_counter()
    written = {"to-torch": _to_file, "to-safetensors": _to_safetensors, **diffusion.COMMANDS, **video.COMMANDS, **flux.COMMANDS}
    _check_out(args.out, folder=None if args.command == "to-torch" else True, overwrite=args.overwrite)
    try:
        written.get(args.command, _to_folder)(args)
    except OSError as error:
        raise InputError(f"{args.out}: cannot be written ({error.strerror or error})") from error
    print(f"wrote       {args.out} in {time.perf_counter() - start:.1f} s")


def _to_file(args: argparse.Namespace) -> None:
    from bridgedepth_jax.convert.conversion import sha256_of, write_original
    from bridgedepth_jax.convert.engine import find_rules
    from bridgedepth_jax.convert.published import resolve
    from bridgedepth_jax.store.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(resolve(args.checkpoint))
    names = [] if args.backbone else [name for _, name in find_rules(checkpoint.kind).files]
    _check_out(args.out, folder=bool(names), overwrite=args.overwrite)
    write_original(args.out, checkpoint, backbone=args.backbone)
    for file in [args.out / name for name in names] or [args.out]:
        print(f"sha256      {sha256_of(file)}  {file.name}")
    print(f"licence     {checkpoint.provenance.get('licence')}")


def _to_safetensors(args: argparse.Namespace) -> None:
    from bridgedepth_jax.convert.published import resolve
    from bridgedepth_jax.store.checkpoint import load_checkpoint, save_safetensors

    checkpoint = load_checkpoint(resolve(args.checkpoint), dtype=None)
    save_safetensors(args.out, checkpoint, dtype=args.dtype)
    print(f"licence     {checkpoint.provenance.get('licence')}")


def _to_folder(args: argparse.Namespace) -> None:
    from bridgedepth_jax.convert.conversion import convert_file
    from bridgedepth_jax.convert.engine import find_rules
    from bridgedepth_jax.convert.published import named_config, published
    from bridgedepth_jax.convert.rules.depth_anything import as_metric
    from bridgedepth_jax.store.checkpoint import flatten, save_checkpoint
    from bridgedepth_jax.store.hub import fetch

    path, origin, rows = Path(args.source), {}, published()
    if not path.exists() and args.source in rows:
        row = rows[args.source]
        if row.kind != args.command:
            raise InputError(f"{args.source}: is of kind {row.kind}, not {args.command}")
        path, origin = fetch(args.source, row, revision=args.revision, accept_new=args.accept_new)
    elif args.revision or args.accept_new:
        raise InputError(f"--revision and --accept-new are for published names, {args.source!r} is none")
    variant = getattr(args, "variant", None)
    row = rows.get(args.source) if origin else None
    config = find_rules(args.command).variants[variant]() if variant else named_config(row) if row else None
    if config is None and (given := rows.get(path.stem)) is not None and given.kind == args.command:
        config = named_config(given)  # a metric file is told by its name alone
    checkpoint = convert_file(args.command, path, config=config, origin=origin)
    if getattr(args, "max_depth", None) is not None:
        checkpoint = as_metric(checkpoint, args.max_depth)
    save_checkpoint(args.out, checkpoint, dtype=args.dtype)
    count = sum(leaf.size for leaf in flatten(checkpoint.params).values())
    print(f"sha256      {checkpoint.provenance['sha256']}  {checkpoint.provenance['source']}")
    print(f"licence     {checkpoint.provenance['licence']}")
    print(f"parameters  {count:,}, stored as {args.dtype}")


def _check_out(out: Path, *, folder: bool | None, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise InputError(f"{out} exists, expected a new name, or --overwrite")
    if folder is not None and out.is_dir() != folder:
        raise InputError(f"{out} is a {'folder' if out.is_dir() else 'file'} and would not be replaced")
