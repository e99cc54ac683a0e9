"""The command `bridgedepth`: its help, names, wrappers in a checkout, and the wheel that brings it."""

import argparse
import ast
import csv
import importlib
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import bridgedepth_jax
from bridgedepth_jax import commands, configs
from bridgedepth_jax.commands import options, train
from bridgedepth_jax.commands.export_onnx import sizes
from bridgedepth_jax.data.formats import write_pfm, write_png
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, flatten, load_checkpoint, save_checkpoint, unflatten
from bridgedepth_jax.training.configfile import read_config
from bridgedepth_jax.training.loop import TrainingFailed

ROOT = Path(__file__).parents[1]
WRAPPERS = {
    "train.py": "train",
    "evaluate.py": "evaluate",
    "convert/__main__.py": "convert",
    "scripts/adapt.py": "adapt",
    "scripts/benchmark.py": "benchmark",
    "scripts/benchmark_data.py": "data benchmark",
    "scripts/compile_for.py": "benchmark compile",
    "scripts/check_data.py": "data check",
    "scripts/compare.py": "report compare",
    "scripts/demo.py": "demo",
    "scripts/depth_anything.py": "depth",
    "scripts/fuse_labels.py": "data fuse-labels",
    "scripts/export_jax.py": "export jax",
    "scripts/export_web.py": "export web",
    "scripts/infer.py": "infer",
    "scripts/make_onnx.py": "export onnx",
    "scripts/make_trt.py": "export trt",
    "scripts/plot_run.py": "report plot",
    "scripts/prepare_dataset.py": "data prepare",
    "scripts/preview_data.py": "data preview",
    "scripts/pseudo_label.py": "data pseudo-label",
    "scripts/submit.py": "submit",
    "scripts/synthesize.py": "data synthesize",
    "scripts/viewer.py": "view",
}
ALLOWED = {"data benchmark": {"--dataset", "--workers"}, "report plot": {"--dataset"}}  # one set alone; processes, not threads
NEW = {"video", "rectify", "live", "models"}  # commands that never were a script


def parser_of(name: str) -> options.Parser:
    module = importlib.import_module(f"bridgedepth_jax.commands.{name.replace(' ', '_').replace('-', '_')}")
    parser = options.Parser(prog=f"bridgedepth {name}", description=module.__doc__)
    module.arguments(parser)
    return parser


def refused(capsys, *words: str) -> str:
    """What one line is said of bad input."""
    with pytest.raises(SystemExit) as end:
        commands.main(words)
    printed = capsys.readouterr()
    assert end.value.code == 2 and not printed.out and printed.err.count("\n") == 1 and printed.err.startswith("error: ")
    return printed.err


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing(words):
    """Processor time, which does not depend on what else the machine does."""
    program = (
        f"import bridgedepth_jax.commands, sys, time; bridgedepth_jax.commands.main({words})\n"
        "assert not {'jax', 'numpy', 'cv2', 'flax'} & set(sys.modules), sorted(sys.modules)\n"
        "print(time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith(("usage: bridgedepth", "bridgedepth-jax ")) and float(done.stderr) < 0.3


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_has_an_example_that_can_be_read(name, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main([*name.split(), "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and text.startswith(f"usage: bridgedepth {name} ")
    examples = [line.partition("#")[0] for line in text.replace("\\\n", "").splitlines() if line.startswith("bridgedepth ")]
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert words[1 : 1 + len(name.split())] == name.split()
        args, rest = parser_of(name).parse_known_args(words[1 + len(name.split()) :])
        assert all(word.startswith("--config.") for word in rest) and (not rest or "overrides" in args)
        if spec := getattr(args, "config", None):
            assert configs.find(spec).is_file()


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_option_is_explained_with_its_default(name):
    parser = parser_of(name)
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        assert action.help, f"{action.dest} has no help"
        if action.default not in (None, "", [], argparse.SUPPRESS) and not isinstance(action.default, bool):
            words = formatter._expand_help(action)
            values = action.default if isinstance(action.default, list) else [action.default]
            said = [f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value) for value in values]
            assert "default" in words and all(value in words for value in said), (action.dest, words)


def test_options_have_one_name():
    """What means the same has one name in all commands."""
    others = {"--device", "--height", "--output", "--maxdisp", "--max-disp", "--dataset", "--model", "--ckpt", "--workers"}
    for name in commands.COMMANDS:
        shown = {
            word for action in parser_of(name)._actions if action.help != argparse.SUPPRESS for word in action.option_strings
        }
        assert not shown & others - ALLOWED.get(name, set()), name


def test_the_overview_names_every_command(capsys):
    commands.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and words in text for name, words in commands.COMMANDS.items())
    commands.main(["data", "-h"])
    assert "data check" in (text := capsys.readouterr().out) and "demo" not in text


def test_version(capsys):
    commands.main(["--version"])
    assert f"bridgedepth-jax {bridgedepth_jax.__version__} (jax {jax.__version__}, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs one of demo, infer, "),
        (["dmo"], "unknown command 'dmo', did you mean demo? Known: demo, infer, "),
        (["zzz"], "unknown command 'zzz', expected one of demo, infer, "),
        (["data"], "bridgedepth data needs one of check, preview, prepare, benchmark"),
        (["data", "chek"], "unknown command 'data chek', did you mean data check?"),
        (["data check"], "unknown command 'data check', expected"),
        (["convert", "bridgdepth", "a", "b"], "did you mean bridgedepth?"),
        (["infer", "--left", "a", "--right", "b", "--out", "c", "--frob", "3"], "unknown arguments: --frob 3"),
        (["infer", "--left", "a"], "the following arguments are required: --right, --out; bridgedepth infer --help"),
        (["train", "--config", "bridgdepth/sf", "--workdir", "w"], "did you mean bridgedepth/sf? Known: bridge_mde/"),
        (["train", "--config", "zzz", "--workdir", "w"], "unknown --config 'zzz', expected one of bridge_mde/"),
        (["train", "--config", "my/own.py", "--workdir", "w"], "--config my/own.py: no such file"),
        (["train", "--config", "sf", "--workdir", "w", "--config.sede=1"], "unknown key --config.sede"),
        (["train", "--config", "sf", "--workdir", "w", "--config.system=bridgdepth"], "unknown system 'bridgdepth', did you"),
        (["submit", "kitty_2015", "--out", "o"], "did you mean kitti_2015?"),
        (["data", "preview", "synthetic", "--size", "64"], "--size 64, expected HEIGHTxWIDTH"),
        (["evaluate", "--datasets", "pairs.csv", "--out", "r"], "'pairs.csv', did you mean custom:pairs.csv"),
        (["benchmark", "--size", "16x64"], "--size 16x64, expected sides of at least 32"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spec", ["bridgedepth/sf", "sf", "configs/sf.py", "configs/bridgedepth/sf.py", str(ROOT / "configs" / "sf.py")]
)
def test_a_config_has_one_name_and_its_former_ones(spec, tmp_path, monkeypatch):
    for folder in (tmp_path, ROOT):
        monkeypatch.chdir(folder)
        assert configs.find(spec).samefile(ROOT / "configs" / "bridgedepth" / "sf.py")
        assert read_config(f"{spec}:vits").model.mono.dim == 384


def test_files_of_the_user_go_before_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for own in ("mine.py", "configs/sf.py"):
        Path(own).write_text("from bridgedepth_jax.configs.bridgedepth import sf\nget_config = sf.get_config\n")
        assert configs.find(own).samefile(own) and read_config(own) == read_config("bridgedepth/sf")
    with pytest.raises(InputError, match=r"elsewhere/sf\.py: no such file"):
        configs.find("elsewhere/sf.py")  # not ours, though we have a file of that name


@pytest.mark.parametrize("file", WRAPPERS)
def test_former_commands_are_wrappers(file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [file, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert end.value.code == 0 and capsys.readouterr().out.startswith(f"usage: bridgedepth {WRAPPERS[file]} ")
    assert len((ROOT / file).read_text().splitlines()) < 16
    assert set(WRAPPERS.values()) == set(commands.COMMANDS) - NEW


@pytest.mark.parametrize(
    ("name", "former", "now", "needed"),
    [
        ("depth", ["--device", "2"], ["--devices", "2"], ["--checkpoint", "c", "--image", "i", "--out", "o"]),
        ("evaluate", ["--workers", "7"], ["--threads", "7"], ["--out", "o"]),
        ("data benchmark", ["--name", "eth3d"], ["--dataset", "eth3d"], []),
        ("export jax", ["--height", "4", "--width", "6"], ["--size", "4x6"], ["--out", "o"]),
        ("export onnx", ["--height", "4", "--width", "6"], ["--size", "4x6"], []),
    ],
)
def test_former_names_of_options(name, former, now, needed):
    parser = parser_of(name)
    read = lambda words: sizes(args) if "height" in (args := parser.parse_args(words)) else args
    assert read([*needed, *former]) == read([*needed, *now])
    assert parser.parse_args([*needed, *now]) != parser.parse_args(needed)
    assert f"{former[0]} " not in parser.format_help() and now[0] in parser.format_help()


def test_a_size_in_two_words_is_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sheets = []
    for size in (["64x96"], ["64", "96"]):
        commands.main(["data", "preview", "synthetic", "--count", "1", "--width", "48", "--size", *size])
        sheets.append(Path("sheet.png").read_bytes())
    assert sheets[0] == sheets[1]


def test_abbreviations_are_not_taken(capsys):
    assert "unknown arguments: --check c" in refused(capsys, "demo", "--check", "c")


@pytest.mark.parametrize(
    ("error", "coordinator", "status"),
    [(TrainingFailed("no finite loss"), None, 1), (InputError("odd"), "a:1", 2), (RuntimeError("lost"), "a:1", 1)],
)
def test_training_that_fails_waits_for_no_one(error, coordinator, status, monkeypatch, capsys):
    def fail(args, overrides):
        raise error

    ended = []
    monkeypatch.setattr(train, "train", fail)
    monkeypatch.setattr(train, "_leave", ended.append)
    train.run(argparse.Namespace(coordinator=coordinator, overrides=[]))
    assert ended == [status] and str(error) in capsys.readouterr().err


def test_dependencies_are_what_is_imported():
    """No requirement is there for nothing, and none is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"absl-py": "absl", "opencv-python-headless": "cv2", "orbax-checkpoint": "orbax", "pyyaml": "yaml"}
    required = {modules.get(name := row.partition(">")[0].partition("[")[0], name) for row in project["dependencies"]}
    imported = set()
    for file in sources():
        if file.parts[:3] == ("bridgedepth_jax", "data", "tfds"):  # the extra `tfds`
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    extras = {
        "flatbuffers",
        "h5py",
        "huggingface_hub",
        "imagecodecs",
        "matplotlib",
        "nicegui",
        "onnx",
        "onnxruntime",
        "rerun",
        "skimage",
        "starlette",
    }
    assert imported - extras - {"bridgedepth_jax", *sys.stdlib_module_names} == required


def sources() -> list[Path]:
    """All modules of the package, those behind its links too, by their names in it."""
    folders = {Path("bridgedepth_jax"): Path("bridgedepth_jax")} | {
        Path("bridgedepth_jax", name): Path(name) for name in ("configs", "convert")
    }
    return [
        package / file.relative_to(ROOT / folder)
        for package, folder in folders.items()
        for file in (ROOT / folder).rglob("*.py")
    ]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment with the wheel and, read from this one, its dependencies; the folder of its packages."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "tree").mkdir()
    for name in ("bridgedepth_jax", "configs", "convert", "scripts", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "reference")
        shutil.copytree(ROOT / name, folder / "tree" / name, symlinks=True, ignore=ignore)
    for name in ("LICENSE", "README.md", "evaluate.py", "pyproject.toml", "train.py"):
        shutil.copy(ROOT / name, folder / "tree")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "tree")]
    subprocess.run([*pip, *build], check=True)
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("bridgedepth_jax-*.whl")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    found = sorted(path.name for path in packages.iterdir())
    elsewhere = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(elsewhere) + "\n")
    return packages, found


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(installed):
    packages, found = installed
    assert found == ["bridgedepth_jax", f"bridgedepth_jax-{bridgedepth_jax.__version__}.dist-info"]
    package = packages / "bridgedepth_jax"
    assert sorted(file.relative_to(packages) for file in package.rglob("*.py")) == sorted(sources())
    assert not [file for file in package.rglob("*") if file.is_symlink()]
    assert (package / "py.typed").is_file()
    weights = [
        {file.relative_to(folder): file.read_bytes() for file in (folder / "weights").rglob("*") if file.is_file()}
        for folder in (package, ROOT / "bridgedepth_jax")
    ]
    assert weights[0] == weights[1] and Path("weights/nano/files.sha256") in weights[0]


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(installed, tmp_path):
    packages, _ = installed
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    environment |= {"JAX_PLATFORMS": "cpu", "BRIDGEDEPTH_CACHE": str(tmp_path / "cache")}

    def run(*words: str) -> str:
        command = [str(packages.parents[2] / "bin" / "bridgedepth"), *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version").startswith(f"bridgedepth-jax {bridgedepth_jax.__version__} ")

    printed = run("demo")
    bad2 = [float(line[14:].split()[0]) for line in printed.splitlines() if line.startswith(("this model", "SGBM, filled"))]
    assert bad2 == pytest.approx([11.4, 11.0], abs=0.1)  # as in the model's card
    assert (tmp_path / "out" / "motorcycle_cloud.ply").is_file()

    mono = MonoConfig.named("vits")
    random = np.random.default_rng(0)
    leaves = {k: random.standard_normal(v, np.float32) for k, v in expected_shapes("depth-anything", mono).items()}
    save_checkpoint(tmp_path / "first", Checkpoint("depth-anything", unflatten(leaves), mono, {}))
    run("convert", "to-torch", "first", "vits.pth")
    count = sum(leaf.size for leaf in leaves.values())
    assert f"parameters  {count:,}, stored as float32" in run("convert", "depth-anything", "vits.pth", "second")
    second = flatten(load_checkpoint(tmp_path / "second").params)
    assert second.keys() == leaves.keys() and all(np.array_equal(second[name], leaf) for name, leaf in leaves.items())

    steps = ["--config.solver.max_iter=2", "--config.solver.batch_size=2", "--config.eval.datasets=()"]
    assert run("train", "--config", "bridgedepth/debug", "--workdir", "run", *steps) == "run/export\n"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2

    for name, image in zip(("left.png", "right.png"), tiny.images(60, 120), strict=True):
        write_png(tmp_path / name, image)
    write_pfm(tmp_path / "truth.pfm", np.full((60, 120), 6, np.float32))
    with (tmp_path / "pairs.csv").open("w") as file:
        csv.writer(file).writerows([["left", "right", "disparity", "format"], ["left.png", "right.png", "truth.pfm", "pfm"]])
    printed = run("evaluate", "--method", "sgbm", "--datasets", "custom:pairs.csv", "--out", "results")
    assert "custom:pairs.csv: epe " in printed and "(1 images" in printed and (tmp_path / "results" / "results.md").is_file()

    run("infer", "--checkpoint", "run/export", "--left", "left.png", "--right", "right.png", "--out", "seen")
    assert (tmp_path / "seen" / "left_disparity.pfm").is_file()
    assert not (tmp_path / "configs").exists() and not (tmp_path / "data").exists()
