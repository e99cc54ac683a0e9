"""Which files make a pair, and how pairs are read and grouped."""

import threading

import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.inputs import find_files, in_batches, pair_files, read_ahead


@pytest.fixture
def tree(tmp_path):
    for name in (
        "left/b.png", "left/a.png", "right/a.jpg", "right/b.png", "left/notes.txt",
        "scenes/chair/im0.png", "scenes/chair/im1.png", "scenes/deep/er/im0.png", "scenes/deep/er/im1.png",
        "both/x_l1.png", "both/x_l2.png", "both/x_r1.png", "both/x_r2.png",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(pairs, root):
    return [(p.name, str(p.left.relative_to(root)), str(p.right.relative_to(root))) for p in pairs]


def test_two_files_whatever_they_are_called(tree):
    found = pair_files(str(tree / "left/a.png"), str(tree / "right/b.png"))
    assert names(found, tree) == [("a", "left/a.png", "right/b.png")]


def test_folders_pair_by_name_without_suffix(tree):
    found = pair_files(str(tree / "left"), str(tree / "right"))
    assert names(found, tree) == [("a", "left/a.png", "right/a.jpg"), ("b", "left/b.png", "right/b.png")]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("scenes/*/im0.png", "scenes/*/im1.png", [("chair", "scenes/chair/im0.png", "scenes/chair/im1.png")]),
        ("both/x_l?.png", "both/x_r?.png", [("1", "both/x_l1.png", "both/x_r1.png"), ("2", "both/x_l2.png", "both/x_r2.png")]),
        ("both/x_[!r]1.png", "both/x_[!r]1.png", [("l", "both/x_l1.png", "both/x_l1.png")]),
        (
            "scenes/**/im0.png",
            "scenes/**/im1.png",
            [
                ("chair", "scenes/chair/im0.png", "scenes/chair/im1.png"),
                ("deep_er", "scenes/deep/er/im0.png", "scenes/deep/er/im1.png"),
            ],
        ),
        ("left/*", "right", [("a", "left/a.png", "right/a.jpg"), ("b", "left/b.png", "right/b.png")]),
    ],
)  # fmt: skip
def test_globs_pair_by_their_wildcards(tree, left, right, expected):
    assert names(pair_files(str(tree / left), str(tree / right)), tree) == expected


def test_a_wildcard_that_stands_for_nothing_leaves_the_left_files_name(tmp_path):
    for name in ("im0.png", "im1.png"):
        (tmp_path / name).touch()
    assert [pair.name for pair in pair_files(str(tmp_path / "im0*.png"), str(tmp_path / "im1*.png"))] == ["im0"]


def test_a_missing_partner_is_named(tree):
    (tree / "left/c.png").touch()
    with pytest.raises(InputError, match=r"left/c\.png has no partner named 'c' in .*right: a name is the file's name$"):
        pair_files(str(tree / "left"), str(tree / "right"))
    (tree / "right/c.png").touch()
    (tree / "right/d.png").touch()
    (tree / "right/e.png").touch()
    with pytest.raises(InputError, match=r"right/d\.png has no partner named 'd' in .*left, nor has 1 other"):
        pair_files(str(tree / "left"), str(tree / "right"))
    words = r"x_l1\.png has no partner named 'l_1' in .*x_r\*\.png, nor has 1 other: a name is what stands for the wildcards"
    with pytest.raises(InputError, match=words + r"; there: '1' \(x_r1\.png\), '2' \(x_r2\.png\)$"):
        pair_files(str(tree / "both" / "x_*.png").replace("x_*", "x_[l]*"), str(tree / "both" / "x_r*.png"))


def test_nothing_found(tree):
    (tree / "empty").mkdir()
    for pattern, message in [("none.png", "no such file"), ("empty", "no files"), ("no*.png", "no files")]:
        with pytest.raises(InputError, match=message):
            find_files(str(tree / pattern))
    (tree / "right/a.png").touch()
    with pytest.raises(InputError, match="one name, 'a'"):
        find_files(str(tree / "right"))


def test_names_lose_the_suffix_that_is_looked_for(tree):
    assert list(find_files(str(tree / "left/*"), (".txt",))) == ["notes"]


def test_a_file_with_a_bracket_in_its_name(tree):
    (tree / "odd[1].png").touch()
    assert find_files(str(tree / "odd[1].png")) == {"odd[1]": tree / "odd[1].png"}


def test_read_ahead_keeps_order_and_works_in_a_thread():
    threads, made = set(), []

    def items():
        for i in range(20):
            threads.add(threading.get_ident())
            made.append(i)
            yield i

    seen = []
    for i in read_ahead(items(), 3):
        seen.append(i)
        assert len(made) <= len(seen) + 4
    assert seen == list(range(20)) and threading.get_ident() not in threads
    assert list(read_ahead([], 3)) == []


def test_read_ahead_raises_in_place():
    def items():
        yield 1
        yield 2
        raise InputError("broken")

    seen = []
    with pytest.raises(InputError, match="broken"):
        for i in read_ahead(items(), 5):
            seen.append(i)
    assert seen == [1, 2]


def test_batches_hold_equal_keys():
    items = [np.zeros((size, i)) for i, size in enumerate([1, 2, 1, 1, 2, 1, 3])]
    batches = list(in_batches(items, lambda x: x.shape[0], 2))
    assert [[x.shape[1] for x in batch] for batch in batches] == [[0, 2], [1, 4], [3, 5], [6]]
