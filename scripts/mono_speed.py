"""The trimmed loss and its gradient, without a sort against with one, alternating: times and their ratio.

python scripts/mono_speed.py                       # 4 x 518 x 518, trim 10
python scripts/mono_speed.py --size 128,160 --rounds 9
"""

import argparse
import os
import time
from typing import Any
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.systems.bridge_mde import losses


def sorted_median(values: Any, mask: Any) -> Any:
    """By a sort: what a first version would do."""
    count = jnp.sum(mask, axis=1, dtype=jnp.int32)
    row = jnp.sort(jnp.where(mask, values, jnp.inf), axis=1)
    at = lambda k: jnp.take_along_axis(row, jnp.maximum(k, 0)[:, None], axis=1)[:, 0]
    return 0.5 * (at((count - 1) // 2) + at(count // 2))


def sorted_smallest(values: Any, mask: Any, number: Any) -> Any:
    """By a stable sort of numbers."""
    values = lax.stop_gradient(jnp.where(mask, values, jnp.inf))
    order = jnp.argsort(values, axis=1, stable=True)
    rank = jnp.zeros_like(order).at[jnp.arange(len(order))[:, None], order].set(jnp.arange(order.shape[1])[None])
    return (rank < number[:, None]) & mask


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="518,518", help="height,width")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.rows < 1:
        raise InputError(f"--rounds {args.rounds}, --rows {args.rows}: expected at least 1")
    shape = (args.rows, *(int(side) for side in args.size.split(",")))
    rng = np.random.default_rng(0)
    prediction, target = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random(shape) < 0.9)
    percent = jnp.full(args.rows, 10)

    def value(p: Any, t: Any, m: Any, k: Any) -> Any:
        return losses.total(losses.terms(p, t, m, k), args.rows).loss

    compiled = {}
    ours = {"masked_median": losses.masked_median, "smallest": losses.smallest}
    for name, patches in {"bisection": ours, "sort": {"masked_median": sorted_median, "smallest": sorted_smallest}}.items():
        with mock.patch.multiple(losses, **patches):
            # A function of its own, so that the other's trace is not taken.
            compiled[name] = (
                jax.jit(jax.value_and_grad(lambda *a: value(*a))).lower(prediction, target, mask, percent).compile()
            )
    found = {name: run(prediction, target, mask, percent) for name, run in compiled.items()}
    a, b = (float(found[name][0]) for name in compiled)
    if abs(a - b) > 1e-5 * abs(b):
        raise InputError(f"the two versions differ: {a} and {b}")
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(args.rounds):
        for name, run in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(run(prediction, target, mask, percent))
            times[name].append(time.perf_counter() - start)
    for name, values in times.items():
        print(f"{name}: {1000 * np.median(values):.0f} ms, loss and gradient of {'x'.join(map(str, shape))}")
    ratio = np.median(np.array(times["bisection"]) / np.array(times["sort"]))
    print(f"ratio {ratio:.3f}, median of {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
