"""`bridgedepth video`: sources, resuming, files and the report; bad input is one line (spec `video.md` sections 3 and 6)."""

import itertools
import json
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from bridgedepth_jax.commands import main
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference.stereo import Prediction
from bridgedepth_jax.inference.video import video_writer
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.video.config import ImageEncoderConfig, VideoAutoencoderConfig, VideoUNetConfig
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.systems.stereodiff import evaluate, sources
from bridgedepth_jax.systems.stereodiff import run as runner
from bridgedepth_jax.systems.stereodiff.config import RefineOptions, VideoDiffusionConfig
from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion, draw_noise, frame_size, refine, value_range
from bridgedepth_jax.systems.stereodiff.sets import Frames, VideoTruth
from bridgedepth_jax.systems.stereodiff.system import DIFFUSION, PAIRS

T, HEIGHT, WIDTH = 6, 48, 64
FOCAL, BASELINE = 50.0, 0.2
TINY = PairConfig(
    img_size=(64, 64),
    enc_embed_dim=16,
    enc_depth=1,
    enc_num_heads=1,
    dec_embed_dim=16,
    dec_depth=4,
    dec_num_heads=1,
    feature_dim=8,
    last_dim=4,
    layer_dims=(4, 4, 8, 8),
)


def frames(count: int = T) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(count)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A video as a folder of images; the tenth would sort before the second by name."""
    for number, frame in enumerate(frames(11)):
        write_png(tmp_path / "in" / f"{number}.png", frame)
    return tmp_path / "in"


class Stereo:
    """Says of each pair a disparity that its left view's first pixel decides."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, left, right, *, scale=1.0) -> Prediction:
        self.calls += len(left)
        level = left[:, :1, :1, 0].astype(np.float32) / 50
        disparity = np.broadcast_to(level, left.shape[:3]) + np.linspace(0, 1, left.shape[2], dtype=np.float32)
        return Prediction(disparity.copy(), disparity)


def stereo(predictor, count: int = T, batch: int = 1) -> sources.StereoSource:
    camera = Calibration.from_focal(FOCAL, BASELINE, (WIDTH, HEIGHT))
    video = Frames("left", frames(count))
    return sources.StereoSource(video, Frames("right", frames(count)), lambda *_: camera, predictor, batch, 1.0)


def run(out: Path, source, saves=("npy",), **options) -> runner.Report:
    video = source.left if isinstance(source, sources.StereoSource) else source.video
    recipe = options.pop("recipe", {"video": "x"})
    return runner.run(video, lambda _: source, out, stage1="stereo", recipe=recipe, saves=saves, **options)


def test_a_folder_of_images_is_read_by_number(folder):
    video = sources.Video(folder)
    assert (video.count, video.width, video.height) == (11, WIDTH, HEIGHT)
    for ours, theirs in zip(video.read(2), frames(11)[2:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_depth_of_a_stereo_video_is_that_of_its_disparity(tmp_path):
    predictor = Stereo()
    report = run(tmp_path, stereo(predictor, batch=4), ("npy", "color", "video16"))
    depth = np.load(tmp_path / "depth.npy")
    expected = [FOCAL * BASELINE / predictor(f[None], f[None]).disparity[0] for f in frames()]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(depth, np.stack(expected), rtol=1e-5)
    assert report.unit == "metres"
    assert report.frames == T
    assert report.flicker is not None
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["video16"] == "millimetres of depth, 0 none"
    assert not (tmp_path / ".partial").exists()
    capture = cv2.VideoCapture(str(tmp_path / "video16.mkv"), cv2.CAP_FFMPEG, [cv2.CAP_PROP_CONVERT_RGB, 0])
    ok, level = capture.read()
    capture.release()
    assert ok
    np.testing.assert_array_equal(level, np.rint(np.clip(depth[0] * 1000, 0, 65535)).astype(np.uint16))
    assert sources.Video(tmp_path / "color.mp4").count == T


def test_an_interrupted_run_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SAVE_EVERY", 0.0)

    class Killed(Exception):
        pass

    class Failing(Stereo):
        def __call__(self, left, right, *, scale=1.0):
            if self.calls == 3:
                raise Killed
            return super().__call__(left, right, scale=scale)

    run(tmp_path / "whole", stereo(Stereo()))
    with pytest.raises(Killed):
        run(tmp_path / "out", stereo(Failing()))
    assert not (tmp_path / "out" / "depth.npy").exists()
    with pytest.raises(InputError, match="holds a run with video 'x', not 'y'"):
        run(tmp_path / "out", stereo(Stereo()), recipe={"video": "y"})
    again = Stereo()
    report = run(tmp_path / "out", stereo(again))
    assert report.resumed_at == 3
    assert again.calls == T - 3
    one, two = (np.load(tmp_path / name / "depth.npy") for name in ("whole", "out"))
    np.testing.assert_array_equal(one, two)


def test_a_long_stereo_video_takes_no_more_memory_than_a_short_one(tmp_path):
    """Of what Python and numpy hold; the depth itself lies on the disk."""
    import tracemalloc

    class Repeated(Frames):
        def __init__(self, count: int) -> None:
            super().__init__("clip", frames(2))
            self.count = count

        def read(self, start: int = 0):
            return itertools.islice(itertools.cycle(self._read), start % 2, start % 2 + self.count - start)

    def peak(count: int) -> int:
        source = stereo(Stereo())
        source.left = source.right = Repeated(count)  # type: ignore[assignment]
        tracemalloc.start()
        run(tmp_path / str(count), source)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(200) < 1.2 * peak(20)


def test_pixels_without_a_positive_depth_are_counted(tmp_path):
    maps = np.random.default_rng(0).uniform(1, 2, (T, HEIGHT, WIDTH)).astype(np.float32)
    maps[1, :2, :3] = np.nan
    maps[2, 0, :5] = -1
    maps[3, 0, 0] = 0
    np.save(tmp_path / "d.npy", maps)
    video = Frames("v", frames())
    report = run(tmp_path / "out", sources.FileSource(video, tmp_path / "d.npy", "depth"))
    assert (report.not_finite, report.not_positive, report.unit) == (6, 6, "relative")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "depth.npy"), maps)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (np.zeros((T - 1, 4, 4), np.float32), "5 frames, expected 6"),
        (np.zeros((T, 4), np.float32), r"expected floats \(frames, height, width\)"),
        (np.zeros((T, 4, 4), np.int32), "expected floats"),
        (np.array([{}]), "cannot be read as .npy"),
    ],
)
def test_files_of_another_shape_are_refused(maps, words, tmp_path):
    np.save(tmp_path / "d.npy", maps, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        sources.FileSource(Frames("v", frames()), tmp_path / "d.npy", "depth")


def drawn(init) -> dict:
    """Small random weights in the shapes of a system's: quicker than its own initial values, and tame."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def pair_model():
    return sources.PairModel(TINY, drawn(lambda key: PAIRS.init(TINY, key)))


def test_pairs_encode_each_frame_once_and_go_on_where_they_were(tmp_path, pair_model, monkeypatch):
    video = Frames("v", frames())
    source = sources.PairSource(video, pair_model, tmp_path, reach=2)
    out = np.zeros((T, HEIGHT, WIDTH), np.float32)
    told = []
    source.write(out, 0, lambda *row: told.append(row))
    assert source.encoded == T
    assert [row[2] for row in told if row[0] == "pairs"][-1] == 2 * (2 * T - 3)
    assert source.result is not None
    assert source.result.depth.shape == (T, *source.size[::-1])
    again = sources.PairSource(video, pair_model, tmp_path, reach=2)
    repeated = np.zeros_like(out)
    again.write(repeated, 0, lambda *_: None)
    assert again.encoded == 0
    np.testing.assert_array_equal(out, repeated)
    assert (out > 0).all()


def test_the_size_of_pairs_is_linear_in_the_length(tmp_path):
    """Bytes of what the first stage keeps: tokens of each frame, and 8 numbers a pixel of each pair."""
    pairs = {count: len(sources.fusion.pairs_of(count)) for count in (32, 64, 128)}
    assert pairs[64] - 2 * pairs[32] == pairs[128] - 2 * pairs[64] == 6


SMALL = VideoDiffusionConfig(
    VideoUNetConfig(
        block_out_channels=(8,),
        cross_attention=(True,),
        layers_per_block=1,
        attention_heads=(2,),
        cross_attention_dim=8,
        addition_time_embed_dim=4,
        norm_num_groups=4,
    ),
    VideoAutoencoderConfig(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4),
    ImageEncoderConfig(8, 8, 1, 2, 28, 14, 8),
)


@pytest.fixture(scope="module")
def diffusion():
    return VideoDiffusion(SMALL, drawn(lambda key: DIFFUSION.init(SMALL, key)))


OPTIONS = RefineOptions(window=4, overlap=2, chunk=3)


def test_the_second_stage_has_the_first_ones_scale_and_one_seed_gives_the_same_bits(tmp_path, diffusion):
    maps = np.random.default_rng(0).uniform(1, 2, (T, HEIGHT, WIDTH)).astype(np.float32)
    maps[0, 0, 0] = -1
    np.save(tmp_path / "d.npy", maps)
    found = []
    for name in ("one", "two"):
        source = sources.FileSource(Frames("v", frames()), tmp_path / "d.npy", "depth")
        report = run(tmp_path / name, source, model=diffusion, options=OPTIONS)
        assert report.stage2
        found.append(np.load(tmp_path / name / "depth.npy"))
    np.testing.assert_array_equal(*found)
    assert found[0].shape == maps.shape
    # A scale and a shift fit it to the first stage in disparity: no other is nearer.
    inverse = 1 / found[0].astype(np.float64)
    scale, shift = runner.fit_streams(inverse, 1 / maps.clip(0.5))
    np.testing.assert_allclose((scale, shift), (1, 0), atol=0.2)
    source = sources.FileSource(Frames("v", frames()), tmp_path / "d.npy", "depth")
    run(tmp_path / "other", source, model=diffusion, options=RefineOptions(window=4, overlap=2, chunk=3, seed=1))
    assert not np.array_equal(np.load(tmp_path / "other" / "depth.npy"), found[0])


def test_a_window_length_compiles_once(diffusion):
    images = [np.random.default_rng(k).random((16, 16, 3), np.float32) for k in range(8)]
    disparity = [image[..., 0] for image in images]
    before = diffusion._predict._cache_size()
    refine(diffusion, images, disparity, OPTIONS)
    assert diffusion._predict._cache_size() == before + 1  # windows of four frames, three times


def test_a_first_stage_of_another_length_is_refused(diffusion):
    images = [np.zeros((16, 16, 3), np.float32)] * 3
    for given in (None, [np.ones((16, 16))] * 2):
        with pytest.raises(InputError, match=r"of the video's 3 frames"):
            refine(diffusion, images, given, OPTIONS)


def test_values_that_say_nothing_are_refused():
    with pytest.raises(InputError, match="1 disparities of the first stage are no numbers"):
        value_range(np.array([[[1.0, np.nan]]]), OPTIONS)
    with pytest.raises(InputError, match="are all 2"):
        value_range(np.full((2, 2, 2), 2.0), OPTIONS)


def test_noise_of_a_frame_does_not_depend_on_the_others():
    pixels, first = draw_noise(OPTIONS, 9, (8, 4), (1, 1, 4))
    again, _ = draw_noise(OPTIONS, 3, (8, 4), (1, 1, 4))
    np.testing.assert_array_equal(pixels(2), again(2))
    assert not np.array_equal(pixels(2), pixels(1))
    assert first.shape == (4, 1, 1, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (640, 512)), ((1920, 1080), (1024, 576)), ((30, 20), (64, 64)), ((1216, 352), (1024, 320))],
)
def test_frames_of_the_second_stage_have_the_nearest_multiples(size, expected):
    """640 x 480 becomes DepthCrafter's own size for Bonn."""
    assert frame_size(size[0], size[1], 64) == expected


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as end:
        main(["video", *map(str, words)])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def movie(tmp_path) -> Path:
    with video_writer(tmp_path / "a.mp4", 25) as append:
        for frame in frames():
            append(frame)
    return tmp_path / "a.mp4"


def test_bad_input_is_one_line(tmp_path, movie, folder, capsys):
    out = ("--out", tmp_path / "out")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "broken.mp4").write_bytes(movie.read_bytes()[:200])
    with video_writer(tmp_path / "short.mp4", 25) as append:
        for frame in frames(T - 1):
            append(frame)
    np.save(tmp_path / "short.npy", np.ones((T - 1, 4, 4), np.float32))
    save_checkpoint(tmp_path / "pairs", Checkpoint("dust3r", _params(), TINY, {}))
    focal = ("--focal", 50, "--baseline", 0.2)
    file = ("--stage1", "file", "--depth", tmp_path / "short.npy")
    for words, said in (
        (("--video", tmp_path / "empty.mp4", *file), "empty.mp4: not a readable video file"),
        (("--video", tmp_path / "broken.mp4", *file), "broken.mp4: "),
        (("--video", tmp_path / "none.mp4", *file), "not a readable video file"),
        (("--video", movie, *file), "5 frames, expected 6"),
        ((), "--video is missing"),
        (("--video", movie), "--stage1 pairs needs --pairs"),
        (("--video", movie, "--right", movie), "a stereo video without calibration"),
        (("--video", movie, "--right", tmp_path / "short.mp4", *focal), "expected views of the same length"),
        (("--video", movie, "--stage1", "mono"), "--stage1 mono needs --checkpoint"),
        (("--video", movie, *file, "--pairs", "x"), "--pairs belongs to --stage1 pairs"),
        (("--video", movie, *file, "--window", 5, "--overlap", 5), "expected a window above the overlap"),
        (("--video", movie, *file, "--steps", 3, "--first", 3), "first 3 of 3 steps, expected 0 to 2"),
        (("--video", movie, *file, "--diffusion", tmp_path / "pairs"), "holds dust3r, expected depthcrafter"),
        (("--video", movie, *file, "--diffusion", "x", "--no-stage2"), "expected one of them"),
        (("--video", movie, *file, "--from-noise"), "--from-noise needs --diffusion"),
        (("--video", movie, *file, "--save", "gif"), "--save gif: expected any of npy,color,video16"),
        (("--video", movie, *file, "--batch", 0), "expected at least 1"),
    ):
        assert said in refused(capsys, *words, *out)
    write_png(folder / "5.png", np.zeros((20, 30, 3), np.uint8))
    np.save(tmp_path / "eleven.npy", np.ones((11, 4, 4), np.float32))
    line = refused(
        capsys, "--video", folder, "--stage1", "stereo", "--right", folder, *focal, *out, "--checkpoint", tmp_path / "pairs"
    )
    assert "holds dust3r" in line
    video = sources.Video(folder)
    with pytest.raises(InputError, match="frame 5 has 30x20 pixels, expected 64x48"):
        list(video.read())


def _params() -> dict:
    params = jax.eval_shape(lambda: PAIRS.init(TINY, jax.random.key(0)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)


def test_a_video_of_one_frame_has_depth_and_no_flicker(tmp_path, pair_model):
    video = Frames("v", frames(1))
    source = sources.PairSource(video, pair_model, tmp_path)
    report = runner.run(video, lambda _: source, tmp_path / "out", stage1="pairs", recipe={})
    assert report.flicker is None
    assert np.load(tmp_path / "out" / "depth.npy").shape == (1, HEIGHT, WIDTH)
    assert np.load(tmp_path / "out" / "poses.npy").shape == (1, 4, 4)


def test_arms_that_switch_parts_off(diffusion):
    """A U-Net without other frames says of a frame what it says whatever they are; without the encoder no frame is told."""
    rng = np.random.default_rng(0)
    x, condition = (rng.standard_normal((4, 8, 8, channels)).astype(np.float32) for channels in (4, 4))
    context, other = rng.standard_normal((4, 8)).astype(np.float32), x.copy()
    other[0] += 1
    apart = lambda model: np.abs(
        np.asarray(model.predict(other, condition, 0.2, context)) - np.asarray(model.predict(x, condition, 0.2, context))
    )[1:].max()
    assert apart(evaluate.without(diffusion, "frames")) == 0 < apart(diffusion)
    images = rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    # Without images it says the same whatever is shown, and of other noise still something else.
    blind = evaluate.without(diffusion, "images")
    told = [
        np.asarray(blind.predict(noisy, shown, 0.2, blind.embed(images)))
        for noisy, shown, images in (
            (x, condition, np.zeros((4, 16, 16, 3), np.float32)),
            (x, 2 * condition + 1, rng.uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)),
            (other, condition, np.zeros((4, 16, 16, 3), np.float32)),
        )
    ]
    np.testing.assert_array_equal(told[0], told[1])
    assert np.abs(told[2] - told[0]).max() > 1e-4
    seen = [np.asarray(diffusion.predict(x, shown, 0.2, context)) for shown in (condition, 2 * condition + 1)]
    assert np.abs(seen[1] - seen[0]).max() > 1e-4
    assert not evaluate.without(diffusion, "image encoder").embed(images).any() and diffusion.embed(images).all()


def test_baselines_and_the_ablation_of_one_first_stage(diffusion):
    maps = np.random.default_rng(0).uniform(1, 2, (T, HEIGHT, WIDTH)).astype(np.float32)
    maps[1, 0, 0] = np.nan
    sample = VideoTruth("v", Frames("v", frames()), np.full(maps.shape, 2, np.float32), 10.0)
    asked = []
    first = evaluate.remembered(evaluate.Arm("given", "depth", lambda s: (asked.append(s), maps)[1]))
    disparity = np.nan_to_num(1 / maps, nan=1 / np.nanmax(maps))
    np.testing.assert_array_equal(evaluate.in_disparity(first).predict(sample), disparity)
    found = evaluate.smoothed(first).predict(sample)
    for t in range(T):
        near = [disparity[min(max(k, 0), T - 1)] for k in (t - 1, t, t + 1)]
        np.testing.assert_allclose(found[t], sum(near) / 3, rtol=1e-6)
    arms = [evaluate.second_stage("both", diffusion, OPTIONS, first), *evaluate.ablation(diffusion, OPTIONS, first)]
    assert len({arm.name for arm in arms}) == len(arms) == 9
    said = [arm.predict(sample) for arm in arms]
    assert len(asked) == 1
    assert all(np.isfinite(here).all() and here.min() >= 0 and here.max() <= 1 for here in said)
    assert len({here.tobytes() for here in said}) == len(said)
