"""A video in the place of a camera: the page's stream, the values under the mouse, the rate, and what is refused."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
import tiny

from bridgedepth_jax import commands
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.data.rig import Rig
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference import live
from bridgedepth_jax.inference.check import Picture, check
from bridgedepth_jax.inference.stereo import Prediction, Predictor
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint

HEIGHT, WIDTH, FRAMES = 64, 96, 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "tiny"
    save_checkpoint(path, Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {}))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """both.avi with left and right beside each other, and left.avi and right.avi; without loss."""
    folder = tmp_path_factory.mktemp("videos")
    pairs = [tiny.images(HEIGHT, WIDTH, seed=seed) for seed in range(FRAMES)]
    for name, frames in (
        ("both", [np.concatenate(pair, 1) for pair in pairs]),
        ("left", [pair[0] for pair in pairs]),
        ("right", [pair[1] for pair in pairs]),
    ):
        size = frames[0].shape[1], frames[0].shape[0]
        writer = cv2.VideoWriter(str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, size)
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
    return folder, pairs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port: int, where: str, **headers: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{where}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_frames_of_one_device_and_of_two(videos):
    folder, pairs = videos
    for found in (
        live.side_by_side(str(folder / "both.avi")),
        live.two_devices(str(folder / "left.avi"), str(folder / "right.avi")),
    ):
        frames = list(found)
        assert len(frames) == FRAMES
        for frame, pair in zip(frames, pairs, strict=True):
            for image, expected in zip(frame, pair, strict=True):
                assert np.abs(image.astype(int) - expected).mean() < 2  # colours through the codec
    again = live.side_by_side(str(folder / "both.avi"), loop=True)
    assert sum(1 for _, _ in zip(range(2 * FRAMES + 1), again, strict=False)) == 2 * FRAMES + 1


def test_a_camera_gives_its_newest_frame():
    class Capture:
        number = 0

        def read(self):
            self.number += 1
            time.sleep(0.002)
            return self.number <= 200, np.full((4, 8, 3), min(self.number, 255), np.uint8)

        def release(self):
            self.released = True

    capture = Capture()
    newest = live._Newest(capture)
    frames = iter(newest)
    first = next(frames)[0, 0, 0]
    time.sleep(0.1)  # the network computes
    assert next(frames)[0, 0, 0] > first + 5
    newest.close()
    assert capture.released


def test_the_page_shows_a_video(checkpoint, videos, capsys):
    folder, _ = videos
    port = free_port()
    words = ["live", "--checkpoint", str(checkpoint), "--camera", str(folder / "both.avi"), "--port", str(port), "--loop"]
    # It ends with this test, not by itself: the daemon thread stays in the loop until the flag is seen.
    ended = threading.Event()
    shown = {}
    original = live.Live.run

    def run(self):
        shown["live"] = self
        try:
            return original(self)
        finally:
            ended.set()

    live.Live.run = run
    thread = threading.Thread(target=commands.main, args=([*words, "--focal", "100", "--baseline", "0.2"],), daemon=True)
    try:
        thread.start()
        for _ in range(600):
            try:
                status = json.loads(get(port, "status"))
            except (urllib.error.URLError, ConnectionError):
                status = {"frame": 0}
            if status["frame"] >= 2 * FRAMES:
                break
            time.sleep(0.1)
        assert status["frame"] >= 2 * FRAMES and status["rate"] > 0 and "frames per second" in status["words"]
        assert b"<img id=picture" in get(port, "")
        value = json.loads(get(port, "at?x=0.5&y=0.25"))
        assert (value["x"], value["y"]) == (WIDTH // 2, HEIGHT // 4)
        assert value["metres"] == pytest.approx(100 * 0.2 / value["disparity"], rel=1e-5) and value["words"].endswith(" m")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream", timeout=60) as stream:
            assert stream.readline() == b"--frame\r\n" and stream.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(stream.readline().split()[1])
            stream.readline()
            picture = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (HEIGHT, 2 * WIDTH, 3)
        for where, headers, status in (("x", {}, 404), ("at?x=a&y=1", {}, 400), ("status", {"Host": "evil.example:80"}, 403)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(port, where, **headers)
            assert refused.value.code == status
            refused.value.close()
    finally:
        live.Live.run = original
        if "live" in shown:
            shown["live"].stop()
        thread.join(60)
    assert ended.is_set() and not thread.is_alive()
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}/\n"


def test_the_answer_is_the_predictors(checkpoint, videos):
    folder, _ = videos
    predictor = Predictor.load(checkpoint, check_order=False)
    frames = list(live.side_by_side(str(folder / "both.avi")))
    shown = live.Live(iter(frames), predictor, lambda width, height: None)
    assert shown.run() == FRAMES and shown.newest is not None and shown.newest.number == FRAMES
    expected = predictor(*frames[-1]).disparity
    np.testing.assert_array_equal(shown.newest.prediction.disparity, expected)
    assert shown.at(2, -1)["disparity"] == expected[0, -1] and shown.at(0, 0)["words"].endswith("no calibration for metres")
    assert shown.after(FRAMES) is None and shown.status()["ended"]


def test_a_rig_rectifies_the_frames(checkpoint, videos, tmp_path, capsys):
    folder, _ = videos
    camera = np.array([[90.0, 0, 48], [0, 90, 32], [0, 0, 1]])
    turn = cv2.Rodrigues(np.array([0.02, 0.0, 0.01]))[0]
    Rig(camera, np.zeros(5), camera, np.zeros(5), turn, np.array([-0.1, 0, 0]), (WIDTH, HEIGHT)).write(tmp_path / "rig.yaml")
    answers = []
    original = live.Live.run

    def run(self):
        count = original(self)
        answers.append(self.newest)
        return count

    live.Live.run = run
    try:
        words = [
            "live",
            "--checkpoint",
            str(checkpoint),
            "--left",
            str(folder / "left.avi"),
            "--right",
            str(folder / "right.avi"),
        ]
        commands.main([*words, "--rig", str(tmp_path / "rig.yaml"), "--port", str(free_port()), "--check", "off"])
    finally:
        live.Live.run = original
    (answer,) = answers
    assert answer.number == FRAMES and answer.calibration.baseline == pytest.approx(0.1)
    assert f"{FRAMES} pairs, " in capsys.readouterr().err


def test_what_the_check_finds_is_mended_in_all_frames(checkpoint, tmp_path, capsys, monkeypatch):
    scene = SyntheticStereo(288, 384, config=SyntheticConfig().clean(), seed=10_007)[0]
    lower = np.roll(scene["right"], 6, 0)
    writer = cv2.VideoWriter(str(tmp_path / "both.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (768, 288))
    for _ in range(2):
        writer.write(np.concatenate([scene["left"], lower], 1)[..., ::-1])
    writer.release()
    answers = []
    original = live.Live.run

    def run(self):
        count = original(self)
        answers.append(self.newest)
        return count

    monkeypatch.setattr(live.Live, "run", run)
    words = ["live", "--checkpoint", str(checkpoint), "--camera", str(tmp_path / "both.avi"), "--port", str(free_port())]
    for more in ([], ["--fix"]):
        commands.main([*words, *more])
    left, right = next(live.side_by_side(str(tmp_path / "both.avi")))
    repair = check(Picture(left), Picture(right)).repair
    predictor = Predictor.load(checkpoint, check_order=False)
    for answer, pair in zip(answers, ((left, right), repair.apply(Picture(left), Picture(right))), strict=True):
        np.testing.assert_array_equal(answer.prediction.disparity, predictor(*pair).disparity)
    error = capsys.readouterr().err
    assert repair.plane[0] == pytest.approx(6, abs=0.2) and error.count("px lower") == 2 and error.count(": mended") == 1


def test_depth_that_is_infinite_is_no_number():
    flat = Prediction(np.zeros((4, 6), np.float32), np.ones((4, 6), np.float32))
    camera = Calibration.from_focal(10, 0.1, (6, 4))
    shown = live.Live([(np.zeros((4, 6, 3), np.uint8),) * 2], lambda *_: flat, lambda *_: camera, 1.0)
    shown.run()
    assert json.loads(json.dumps(shown.at(0.5, 0.5), allow_nan=False))["metres"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected --camera, or --left and --right"),
        (["--camera", "0", "--left", "1", "--right", "2"], "expected --camera, or"),
        (["--left", "1"], "expected --camera, or --left and --right"),
        (["--camera", "none.mp4"], "none.mp4: neither the number of a camera nor a video file"),
        (["--camera", "VIDEO", "--rig", "RIG"], "RIG.yaml is of 8x4 images, but the camera gives 96x64"),
        (["--camera", "VIDEO", "--rig", "RIG", "--focal", "1", "--baseline", "1"], "expected one of them"),
        (["--camera", "VIDEO", "--scale", "0.1"], "expected at least 32x32"),
        (["--camera", "VIDEO", "--port", "0"], "--port 0, expected 1 to 65535"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(checkpoint, videos, tmp_path, capsys, words, said):
    folder, _ = videos
    Rig(np.eye(3), np.zeros(5), np.eye(3), np.zeros(5), np.eye(3), np.array([-1.0, 0, 0]), (8, 4)).write(tmp_path / "RIG.yaml")
    names = {"VIDEO": str(folder / "both.avi"), "RIG": str(tmp_path / "RIG.yaml")}
    port = [] if "--port" in words else ["--port", str(free_port())]
    with pytest.raises(SystemExit) as end:
        commands.main(["live", "--checkpoint", str(checkpoint), *(names.get(word, word) for word in words), *port])
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.err.count("\n") == 1 and said in printed.err, printed.err
