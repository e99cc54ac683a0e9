"""What is wrong with a pair is named, with its number, and mended where that is safe; a sound pair is left alone.

`scripts/check_pairs.py` makes 200 perturbations; here are one or two of each kind on a rendered pair.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from bridgedepth_jax import commands
from bridgedepth_jax.data.formats import read_pfm, write_png
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference import check as module
from bridgedepth_jax.inference.check import Picture, Repair, check, order, orientation, read_picture, turn
from bridgedepth_jax.inference.run import Checks
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]


def script():
    spec = importlib.util.spec_from_file_location("check_pairs", ROOT / "scripts" / "check_pairs.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["check_pairs"] = found
    spec.loader.exec_module(found)
    return found


made = script()


@pytest.fixture(scope="module")
def pairs():
    return made.rendered(2, 0)


@pytest.fixture(scope="module")
def truth():
    return SyntheticStereo(*made.SIZE, config=SyntheticConfig().clean(), seed=10_007)[0]["disparity"]


@pytest.mark.parametrize("name", made.PERTURBATIONS)
def test_named_and_mended(pairs, name):
    make, kinds = made.PERTURBATIONS[name]
    found = made.report(make(*pairs), ("left", "right"))
    named = [finding for finding in found.findings if finding.kind in kinds]
    assert named and all(any(letter.isdigit() for letter in finding.words) for finding in named)
    number = made.number(named[0], named[0].kind)
    if number is not None:
        wanted = make(*pairs).number + pairs[0].own[named[0].kind]
        assert number == pytest.approx(abs(wanted), abs=0.15)
    sources = [read_picture(data, "image") for data in make(*pairs)[:2]]
    again = check(*map(Picture, found.repair.apply(*sources)))
    if all(finding.fixed for finding in found.findings):
        assert again.findings == () and found.repair != Repair()
    else:
        assert {finding.kind for finding in again.findings} >= {f.kind for f in found.findings if not f.fixed}


def test_a_sound_pair_is_left_alone(pairs):
    for pair in pairs:
        assert check(Picture(pair.left), Picture(pair.right))[:2] == ((), Repair())
    images = Repair().apply(Picture(pairs[0].left), Picture(pairs[0].right))
    np.testing.assert_array_equal(images, (pairs[0].left, pairs[0].right))


def test_other_sizes_are_a_finding(pairs):
    found = check(Picture(pairs[0].left), Picture(pairs[0].right[:-1]))
    assert [finding.kind for finding in found.findings] == ["size"] and "384x287" in found.findings[0].words


def test_the_largest_disparity_is_known(pairs, truth):
    found = check(Picture(pairs[0].left), Picture(pairs[0].right))
    assert found.largest == pytest.approx(np.quantile(truth, 0.98), rel=0.2)
    assert check(Picture(pairs[0].left), Picture(0 * pairs[0].left)).largest is None


def test_a_mended_pair_has_the_disparities_of_the_pair_before(pairs, truth):
    """Seen by the matches: what was made comes off again, to a fifth of a pixel."""
    pair = pairs[0]
    for by, kind in ((dict(offset=3), "offset"), (dict(degrees=1.5), "rotation"), (dict(shift=round(pair.median)), "negative")):
        wrong = made.moved(pair.right, **by)
        report = check(Picture(pair.left), Picture(wrong))
        assert [finding.kind for finding in report.findings] == [kind]
        left, right = report.repair.apply(Picture(pair.left), Picture(wrong))
        found = module.align(left, right)
        assert found is not None
        x, y = np.rint(found.left).astype(int).T
        wanted = truth[y, x] - by.get("shift", 0)
        assert np.median(np.abs(report.repair.restore(found.disparity) - wanted)) < 0.2, kind


def test_swapped_is_told_from_shifted(pairs):
    """By half-occluded strips: the matches of both lie on the wrong side."""
    votes = []
    for pair in pairs:
        high = 2 * pair.median + 60
        votes.append((order(pair.left, pair.right, 0, high), order(pair.right, pair.left, -high, 0)))
    assert all(right > 0 > wrong for right, wrong in votes), votes
    report = check(Picture(pairs[0].right), Picture(pairs[0].left))
    assert report.repair.swap and [finding.kind for finding in report.findings] == ["swapped"]


@pytest.mark.parametrize("tag", range(1, 9))
def test_the_tag_is_read_and_followed(tag):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    data = made.jpeg(image, tag)
    assert orientation(data) == tag
    # What the tag means, by where the standard says that the first row and the first column lie.
    sides = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}[tag]
    shown = turn(image, tag)
    rows, columns = (shown, shown.swapaxes(0, 1))[sides[0] in "lr"], sides
    rows = rows[::-1] if sides[0] in "br" else rows
    rows = rows[:, ::-1] if columns[1] in "br" else rows
    np.testing.assert_array_equal(rows, image)


def test_files_without_a_tag_or_with_a_broken_one():
    image = np.zeros((4, 6, 3), np.uint8)
    for data in (made.png(image), made.jpeg(image, 6)[:30], made.jpeg(image, 200), b"", b"II*\0", b"MM\0*\0\0\0\x08"):
        assert orientation(data) == 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "tiny"
    save_checkpoint(path, Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {}))
    return path


def infer(checkpoint, folder, *options):
    paths = ["--left", folder / "left.png", "--right", folder / "right.png", "--out", folder / "out", "--save", "disparity"]
    commands.main(["infer", "--checkpoint", str(checkpoint), *map(str, paths), *options])


def test_infer_says_it_and_mends_it(checkpoint, pairs, tmp_path, capsys):
    pair, shift = pairs[0], round(pairs[0].median)
    write_png(tmp_path / "left.png", pair.left)
    write_png(tmp_path / "right.png", made.moved(pair.right, shift=shift))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    infer(checkpoint, tmp_path)
    error = capsys.readouterr().err
    assert "warning: " in error and "negative disparities" in error and "--fix" in error
    infer(checkpoint, tmp_path, "--fix")
    error = capsys.readouterr().err
    assert "note: " in error and ": mended" in error and "or --fix" not in error
    report = check(Picture(pair.left), Picture(made.moved(pair.right, shift=shift)))
    expected = Predictor.load(checkpoint)(
        *report.repair.apply(Picture(pair.left), Picture(made.moved(pair.right, shift=shift)))
    )
    np.testing.assert_array_equal(read_pfm(tmp_path / "out" / "left_disparity.pfm"), expected.disparity - report.repair.shift)
    infer(checkpoint, tmp_path, "--check", "off")
    assert "negative" not in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(SystemExit) as end:
        infer(checkpoint, tmp_path, "--check", "error")
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and "negative disparities" in error


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="--check maybe, expected one of warn, error, off"):
        Checks("maybe")
    with pytest.raises(InputError, match="expected another --check than off"):
        Checks("off", fix=True)


def test_a_tag_and_a_calibration_do_not_go_together(pairs):
    sources = [read_picture(made.jpeg(image, 3), "x") for image in (pairs[0].left, pairs[0].right)]
    report = Checks("warn")(*sources, ("a", "b"), calibrated=True)
    assert report.findings[0].kind == "orientation" and report.repair == Repair()
    with pytest.raises(InputError, match=r"a, b: EXIF orientation 3 and 3 .* belongs to the pixels as stored"):
        Checks("warn", fix=True)(*sources, ("a", "b"), calibrated=True)
