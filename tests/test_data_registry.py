"""Data sets by name: a miniature of each in its real layout is found, paired and read; what is missing is named."""

import csv
import hashlib

import miniature
import numpy as np
import pytest

from bridgedepth_jax.data import DATASETS, NAMES, find_pairs, read_sample
from bridgedepth_jax.data.pairs import fingerprint
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, pixel_masks

FILE_SETS = [name for name in NAMES if name in DATASETS]
CONFIG_NAMES = """sceneflow things kitti_2012_train kitti_2012_val kitti_2012_trainval kitti_2015_train kitti_2015_val
kitti_2015_trainval kitti_mix kitti_mix_2012_train kitti_mix_2015_train eth3d middlebury_F middlebury_H middlebury_Q
middlebury_2005 middlebury_2006 middlebury_2014 middlebury_2021 sintel_stereo falling_things tartan_air crestereo vkitti2
carla_highres in_stereo2k booster synthetic custom"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return miniature.build(tmp_path_factory.mktemp("data"))


def test_every_name_of_the_configs_is_a_row():
    assert set(CONFIG_NAMES.split()) <= set(NAMES)
    assert set(miniature.PAIRS) == set(DATASETS)


@pytest.mark.parametrize("name", FILE_SETS)
def test_found_paired_and_read(tree, name):
    pairs = find_pairs(name, tree)
    assert len(pairs) == miniature.PAIRS[name]
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert [pair.left for pair in pairs] == sorted(pair.left for pair in pairs)
    disparities = set()
    for pair in pairs:
        sample = read_sample(pair)
        assert sample["left"].shape == sample["right"].shape == (miniature.HEIGHT, miniature.WIDTH, 3)
        assert sample["left"].dtype == np.uint8 and sample["disparity"].dtype == np.float32 and sample["valid"].dtype == bool
        assert np.isfinite(sample["disparity"]).all()
        if name.endswith("_test"):
            assert pair.disparity is None and not sample["valid"].any()
            continue
        valid = sample["valid"]
        assert valid.mean() > 0.7
        disparity = float(np.median(sample["disparity"][valid]))
        disparities.add(round(disparity))
        # The right image really is the left one's: moved by the disparity it gives the left image (JPEG is not exact).
        shift = round(disparity)
        error = np.abs(sample["left"][:, shift:].astype(int) - sample["right"][:, :-shift])
        assert error.mean() < 4
    if not name.endswith("_test"):
        assert disparities == {6, 9}


def test_nonoccluded_pixels_where_the_set_has_them(tree):
    with_mask = {name for name in FILE_SETS if find_pairs(name, tree)[0].nonocc}
    masked, without = ("kitti", "eth3d", "middlebury_", "mfs"), ("_test", "2005", "2006", "2014", "2021")
    assert with_mask == {name for name in FILE_SETS if name.startswith(masked) and not name.endswith(without)}
    sample = read_sample(find_pairs("eth3d", tree)[0])
    assert not sample["nonocc"][:, :16].any() and sample["nonocc"][:, 16:].all() and sample["valid"][5].all()


def test_calibration_is_found_where_it_is_there(tmp_path):
    miniature.build(tmp_path, "middlebury_Q", "kitti_2015_train", "kitti_2012_train")
    assert find_pairs("middlebury_Q", tmp_path)[1].calib == tmp_path / "Middlebury/MiddEval3/trainingQ/Motorcycle/calib.txt"
    for year, folder in ((2012, "calib"), (2015, "calib_cam_to_cam")):
        path = tmp_path / f"KITTI/KITTI_{year}/training/{folder}/000001.txt"
        path.parent.mkdir()
        path.touch()
        assert [pair.calib for pair in find_pairs(f"kitti_{year}_train", tmp_path)] == [path, None]


def test_right_view_disparity_is_read_on_request(tree):
    pair = find_pairs("sceneflow", tree)[0]
    assert "right_disparity" not in read_sample(pair)
    np.testing.assert_array_equal(read_sample(pair, right_disparity=True)["right_disparity"], 6.0)


@pytest.mark.parametrize("name", FILE_SETS)
@pytest.mark.parametrize("side", ["left", "right", "disparity"])
def test_deleting_a_file_names_it(tmp_path, name, side):
    parts = [layout for layout in miniature.LAYOUTS if layout == name or (name.startswith("kitti") and "kitti" in layout)]
    pairs = find_pairs(name, miniature.build(tmp_path, *parts))
    victim = getattr(pairs[len(pairs) // 2], side)
    if victim is None:
        return
    partner = pairs[len(pairs) // 2].right if side == "left" else victim
    victim.unlink()
    if name.startswith("booster") and side != "disparity":
        # Booster's two cameras take different numbers of images, so only the test split, paired in order, can notice one.
        if name == "booster":
            assert len(find_pairs(name, tmp_path)) < len(pairs)
            return
        partner = partner.parent
    with pytest.raises(InputError) as error:
        find_pairs(name, tmp_path)
    # Of the left image only its lone right one is left to name.
    folder = str(partner).replace("camera_00", "camera_02") if "booster" in name else str(partner)
    assert folder in str(error.value)


def test_lists_of_files(tree, tmp_path):
    """Pairs made from photographs: confidence and both masks come with them; a line that is not whole is named."""
    sample = read_sample(find_pairs("mfs35k", tree)[1])
    assert sample["confidence"].dtype == np.float32 and sample["confidence"].min() == 0 and sample["confidence"].max() == 1
    assert not sample["nonocc"][:, :9].any() and sample["nonocc"][:, 9:].all()
    assert sample["inpaint"][:, -9:].all() and not sample["inpaint"][:, :-9].any()
    assert sample.get("kind") == "dense"
    listing = miniature.build(tmp_path, "mfs35k") / "MfS35K" / "MfS35K.txt"
    listing.write_text(listing.read_text().replace(" inpaint/diw_2.png", ""))
    with pytest.raises(InputError, match=r"MfS35K\.txt, line 2: 5 files, expected left, right, disparity, confidence"):
        find_pairs("mfs35k", tmp_path)
    np.save(tmp_path / "MfS35K" / "confidence" / "coco_1.npy", np.full((48, 80), 2.0))
    listing.write_text(listing.read_text().splitlines()[0])
    with pytest.raises(InputError, match=r"coco_1\.npy: 2\.0 to 2\.0, expected confidence in 0..1"):
        read_sample(find_pairs("mfs35k", tmp_path)[0])


def test_middlebury_2014_needs_all_three_exposures(tmp_path):
    pairs = find_pairs("middlebury_2014", miniature.build(tmp_path, "middlebury_2014"))
    assert [pair.right.name for pair in pairs[:3]] == ["im1.png", "im1E.png", "im1L.png"]
    pairs[1].right.unlink()
    with pytest.raises(InputError, match=r"im1E\.png is missing"):
        find_pairs("middlebury_2014", tmp_path)


def test_nothing_found_says_where_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"two_view_training/\*/im0\.png.*eth3d\.net"):
        find_pairs("eth3d", tmp_path)
    with pytest.raises(InputError, match="kitti_mix_2012_train"):
        find_pairs("kitty", tmp_path)


def test_broken_image_is_named(tmp_path, capfd):
    pair = find_pairs("things", miniature.build(tmp_path, "things"))[0]
    pair.right.write_bytes(pair.right.read_bytes()[:200])
    with pytest.raises(InputError, match=str(pair.right)):
        read_sample(pair)


def test_image_of_another_size_is_named(tmp_path):
    pair = find_pairs("things", miniature.build(tmp_path, "things"))[0]
    miniature._image(pair.right, np.zeros((48, 79, 3), np.uint8))
    with pytest.raises(InputError, match=r"right/0000\.png: \(48, 79\)"):
        read_sample(pair)


def _frames(name):
    """The left images that the splits of a KITTI row allow, as '2012/000001_10.png'."""
    return sorted(
        f"{source.left.split('KITTI_')[1][:4]}/{frame}" for source in DATASETS[name].sources for frame in source.frames
    )


# sha256 of the sorted list "year/frame" of the split files that the original uses.
SPLITS = {
    "kitti_2012_train": (154, "57a1d38c0af8cb61"),
    "kitti_2012_val": (40, "2dbc46e904b466d7"),
    "kitti_2012_trainval": (194, "b0b66465b26258a3"),
    "kitti_2015_train": (160, "e81333b4e935e7f7"),
    "kitti_2015_val": (40, "cb42c70f91782650"),
    "kitti_2015_trainval": (200, "b857039c3632f046"),
    "kitti_mix": (394, "2ed3b34811d412fd"),
    "kitti_mix_2012_train": (354, "347b87115fc3eff4"),
    "kitti_mix_2015_train": (354, "8ab59a52977d3a1c"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_kitti_splits_are_the_originals(name):
    frames = _frames(name)
    assert (len(frames), hashlib.sha256("\n".join(frames).encode()).hexdigest()[:16]) == SPLITS[name]


def test_fingerprint_depends_on_the_files_not_the_place(tmp_path):
    one, two = (miniature.build(tmp_path / side, "things") for side in "ab")
    same = fingerprint(find_pairs("things", one), one)
    assert same == fingerprint(find_pairs("things", two), two)
    for side in ("left", "right"):
        for folder, suffix in (("frames_finalpass", "png"), ("disparity", "pfm")):
            (two / f"FlyingThings3D/{folder}/TEST/A/0000/{side}/0001.{suffix}").unlink()
    assert same != fingerprint(find_pairs("things", two), two)


def _custom(root, rows):
    with open(root / "mine.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["left", "right", "disparity", "format", "valid", "nonocc", "kind"])
        writer.writeheader()
        writer.writerows(rows)


def _of(bits, name):
    return bits >> MASKS.index(name) & 1 == 1


def test_custom_pairs_have_non_occluded_pixels(tmp_path):
    """From a column, or from where Middlebury has them: all pixels with ground truth are counted, and those apart."""
    miniature.build(tmp_path, "middlebury_Q", "kitti_2015_train")
    theirs, kitti = find_pairs("middlebury_Q", tmp_path)[0], find_pairs("kitti_2015_train", tmp_path)[0]
    mask = np.zeros((miniature.HEIGHT, miniature.WIDTH), np.uint8)
    mask[:, 20:] = 255
    miniature._image(tmp_path / "mask.png", mask)
    rows = [
        dict(left=theirs.left, right=theirs.right, disparity=theirs.disparity, format="middlebury", kind=theirs.kind),
        dict(left=kitti.left, right=kitti.right, disparity=kitti.disparity, format="kitti", nonocc="mask.png"),
    ]
    _custom(tmp_path, rows)
    mine, other = map(read_sample, find_pairs("custom:mine.csv", tmp_path))
    expected = read_sample(theirs)
    protocol = Protocol("custom", max_disp=1000)
    np.testing.assert_array_equal(pixel_masks(mine, protocol), pixel_masks(expected, protocol))
    assert not mine["nonocc"].all() and mine["nonocc"].any()
    np.testing.assert_array_equal(other["nonocc"], mask > 0)
    bits = pixel_masks(other, protocol)
    np.testing.assert_array_equal(_of(bits, "all/below"), other["disparity"] > 0)
    np.testing.assert_array_equal(_of(bits, "noc/below"), (other["disparity"] > 0) & (mask > 0))
    trusted = np.zeros_like(mask)
    trusted[10:] = 255
    miniature._image(tmp_path / "trusted.png", trusted)
    _custom(tmp_path, [rows[1] | {"valid": "trusted.png"}])
    (both,) = map(read_sample, find_pairs("custom:mine.csv", tmp_path))
    np.testing.assert_array_equal(_of(pixel_masks(both, protocol), "all/below"), (other["disparity"] > 0) & (trusted > 0))
    _custom(tmp_path, [rows[1] | {"nonocc": "gone.png"}])
    with pytest.raises(InputError, match=r"line 2: nonocc .*gone"):
        find_pairs("custom:mine.csv", tmp_path)


def test_custom_pairs_from_a_table(tmp_path):
    miniature.build(tmp_path, "things", "kitti_2015_train")
    mask = np.zeros((miniature.HEIGHT, miniature.WIDTH), np.uint8)
    mask[10:20] = 1
    miniature._image(tmp_path / "mask.png", mask)
    things, kitti = find_pairs("things", tmp_path)[0], find_pairs("kitti_2015_train", tmp_path)[0]
    rows = [
        dict(left=things.left.relative_to(tmp_path), right=things.right, disparity=things.disparity, format="pfm", kind="dense",
             valid="mask.png"),
        dict(left=kitti.left, right=kitti.right, disparity=kitti.disparity, format="kitti"),
    ]  # fmt: skip
    _custom(tmp_path, rows)
    pairs = find_pairs("custom:mine.csv", tmp_path)
    assert [pair.kind for pair in pairs] == ["dense", "sparse"]
    first, second = map(read_sample, pairs)
    np.testing.assert_array_equal(first["valid"], mask > 0)
    np.testing.assert_array_equal(second["disparity"], read_sample(kitti)["disparity"])
    with pytest.raises(InputError, match=r"custom\.csv"):
        find_pairs("custom", tmp_path)
    for damage, words in (
        ({"format": "pfn"}, "line 3.*pfn"),
        ({"right": "gone.png"}, "line 3.*gone"),
        ({"kind": "thin"}, "thin"),
    ):
        _custom(tmp_path, [rows[0], rows[1] | damage])
        with pytest.raises(InputError, match=words):
            find_pairs("custom:mine.csv", tmp_path)
