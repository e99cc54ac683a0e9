"""bridgedepth data check: whole, incomplete, broken and absent sets."""

import subprocess
import sys
from pathlib import Path

import miniature
import pytest

from bridgedepth_jax.data import find_pairs
from bridgedepth_jax.data.check import check, check_single
from bridgedepth_jax.data.mono import MONO_DATASETS
from bridgedepth_jax.data.table import DATASETS

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_data.py"


def run(*arguments):
    environment = {"PYTHONPATH": str(SCRIPT.parent.parent), "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, env=environment)


def test_every_set_is_described(tmp_path):
    miniature.build(tmp_path)
    for name in DATASETS:
        report = check(name, tmp_path, every_sample=True)
        assert report.usable and report.pairs == miniature.PAIRS[name] and report.size == "48 x 80"
        assert report.fingerprint and report.disparity == (
            "no disparity" if name.endswith("_test") else "disparity 6.0 to 9.0 px"
        )
    assert str(check("things", tmp_path)).startswith("ok      2 of 4370 pairs, 48 x 80, disparity 6.0 to 9.0 px, fingerprint ")


def test_absent_missing_and_broken_are_told_apart(tmp_path, capfd):
    miniature.build(tmp_path, "eth3d", "things")
    missing, broken = find_pairs("eth3d", tmp_path)[1].right, find_pairs("things", tmp_path)[1].disparity
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:-7])
    absent = str(check("booster", tmp_path))
    assert absent.startswith("absent  booster: no file matches") and "booster-web" in absent
    for name, path in (("eth3d", missing), ("things", broken)):
        report = check(name, tmp_path)
        assert report.broken and str(path) in report.problem and str(report).startswith("BROKEN")


@pytest.mark.parametrize("name", ["custom:list.csv", "mono:list.csv", "single:mono:list.csv"])
def test_a_list_is_absent_or_broken(tmp_path, name):
    how = check_single if "mono" in name else check
    report = how(name, tmp_path)
    assert str(report).startswith(f"absent  {tmp_path / 'list.csv'}: no such file, expected a CSV file with the columns ")
    for content in (b"left,image\na,b\n", b"", b"\xff\xfe\x00,\n", b"left,right,image,depth,format\n"):
        (tmp_path / "list.csv").write_bytes(content)
        report = how(name, tmp_path)
        assert str(report).startswith(f"BROKEN  {tmp_path / 'list.csv'}: "), report


def test_the_command(tmp_path):
    miniature.build(tmp_path, "eth3d")
    done = run("--root", tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(DATASETS) + len(MONO_DATASETS) + 2
    assert "eth3d                  ok      2 of 27 pairs" in done.stdout
    done = run("--root", tmp_path, "eth3d", "things")
    assert done.returncode == 1 and "things                 absent" in done.stdout
    done = run("--root", tmp_path / "elsewhere")
    assert done.returncode == 2 and "no such folder" in done.stderr and not done.stdout
