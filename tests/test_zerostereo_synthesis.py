"""Sets made from photographs: what is in them, that nothing changes their bytes, and what is refused."""

import csv
import functools
import hashlib
import json
import shutil

import cv2
import jax
import numpy as np
import pytest

from bridgedepth_jax import commands
from bridgedepth_jax.data import find_pairs, read_sample
from bridgedepth_jax.data.check import check
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion.config import UNetConfig
from bridgedepth_jax.networks.diffusion.inpainting import Basis, make_inpainter, space_to_depth_codec
from bridgedepth_jax.ops.forward_warp import forward_warp
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.systems.zerostereo.config import StereoGenConfig
from bridgedepth_jax.systems.zerostereo.depth import open_depth
from bridgedepth_jax.systems.zerostereo.fillers import FILLERS, Scene, hole_psnr, open_filler, row
from bridgedepth_jax.systems.zerostereo.synthesis import Recipe, Synthesis
from bridgedepth_jax.systems.zerostereo.system import init


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    (folder / "sub").mkdir()
    for number, name in enumerate(("a.png", "b.jpg", "sub/a.png", "sub/grey.png", "wide.png")):
        size = (80, 300) if name == "wide.png" else (96, 128)
        picture = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3)).astype(np.uint8), (0, 0), 1 + number)
        picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
        cv2.imwrite(str(folder / name), picture[..., 0] if "grey" in name else picture)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:900])
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "tiny.png"), np.zeros((20, 20, 3), np.uint8))
    (folder / "notes.txt").write_text("no photograph")
    return folder


def synthesis(photos, out, batch=1, **options):
    recipe = Recipe(**{"depth": "field", "inpaint": "telea", **options})
    (depth, about), (fill, more) = open_depth(recipe.depth), open_filler(recipe.inpaint, 2, batch)
    return Synthesis(photos, out, recipe, depth, fill, about | more)


def make(photos, out, **options):
    work = synthesis(photos, out, **options)
    list(work.make(work.missing()))
    return work.finish()


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reasons_of(out):
    return dict(list(csv.reader((out / "rejected.csv").read_text().splitlines()))[1:])


def command(*words):
    commands.main(["data", "synthesize", *map(str, words)])


def test_a_set_is_what_its_maps_say(photos, tmp_path, capfd):
    before = hashes(photos)
    command(photos, "--out", tmp_path / "set", "--depth", "field", "--inpaint", "row", "--max-side", 256)
    assert "5 pairs, 3 photographs rejected" in capfd.readouterr().out
    assert hashes(photos) == before
    rejected = reasons_of(tmp_path / "set")
    assert list(rejected) == ["broken.png", "empty.png", "tiny.png"]
    assert rejected["tiny.png"] == "20 x 20 pixels, expected at least 64 of each side"
    pairs = find_pairs("custom:pairs.csv", tmp_path / "set")
    assert [pair.kind for pair in pairs] == ["dense"] * 5
    for pair in pairs:
        sample = read_sample(pair)
        about = json.loads((pair.left.parent / "sample.json").read_text())
        assert about["size"] == list(sample["left"].shape[:2]) and max(about["size"]) <= 256
        assert 0 <= sample["disparity"].max() <= about["scale"] * about["size"][1] + 1 / 512
        warped = forward_warp(sample["left"], sample["disparity"].astype(np.float64))
        np.testing.assert_array_equal(sample["nonocc"], warped.nonocc)
        np.testing.assert_array_equal(sample["inpaint"], warped.inpaint)
        seen = ~warped.inpaint
        np.testing.assert_array_equal(sample["right"][seen], np.round(warped.right[seen]).astype(np.uint8))
        assert sample["right"][warped.inpaint].any()
        assert (sample["confidence"] == 1).all() and sample["confidence"].dtype == np.float32
        assert about["files"].keys() == {path.name for path in pair.left.parent.iterdir()} - {"sample.json"}
    shrunk = next(pair for pair in pairs if "wide" in pair.name)
    assert json.loads((shrunk.left.parent / "sample.json").read_text())["native_size"] == [80, 300]
    report = check("custom:pairs.csv", tmp_path / "set", every_sample=True)
    assert report.usable and report.pairs == 5
    assert cv2.imread(str(tmp_path / "set" / "contact.png")) is not None


@pytest.mark.parametrize("inpaint", ["telea", "background"])
def test_processes_and_kills_change_no_byte(photos, tmp_path, inpaint):
    make(photos, tmp_path / "one", inpaint=inpaint)
    out = tmp_path / "many"
    for process in (2, 0, 1):
        work = synthesis(photos, out, inpaint=inpaint)
        made = list(work.make(work.missing(process, 3), threads=1))
        assert len(made) in (2, 3)
    # As a kill leaves it: a sample in parts, and one that was not begun.
    key = next(key for key in work.keys if key == "sub/a.png")
    folder = out / "data" / key
    partial = out / ".partial" / hashlib.sha256(key.encode()).hexdigest()[:32]
    folder.rename(partial)
    (partial / "right.png").write_bytes(b"half")
    with pytest.raises(InputError, match="1 of 8 photographs are not done yet, the first is sub/a"):
        work.finish()
    make(photos, out, inpaint=inpaint)
    assert hashes(out) == hashes(tmp_path / "one")
    before = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*")}
    make(photos, out, inpaint=inpaint)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*")}  # nothing is made twice
    make(photos, tmp_path / "seed", inpaint=inpaint, seed=1)
    assert hashes(tmp_path / "seed")["data/a.png/disparity.png"] != hashes(out)["data/a.png/disparity.png"]


def test_a_sample_does_not_depend_on_the_other_photographs(photos, tmp_path):
    make(photos, tmp_path / "all")
    few = tmp_path / "few"
    few.mkdir()
    (few / "a.png").write_bytes((photos / "a.png").read_bytes())
    make(few, tmp_path / "one")
    assert hashes(tmp_path / "all" / "data" / "a.png") == hashes(tmp_path / "one" / "data" / "a.png")


def test_damage_is_found(photos, tmp_path):
    make(photos, tmp_path / "set")
    work = synthesis(photos, tmp_path / "set")
    work.verify(work.keys)
    (tmp_path / "set" / "data" / "a.png" / "right.png").write_bytes(b"other")
    with pytest.raises(InputError, match=r"data/a\.png/right\.png is damaged"):
        work.verify(work.keys)


def test_depth_in_files(photos, tmp_path):
    depths, out = tmp_path / "depths", tmp_path / "set"
    (depths / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    plain = rng.uniform(1, 9, (96, 128)).astype(np.float32)
    plain[0, 0], plain[0, 1] = 0, 10
    mirrored = plain.copy()
    mirrored[:, 64:] += rng.uniform(-1, 1, (96, 64))
    mirrored[0, :2] = 0, 10
    np.save(depths / "a.npy", plain)
    np.save(depths / "a_mirrored.npy", mirrored[:, ::-1])
    np.save(depths / "b.npy", plain[:50])  # another size
    np.save(depths / "sub" / "a.npy", np.full((96, 128), 3.0))  # flat
    cv2.imwrite(str(depths / "sub" / "grey.png"), (plain * 1000).astype(np.uint16))
    (depths / "wide.npy").write_bytes(b"\x93NUMPY damaged")
    assert make(photos, out, depth=f"files:{depths}", inpaint="none", dilate=0) == (2, 6)
    reasons = reasons_of(out)
    assert reasons["b.jpg"] == "depth is 50 x 128, the photograph 96 x 128"
    assert reasons["sub/a.png"].startswith("depth is 3 to 3")
    assert reasons["wide.png"].startswith("wide.npy cannot be read")
    sample = read_sample(find_pairs("custom:pairs.csv", out)[0])
    assert sample["confidence"].min() == 0 and sample["confidence"].max() == 1
    assert sample["confidence"][2:, :64].min() == 1 and sample["confidence"][2:, 64:].mean() < 0.8


def test_what_cannot_be(photos, tmp_path, capfd):
    make(photos, tmp_path / "set")
    with pytest.raises(InputError, match="was made with inpaint telea, not row"):
        synthesis(photos, tmp_path / "set", inpaint="row")
    with pytest.raises(InputError, match="photographs are never written to"):
        synthesis(photos, photos / "set")
    with pytest.raises(InputError, match=r"holds other things and no recipe\.json"):
        synthesis(photos, tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no photograph"):
        synthesis(tmp_path / "nothing", tmp_path / "x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of 1 photographs can be used, the first is a\.png: not a complete image"):
        make(tmp_path / "bad", tmp_path / "y")
    for option, value in (("--inpaint", "magic"), ("--depth", "files:nowhere"), ("--depth", "nowhere"), ("--process-id", "3")):
        arguments = {"--out": str(tmp_path / "z"), "--depth": "field", "--inpaint": "row"} | {option: value}
        with pytest.raises(SystemExit) as status:
            command(photos, *(word for pair in arguments.items() for word in pair))
        assert status.value.code == 2 and value.removeprefix("files:") in capfd.readouterr().err


def test_diffusion_fills_holes_the_same_in_any_order(photos, tmp_path, caplog):
    """A tiny network that knows nothing: what counts is that its samples depend on the photograph alone."""
    unet = UNetConfig(
        in_channels=112, out_channels=48, block_out_channels=(8,), cross_attention=(False,), layers_per_block=1,
        attention_heads=(1,), cross_attention_dim=4, norm_num_groups=4,
    )  # fmt: skip
    config = StereoGenConfig(unet, None)
    params = jax.tree.map(np.asarray, jax.jit(functools.partial(init, config))(jax.random.key(0)))
    save_checkpoint(tmp_path / "net", Checkpoint("zerostereo", params, config, {"licence": "MIT"}))
    net, few = str(tmp_path / "net"), tmp_path / "few"
    few.mkdir()
    for name in ("a.png", "wide.png"):
        (few / name).write_bytes((photos / name).read_bytes())
    make(few, tmp_path / "one", inpaint=net, max_side=128)
    work = synthesis(few, tmp_path / "two", inpaint=net, max_side=128)
    for key in ("wide.png", "a.png"):
        list(work.make([key], threads=1))
    work.finish()
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert json.loads((tmp_path / "one" / "recipe.json").read_text())["inpaint_model"]["licence"] == "MIT"
    for pair in find_pairs("custom:pairs.csv", tmp_path / "one"):
        sample = read_sample(pair)
        warped = forward_warp(sample["left"], sample["disparity"].astype(np.float64))
        np.testing.assert_array_equal(sample["right"][~warped.inpaint], np.round(warped.right[~warped.inpaint]))
        assert sample["right"][warped.inpaint].std() > 1

    # Batches: two of the same size and one that waits in vain, alone or beside others, the last batch padded.
    some = tmp_path / "some"
    shutil.copytree(few, some)
    (some / "b.png").write_bytes((photos / "sub/a.png").read_bytes())
    make(some, tmp_path / "pairs", inpaint=net, max_side=128, batch=2)
    work = synthesis(some, tmp_path / "singly", inpaint=net, max_side=128, batch=2)
    for key in ("b.png", "wide.png", "a.png"):
        list(work.make([key], threads=1))
    work.finish()
    assert hashes(tmp_path / "pairs") == hashes(tmp_path / "singly")
    assert json.loads((tmp_path / "pairs" / "recipe.json").read_text())["batch"] == 2
    fill, rng = open_filler(net, 2, 2)[0].fill, np.random.default_rng
    scene = lambda number: Scene(
        np.full((32, 48, 3), 99.0), np.eye(32, 48) > 0, np.zeros((32, 48, 3), np.uint8), list, rng(number)
    )
    both = fill([scene(0), scene(1)])
    with jax.log_compiles(), caplog.at_level("WARNING"):
        (alone,) = fill([scene(1)])
    np.testing.assert_array_equal(alone, both[1])
    assert "Compiling" not in caplog.text  # the last batch is as long as the others
    odd = Scene(rng(5).uniform(0, 255, (33, 46, 3)), np.eye(33, 46) > 0, np.zeros((33, 46, 3), np.uint8), list, rng(5))
    inpaint = make_inpainter(unet, space_to_depth_codec(), config.schedule, 2, basis=Basis(config.residual))
    arrays = (odd.right[None] / 127.5 - 1, odd.hole[None], rng(7).standard_normal((1, 9, 12, 48)))
    image, mask, start = (np.asarray(array, np.float32) for array in arrays)
    whole = inpaint(params, image, mask, params["empty_prompt"][None], start).image[0]
    (filled,) = fill([odd._replace(rng=rng(7))])  # padded, and cropped to where it was
    assert np.abs(filled[odd.hole].astype(int) - whole[odd.hole]).max() <= 1
    for name in ("a.png", "wide.png"):  # another batch changes last bits of the samples, not what they are
        alone, together = (cv2.imread(str(tmp_path / of / "data" / name / "right.png")) for of in ("one", "pairs"))
        assert np.abs(alone.astype(int) - together).max() <= 1
    with pytest.raises(InputError, match="a checkpoint of kind 'zerostereo', expected 'depth-anything'"):
        open_depth(net)
    with pytest.raises(InputError, match="was made with steps 2, not 3"):
        (depth, about), (fill, more) = open_depth("field"), open_filler(net, 3)
        Synthesis(few, tmp_path / "one", Recipe("field", net, max_side=128), depth, fill, about | more)


def test_the_row_filler_takes_the_far_side():
    right = np.arange(1.0, 25).reshape(2, 4, 3)
    hole = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], bool)
    right[hole] = 0
    filled = row(Scene(right, hole, right.astype(np.uint8), lambda: right))
    np.testing.assert_array_equal(filled[0], right[0][[1, 1, 1, 1]])
    np.testing.assert_array_equal(filled[1], right[1][[0, 3, 3, 3]])


def test_on_rendered_pairs():
    """Against the renderer: colours outside holes, the non-occlusion mask, and which filler is better."""
    data = SyntheticStereo(96, 144, max_disparity=30, seed=77, photos=False, config=SyntheticConfig(textures=24).clean())
    scores, medians, agreement = {name: [] for name in FILLERS}, [], []
    for index in range(6):
        sample = data[index]
        warped = forward_warp(sample["left"], sample["disparity"].astype(np.float64))
        scene = Scene(warped.right, warped.inpaint, sample["left"], lambda: data[9]["left"])
        for name, fill in FILLERS.items():
            filled = fill(scene)
            seen = ~warped.inpaint
            np.testing.assert_array_equal(filled[seen], np.round(warped.right[seen]).astype(np.uint8))
            scores[name].append(hole_psnr(filled, sample["right"], warped.inpaint))
        medians.append(np.median(np.abs(warped.right - sample["right"])[~warped.inpaint]))
        agreement.append((warped.nonocc == sample["nonocc"]).mean())
    mean = {name: np.median(values) for name, values in scores.items()}
    assert np.median(medians) < 0.5 and np.mean(agreement) > 0.97
    assert mean["row"] > mean["background"] + 4 and mean["telea"] > mean["background"] + 4
    assert mean["background"] > mean["none"]
