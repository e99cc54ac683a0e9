"""TensorRT's engines: what is asked of a file before anything is built, and TensorRT-RTX, which builds without a GPU."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax import commands
from bridgedepth_jax.commands import export_trt
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export import onnx, onnx_graph

SHAPE = (1, 3, 8, 12)


def write(path, dtype="float32", *, beside=False):
    """A model with what networks are made of: convolution, softmax, look-up, order and a loop."""
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 16)).astype(dtype)

    def function(kernel, left, right):
        both = (left - right).transpose(0, 2, 3, 1).astype(dtype)
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(both, kernel, (1, 1), "SAME", dimension_numbers=layout).astype(np.float32)
        x = jax.nn.softmax((x - x.mean(-1, keepdims=True)) * 0.1)
        x = jax.lax.scan(lambda c, row: (0.5 * c + row, c + row), x[0, :, 0], x[0].swapaxes(0, 1))[1]
        best = jnp.argmax(x, -1)[..., None]
        disparity = jnp.take_along_axis(x, best, -1)[..., 0].T[None, None]
        return disparity, 1 - disparity

    kind = jax.ShapeDtypeStruct(SHAPE, np.float32)
    graph = onnx.to_graph(function, kernel, {"left": kind, "right": kind}, ("disparity", "confidence"))
    assert any(node.operator == "Scan" for node in graph.nodes)
    places = {}
    if beside:
        weights = path.with_suffix(".weights")
        with weights.open("wb") as stream:
            places = onnx_graph.write_weights(stream, weights.name, onnx_graph.large(graph))
    onnx_graph.write(path, graph, {"dtype": dtype}, places)
    return path


def run(*words):
    commands.parse_and_run(export_trt, "export trt", list(map(str, words)))


def test_what_is_printed_is_what_builds(tmp_path, capsys):
    file = write(tmp_path / "model.onnx")
    run(file, "--workspace", 512, "--print", "--min-shape", "1x3x8x12", "--opt-shape", "left:1x3x8x12,right:1x3x8x12")
    text = capsys.readouterr().out
    line = f"trtexec --onnx={file} --saveEngine={file.with_suffix('.engine')} --memPoolSize=workspace:512M --stronglyTyped"
    assert text.endswith(f"# {line}\n")
    made = []

    class Members:
        def __getattr__(self, name):
            made.append(name)
            return Members()

        def __call__(self, *args):
            return Members()

        def __int__(self):
            return 1

        def __or__(self, other):
            return self

        __ror__ = __rand__ = __and__ = __lshift__ = __or__

        def __bytes__(self):
            return b"engine"

    class Module(Members):
        pass

    program = text.replace("import tensorrt as trt\n", "")
    exec(program, {"trt": Module()})  # runs as it is printed, against something that takes any call
    assert file.with_suffix(".engine").read_bytes() == b"engine"
    assert {"STRONGLY_TYPED", "OnnxParser", "parse_from_file", "set_memory_pool_limit", "build_serialized_network"} <= set(made)
    assert not {"FP16", "set_flag"} & set(made)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fp16",), "write one in float16: bridgedepth export onnx --size 8x12 --dtype float16"),
        (
            ("--max-shape", "1x3x16x24"),
            "--max-shape 1x3x16x24: sizes are fixed in a file, and input left of this one is 1x3x8x12",
        ),
        (("--min-shape", "middle:1x3x8x12"), "there is no input middle, expected left and right"),
        (("--workspace", "0"), "--workspace 0"),
        (("--architecture", "SM80"), "--architecture goes with --rtx"),
        (("--rtx", "--architecture", "SM8"), "--architecture SM8, expected one of .*SM80"),
        (("--out", "there"), "there exists"),
    ],
)
def test_bad_words(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "model.onnx")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InputError, match=said):
        run(file, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "there"]


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        run(tmp_path / "none.onnx", "--print")
    (tmp_path / "text.onnx").write_text("no model at all")
    with pytest.raises(InputError, match=r"text\.onnx"):
        run(tmp_path / "text.onnx", "--print")
    file = write(tmp_path / "model.onnx", beside=True)
    run(file, "--print")
    (tmp_path / "model.weights").unlink()
    with pytest.raises(InputError, match=r"model\.weights do not lie beside it"):
        run(file, "--print")


def test_float16_files_take_the_flag_of_earlier_versions(tmp_path, capsys):
    run(write(tmp_path / "half.onnx", "float16"), "--fp16", "--print")
    assert "trtexec" in capsys.readouterr().out


def test_what_is_not_installed(tmp_path, monkeypatch):
    file = write(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match="tensorrt is not installed: pip install tensorrt"):
        run(file)
    program = (
        "import sys; sys.modules['onnx'] = None; from bridgedepth_jax.commands import main; main(['export', 'trt', 'x.onnx'])"
    )
    (tmp_path / "x.onnx").write_text("")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "onnx is not installed: pip install 'bridgedepth-jax[onnx]'" in done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rtx_builds_an_engine_without_a_gpu(dtype, tmp_path, capsys):
    file = write(tmp_path / "model.onnx", dtype, beside=True)
    run(file, "--rtx", "--architecture", "SM80", "--workspace", 64)
    assert "0 errors" in capsys.readouterr().out
    assert file.with_suffix(".engine").stat().st_size > 1000


def test_rtx_refuses_what_it_cannot_parse(tmp_path):
    x = jax.ShapeDtypeStruct((3, 4), np.uint32)  # a type that it does not have
    graph = onnx.to_graph(lambda _, x: x + x, (), {"x": x}, ("y",))
    onnx_graph.write(tmp_path / "model.onnx", graph, {"dtype": "float32"})
    with pytest.raises(InputError, match=r"the parser refuses .*model\.onnx: .*UNSUPPORTED_NODE"):
        run(tmp_path / "model.onnx", "--rtx", "--architecture", "SM80")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
