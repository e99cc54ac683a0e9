"""What a compiled program costs, counted by hand on small ones; and what is said of chips that nobody can compile for."""

import argparse
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bridgedepth_jax import commands, programs, topologies
from bridgedepth_jax.commands import benchmark_compile
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.sharding import make_mesh

# As a TPU's compiler writes: a loop of seven trips around a fusion, an array in the core's own memory, tables of lines.
TPU = """HloModule jit_f, is_scheduled=true

FileNames
1 "/somewhere/site-packages/bridgedepth_jax/ops/warp.py"
2 "/somewhere/jax/numpy.py"

FunctionNames
1 "warp"

FileLocations
1 {file_name_id=1 function_name_id=1 line=33 end_line=33 column=2 end_column=2}
2 {file_name_id=2 function_name_id=1 line=9 end_line=9 column=2 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%body (p: (s32[], bf16[16,130])) -> (s32[], bf16[16,130]) {
  %p = (s32[]{:T(128)}, bf16[16,130]{1,0:T(8,128)(2,1)}) parameter(0)
  %x = bf16[16,130]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %fusion.1 = bf16[16,130]{1,0:T(8,128)(2,1)} fusion(%x, %x), kind=kLoop, calls=%f, metadata={op_name="a" stack_frame_id=2}, backend_config={"estimated_cycles":"100"}
}

%condition (p: (s32[], bf16[16,130])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7)
  ROOT %less = pred[]{:T(128)} compare(%i, %bound), direction=LT
}

ENTRY %main (param.1: bf16[16,130]) -> f32[5,3] {
  %param.1 = bf16[16,130]{1,0:T(8,128)(2,1)} parameter(0)
  %while.1 = (s32[]{:T(128)}, bf16[16,130]{1,0:T(8,128)(2,1)}) while(%t), condition=%condition, body=%body
  %copy.1 = f32[5,3]{0,1:T(8,128)} copy(%param.1), metadata={op_name="jit(f)/transpose"}
  %copy-start = (f32[5,3]{0,1:T(8,128)S(1)}, f32[5,3]{0,1:T(8,128)}, u32[]{:S(2)}) copy-start(%copy.1)
  %copy-done = f32[5,3]{0,1:T(8,128)S(1)} copy-done(%copy-start)
  ROOT %all-reduce.1 = f32[5,3]{0,1:T(8,128)} all-reduce(%copy.1), to_apply=%add
}
"""  # noqa: E501


def test_padding_loops_and_lines_of_a_tpus_program():
    map_bytes, tile = 16 * 256 * 2, 4 * 8 * 128  # 130 is padded to 256; (5, 3), first axis minor, to (128, 8)
    loop, copy, start, reduce = programs.instructions(TPU)
    assert loop == ("fusion", "bf16[16,130]{1,0:T(8,128)(2,1)}", 7 * 2 * map_bytes, 7, "bridgedepth_jax/ops/warp.py:33", 700)
    assert copy[2:5] == (map_bytes + tile, 1, "jit(f)/transpose")
    assert (start.kind, start.bytes, start.where) == ("copy-start", tile, copy.where)  # what lies in the core's memory is free
    assert (reduce.kind, reduce.bytes) == ("all-reduce", 2 * tile)
    assert programs.collective_bytes(TPU) == {"all-reduce": {"bytes": 5 * 3 * 4, "count": 1, "largest": 60}}


def test_a_program_of_this_machine():
    """Traffic of a product, a loop's trips, and an all-reduce over eight devices, from a program that was compiled here."""
    mesh = make_mesh(1, jax.devices()[:8])

    def f(a, b):
        y, _ = jax.lax.scan(lambda c, _: (jnp.sin(c) @ b, None), a, None, length=6)
        return y.sum(0)

    shapes = (jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 32), jnp.float32))
    shardings = (NamedSharding(mesh, P("data")), NamedSharding(mesh, P()))
    compiled = jax.jit(f, in_shardings=shardings, out_shardings=NamedSharding(mesh, P())).lower(*shapes).compile()
    found = programs.instructions(compiled.as_text())
    products = [row for row in found if "dot" in row.kind or "dot" in row.shape or row.runs == 6]
    assert products and all(row.runs == 6 for row in products)
    assert sum(row.bytes for row in products) >= 6 * 4 * (8 * 32 + 32 * 32 + 8 * 32)
    assert programs.collective_bytes(compiled.as_text())["all-reduce"]["bytes"] == 32 * 4
    gib = programs.memory(compiled)
    assert gib["arguments"] * 2**30 == 4 * (8 * 32 + 32 * 32)
    assert programs.cost(compiled, "flops") > 0


def test_the_scarcest_peak_binds():
    chip = topologies.CHIPS["v6e"]
    assert benchmark_compile.bound(chip, chip.flops, 0, 0) == (1.0, 0.0, 0.0)
    by_memory = benchmark_compile.bound(chip, chip.flops, 3 * chip.bandwidth, 2 * chip.link)
    assert (by_memory.seconds, by_memory.binds) == (3, "memory")
    uncounted = benchmark_compile.bound(chip, math.nan, chip.bandwidth, 2 * chip.link)  # GPUs: XLA counts no FLOP
    assert (uncounted.seconds, uncounted.binds) == (2, "links")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--topology v7:2x2 --forward 64x96", "unknown topology 'v7'.*v6e:2x2"),
        ("--topology v6e --forward 64x96", "v6e.*after a colon, such as v6e:2x2"),
        ("--topology v6e:2x --forward 64x96", "after a colon"),
        ("--topology v6e:2x2", "one of the two"),
        ("--topology v6e:2x2 --forward 64x96 --config bridgedepth/debug", "one of the two"),
    ],
)
def test_unknown_topologies_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        commands.main(["benchmark", "compile", *words.split()])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    with pytest.raises(InputError, match=message):
        raise InputError(line)


def test_without_a_compiler_the_command_that_installs_it_is_named(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(topologies.importlib, "import_module", absent)
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(InputError, match=r"needs libtpu: pip install"):
        topologies.devices("v5e:2x2")
    with pytest.raises(InputError, match=r"h100:1 needs .*jax-cuda12-plugin"):
        topologies.devices("h100:1")


def test_a_batch_that_the_slice_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(topologies, "devices", lambda name: jax.devices()[:8])
    args = argparse.Namespace(
        topology="v5e:2x4", forward="64x96", config=None, variant="nano", dtype="float32", batch=4, most=3, overrides=[]
    )
    with pytest.raises(InputError, match="batch of 4 pairs is not a multiple of the number of devices, 8"):
        benchmark_compile.run(args)


def test_a_program_that_does_not_fit_names_the_largest_arrays():
    class Lowered:
        def compile(self):
            raise RuntimeError(
                "RESOURCE_EXHAUSTED: Used 20.1G of 15.7G hbm.\n  Largest program allocations:\n"
                "  Size: 2.00G\n  Operator: op_name=dot\n  Shape: bf16[8,4]"
            )

    with pytest.raises(InputError, match=r"step does not fit v5e:2x2: .*20.1G of 15.7G.*Size: 2.00G.*run.fsdp"):
        benchmark_compile.compile_for(Lowered(), "step", "v5e:2x2")
