"""A checkpoint a part of which is made smaller by a power of two and what follows larger by it: the same function.

python scripts/rescale.py runs/nano/export runs/rescaled 32 \
    --divide 'mono/depth_head/(projects_.*|(?!.*output_conv2).*bias)' --multiply 'mono/depth_head/scratch/output_conv2_0/kernel'

Between convolutions that relus, sums and resizings join, all activations become smaller with the first kernels and every bias,
and a layer that overflowed float16 no longer does. What else reads the part must not know its scale: the bounded monocular
state of BridgeDepth does not.
"""

import argparse
import math
import re
from pathlib import Path

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="of the new checkpoint")
    parser.add_argument("factor", type=float, help="a power of two")
    parser.add_argument("--divide", required=True, metavar="REGEX", help="paths of the weights to divide by it")
    parser.add_argument("--multiply", required=True, metavar="REGEX", help="paths of the weights to multiply by it")
    args = parser.parse_args()
    if args.factor <= 0 or math.frexp(args.factor)[0] != 0.5:
        raise InputError(f"factor {args.factor:g}: expected a power of two, which rounds nothing")
    known = load_checkpoint(args.checkpoint, dtype=None)
    weights = flatten(known.params)
    for option, regex, factor in (("--divide", args.divide, 1 / args.factor), ("--multiply", args.multiply, args.factor)):
        meant = [path for path in weights if re.fullmatch(regex, path)]
        if not meant:
            raise InputError(f"{args.checkpoint}: no weight's path matches {option} {regex}")
        for path in meant:
            weights[path] = weights[path] * weights[path].dtype.type(factor)
    source = f"{args.checkpoint.name}, {args.divide} divided and {args.multiply} multiplied by {args.factor:g}"
    provenance = {**known.provenance, "rescaled": source}
    dtypes = {str(value.dtype) for value in weights.values()}
    params = unflatten(weights)
    save_checkpoint(args.folder, type(known)(known.kind, params, known.config, provenance), dtype=dtypes.pop())
    print(f"{args.folder}: {source}")


if __name__ == "__main__":
    main()
