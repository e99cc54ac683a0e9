"""The list of published models: every name has its card, and what the card says of the network is counted."""

import math
import re

import pytest
import tiny

from bridgedepth_jax import InputError, commands
from bridgedepth_jax.commands.models import CARDS, commercial, describe, models
from bridgedepth_jax.convert.published import OF_PAIRS, ONE_VIEW, SHIPPED, of, published, resolve
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
from bridgedepth_jax.store import hub
from bridgedepth_jax.store.checkpoint import expected_shapes, load_checkpoint
from bridgedepth_jax.system import find_system

PAIR = ("--left", "{}/left.png", "--right", "{}/right.png")


def test_every_name_has_a_card_and_no_card_is_of_nothing(capsys):
    assert set(CARDS) == {*SHIPPED, *published()} == set(models())
    commands.main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *models()]
    assert lines[1].split()[:4] == ["nano", "bridgedepth", "MIT", "yes"] and " yes " in lines[1]
    kitti = next(line for line in lines if line.startswith("kitti "))
    for part in ("CC-BY-NC-4.0", " no ", "359.8 M", "2.8 GB at 288x512", "KITTI 2012 and 2015", "KITTI 2015 D1 1.40 %"):
        assert part in kitti
    assert "1.3 GB of weights" in next(line for line in lines if line.startswith("depth_anything_v2_vitl "))


def test_the_cache_is_looked_into(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path))
    commands.main(["models", "rvc"])
    assert "not here, from aeolusguan/BridgeDepth" in capsys.readouterr().out
    (tmp_path / "checkpoints" / "rvc").mkdir(parents=True)
    commands.main(["models", "rvc"])
    printed = capsys.readouterr().out
    assert "in the cache" in printed and "CC-BY-NC-4.0" in printed and "359,823,803 parameters" in printed
    assert describe(models()["depth_anything_v2_vits"])["use"].startswith("bridgedepth depth ")


def test_commercial_use(capsys):
    assert [commercial(words) for words in ("MIT", "Apache-2.0", "CC-BY-NC-4.0", "unknown")] == ["yes", "yes", "no", "ask"]
    commands.main(["models", "--commercial"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    metric = [f"depth_anything_v2_metric_{data}_vits" for data in ("hypersim", "vkitti")]
    assert names == ["nano", "depth_anything_v2_vits", *metric]


def test_an_unknown_name(capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(["models", "rcv"])
    assert end.value.code == 2 and "unknown model 'rcv', did you mean rvc? Known: nano, sf" in capsys.readouterr().err


def test_nano_is_a_name(monkeypatch, tmp_path):
    assert resolve("nano").samefile(DEFAULT_MODEL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    assert str(resolve("nano")) == "nano"  # a folder of the user goes before a name


def test_nanos_card_counts_its_parameters():
    loaded = load_checkpoint(DEFAULT_MODEL)
    assert CARDS["nano"].parameters == sum(math.prod(s) for s in expected_shapes(loaded.kind, loaded.config).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sf", "rvc", "depth_anything_v2_vits", "depth_anything_v2_vitb", "depth_anything_v2_vitl"])
def test_cards_count_parameters(name):
    row = published()[name]
    config = find_system(row.kind).variants[name]()
    assert CARDS[name].parameters == sum(math.prod(shape) for shape in expected_shapes(row.kind, config).values())


@pytest.mark.parametrize(
    ("arguments", "checkpoint", "words"),
    [
        (["infer", *PAIR], "depth_anything_v2_vits", "holds depth-anything, expected bridgedepth or another system for pairs"),
        (["submit", "kitti_2015"], "mast3r", "holds dust3r, expected bridgedepth"),
        (["evaluate", "--datasets", "eth3d"], "bridge_mde", "holds bridge_mde, expected bridgedepth"),
        (["export", "onnx", "--size", "64x64"], "bridge_mde", "holds bridge_mde, expected bridgedepth"),
        (
            ["depth", "--image", "{}/left.png"],
            "rvc",
            "holds bridgedepth, expected depth-anything or another network of one view",
        ),
        (["depth", "--image", "{}/left.png"], "nano", "holds bridgedepth, expected depth-anything"),
        (["data", "pseudo-label", "--images", "{}"], "sf", "holds bridgedepth, expected depth-anything"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_it_is_fetched(arguments, checkpoint, words, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / "images", str(tmp_path / "out")
    for side, image in zip(("left", "right"), tiny.images(64, 96), strict=True):
        write_png(folder / f"{side}.png", image)
    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "fetch", lambda name, *_: pytest.fail(f"fetches {name}"))
    with pytest.raises(SystemExit) as end:
        commands.main([*(argument.format(folder) for argument in arguments), "--out", out, "--checkpoint", checkpoint])
    assert end.value.code == 2 and f"{checkpoint} {words}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wanted", "name", "words", "without"),
    [
        (OF_PAIRS, "nanno", "did you mean nano? Known: nano, sf, ", "depth_anything"),
        (ONE_VIEW, "depth_anything_v2_vit", "did you mean depth_anything_v2_vit", "nano"),
        (ONE_VIEW, "xyz", "expected one of depth_anything", "nano"),
        (of("dust3r"), "masd3r", "did you mean mast3r? Known: dust3r_512", "nano"),
    ],
)
def test_an_unknown_name_is_told_the_nearest_of_what_can_be_used(wanted, name, words, without):
    with pytest.raises(InputError, match=re.escape(words)) as end:
        resolve(name, wanted)
    assert without not in str(end.value)
