"""Comparison of two results: a real difference is told from noise, missing images and NaN do no harm."""

import json

import numpy as np
import pytest

from bridgedepth_jax.commands import main
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.compare import compare
from bridgedepth_jax.evaluation.tables import FORMAT


def result(values, words="valid pixels", mask="paper"):
    """A results.json: {image: {metric: value}} of one data set."""
    entry = {"protocol": {"words": words}, "per_image": {name: {mask: row} for name, row in values.items()}}
    return {"format": FORMAT, "method": {"name": "m"}, "datasets": {"eth3d": entry}}


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 20, 50)  # images differ much more than methods do
    noise = rng.normal(0, 0.2, (2, 50))
    a = {f"i{k}": {"epe": v, "density": 50.0} for k, v in enumerate(base)}
    better = {f"i{k}": {"epe": v - 0.3 + n, "density": 60.0} for k, (v, n) in enumerate(zip(base, noise[0], strict=True))}
    same = {
        f"i{k}": {"epe": v + n - noise[1].mean(), "density": 50.0} for k, (v, n) in enumerate(zip(base, noise[1], strict=True))
    }
    return a, better, same


def test_gain_and_noise(images):
    a, better, same = images
    gain = {d.metric: d for d in compare(result(a), result(better))}
    assert gain["epe"].verdict == gain["density"].verdict == "better"
    assert gain["epe"].low < gain["epe"].difference < gain["epe"].high < 0
    assert next(d for d in compare(result(better), result(a)) if d.metric == "epe").verdict == "worse"
    noise = next(d for d in compare(result(a), result(same)) if d.metric == "epe")
    assert noise.verdict == "noise" and abs(noise.difference) < 1e-9


def test_interval_is_the_normal_one(images):
    a, better, _ = images
    difference = np.array([better[name]["epe"] - a[name]["epe"] for name in a])
    d = next(d for d in compare(result(a), result(better)) if d.metric == "epe")
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    assert d.difference == pytest.approx(difference.mean())
    np.testing.assert_allclose([d.low, d.high], [difference.mean() - half, difference.mean() + half], atol=0.1 * half)


def test_only_common_images_and_metrics_count(images):
    a, better, _ = images
    fewer = {name: row for name, row in better.items() if name != "i3"} | {"other": {"epe": 1000.0}}
    del fewer["i4"]["density"]
    rows = {d.metric: d for d in compare(result(a), result(fewer))}
    assert rows["epe"].images == 49 and rows["density"].images == 48
    assert rows["epe"].b < 100
    few = {name: better[name] for name in ("i0", "i1")}
    assert {d.verdict for d in compare(result(a), result(few))} == {"too few"}


def test_refused(images):
    a, better, _ = images
    with pytest.raises(InputError, match="different protocols"):
        compare(result(a), result(better, words="all pixels"))
    with pytest.raises(InputError, match="in common"):
        compare(result(a), result(better, mask="noc/below"))


def test_command(images, tmp_path, capsys):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, values in zip(paths, images, strict=False):
        path.write_text(json.dumps(result(values)))
    command = ["report", "compare", *map(str, paths)]
    main(command)
    table = capsys.readouterr().out
    assert "| epe | 50 |" in table
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.json").rename(tmp_path / name / "results.json")
    paths = [tmp_path / name / "results.json" for name in ("a", "b")]
    main(["report", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert capsys.readouterr().out.splitlines()[2:] == table.splitlines()[2:]
    with pytest.raises(SystemExit):
        main(["report", "compare", str(tmp_path / "a"), str(tmp_path)])
    assert f"{tmp_path / 'results.json'}: cannot be read (No such file or directory), expected" in capsys.readouterr().err
    command = ["report", "compare", *map(str, paths)]
    with pytest.raises(SystemExit):
        main([*command, "--protocols", "papper"])
    assert "unknown protocol 'papper', did you mean paper? Known: " in capsys.readouterr().err
    paths[1].write_text("{}")
    with pytest.raises(SystemExit):
        main(command)
    assert "expected a results.json" in capsys.readouterr().err
