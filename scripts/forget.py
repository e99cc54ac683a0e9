"""A checkpoint some of whose weights are drawn anew, to train on from: those whose path begins with one of the names.

python scripts/forget.py bridgedepth_jax/weights/nano runs/start mono/ depth_feature_down/
"""

import argparse
from pathlib import Path

import jax

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from bridgedepth_jax.system import find_system


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="of the new checkpoint")
    parser.add_argument("names", nargs="+", help="beginnings of the paths of what is forgotten")
    parser.add_argument("--seed", type=int, default=326)
    args = parser.parse_args()
    known = load_checkpoint(args.checkpoint, dtype=None)
    weights = flatten(known.params)
    for name in args.names:
        if not any(path.startswith(name) for path in weights):
            raise InputError(f"{args.checkpoint}: no weight's path begins with {name!r}")
    drawn = jax.jit(lambda key: find_system(known.kind).init(known.config, key))(jax.random.key(args.seed))
    fresh = {path: value for path, value in flatten(jax.device_get(drawn)).items() if path.startswith(tuple(args.names))}
    weights |= {path: value.astype(weights[path].dtype) for path, value in fresh.items()}
    provenance = {
        "source": f"{args.checkpoint.name}, {', '.join(args.names)} drawn anew from seed {args.seed}",
        "before": known.provenance,
    }
    dtypes = {str(value.dtype) for value in weights.values()}
    params = unflatten(weights)
    save_checkpoint(args.folder, type(known)(known.kind, params, known.config, provenance), dtype=dtypes.pop())
    print(f"{args.folder}: {len(fresh)} of {len(weights)} arrays drawn anew")


if __name__ == "__main__":
    main()
