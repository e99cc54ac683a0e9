"""Pictures of a board to a calibration, any tool's calibration to rectified pairs; compared with the cameras that made them."""

import cv2
import numpy as np
import pytest

from bridgedepth_jax import commands
from bridgedepth_jax.data.calibration import READERS, format_of, read_calibration_file, read_rig
from bridgedepth_jax.data.formats import read_image, write_png
from bridgedepth_jax.data.rig import Board, Rig, calibrate, write_middlebury
from bridgedepth_jax.geometry import Calibration

SIZE = 400, 300
COLUMNS, ROWS, SQUARE = 7, 5, 0.03
TURN, MOVE = cv2.Rodrigues(np.array([0.012, -0.02, 0.015]))[0], np.array([-0.12, 0.003, -0.002])
RIG = Rig(
    np.array([[380.0, 0, 205], [0, 378, 148], [0, 0, 1]]), np.array([-0.12, 0.03, 0.001, -0.0005, 0.0]),
    np.array([[372.0, 0, 196], [0, 373, 152], [0, 0, 1]]), np.array([-0.1, 0.02, -0.0005, 0.001, 0.0]),
    TURN, MOVE, SIZE,
)  # fmt: skip
POSES = [
    (0.0, 0.0, 0.0),
    (0.4, 0.1, 0.1),
    (-0.4, 0.15, -0.1),
    (0.1, 0.45, 0.2),
    (-0.1, -0.45, 0.0),
    (0.3, 0.3, -0.2),
    (0.2, -0.35, 0.1),
]


def texture(charuco: Board | None) -> tuple[np.ndarray, float]:
    """A picture of the board from the front, and its pixels a metre; the first inner corner is one square inside."""
    pixels = 40
    if charuco is not None:
        size = charuco.columns * pixels, charuco.rows * pixels
        return charuco._charuco().generateImage(size), pixels / SQUARE
    squares = np.indices((ROWS + 1, COLUMNS + 1)).sum(0) % 2
    return np.kron(squares * 255, np.ones((pixels, pixels))).astype(np.uint8), pixels / SQUARE


def look(matrix, distortion, turn, move, board) -> np.ndarray:
    """The board at X = turn * x + move, seen by a camera, (H, W) uint8; drawn at twice the size and averaged."""
    picture, scale = board
    width, height = SIZE
    grid = np.stack(np.meshgrid(np.arange(0, width, 0.5) - 0.25, np.arange(0, height, 0.5) - 0.25), -1).reshape(-1, 1, 2)
    rays = cv2.undistortPoints(grid, matrix, distortion).reshape(-1, 2)
    rays = np.concatenate([rays, np.ones((len(rays), 1))], 1) @ turn  # in the board's axes
    origin = -turn.T @ move
    at = origin[:2] + rays[:, :2] * (-origin[2] / rays[:, 2])[:, None]
    at = ((at + SQUARE) * scale - 0.5).reshape(2 * height, 2 * width, 2).astype(np.float32)
    wide = cv2.copyMakeBorder(cv2.GaussianBlur(picture, (0, 0), 1), 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=255)
    seen = cv2.remap(wide, at[..., 0] + 40, at[..., 1] + 40, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=200)
    return cv2.resize(seen, SIZE, interpolation=cv2.INTER_AREA)


def pictures(charuco: Board | None = None):
    """Pairs of pictures, and where the board's first corner truly is in the left camera's axes."""
    board, found = texture(charuco), []
    for i, angles in enumerate(POSES):
        turn = cv2.Rodrigues(np.array(angles))[0]
        centre = np.array([0.05 * (i % 3 - 1) + 0.06, 0.04 * (i % 2) - 0.02, 0.42 + 0.05 * (i % 4)])
        move = centre - turn @ np.array([(COLUMNS - 1) / 2, (ROWS - 1) / 2, 0]) * SQUARE
        left = look(RIG.left_matrix, RIG.left_distortion, turn, move, board)
        right = look(RIG.right_matrix, RIG.right_distortion, TURN @ turn, TURN @ move + MOVE, board)
        found.append((left, right))
    return found


@pytest.fixture(scope="module")
def seen():
    return pictures()


def compare(rig: Rig, share: float) -> None:
    np.testing.assert_allclose(rig.left_matrix, RIG.left_matrix, rtol=share, atol=400 * share)
    np.testing.assert_allclose(rig.right_matrix, RIG.right_matrix, rtol=share, atol=400 * share)
    assert np.linalg.norm(rig.translation - MOVE) < share * 0.12
    assert np.linalg.norm(cv2.Rodrigues(rig.rotation @ TURN.T)[0]) < share


def test_a_chessboard_gives_the_cameras_back(seen):
    blank = np.full_like(seen[0][0], 128)
    names = [*map(str, range(len(seen))), "blank"]
    found = calibrate(names, [*seen, (seen[0][0], blank)], Board(COLUMNS, ROWS, SQUARE))
    assert found.error < 0.2 and found.unseen == ("blank",) and found.weak == () and len(found.used) == len(POSES)
    compare(found.rig, 0.01)


def test_a_charuco_board_too(seen):
    board = Board(COLUMNS + 1, ROWS + 1, SQUARE, 0.022)
    found = calibrate([*map(str, range(len(POSES)))], pictures(board), board)
    assert found.error < 0.3 and len(found.used) >= 5
    compare(found.rig, 0.03)


def test_a_pair_that_moved_is_left_out(seen):
    moved = [*seen[:-1], (seen[-1][0], np.roll(seen[-1][1], 9, 0))]
    found = calibrate([*map(str, range(len(seen)))], moved, Board(COLUMNS, ROWS, SQUARE))
    assert found.weak == (str(len(seen) - 1),) and found.error < 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory, seen):
    root = tmp_path_factory.mktemp("boards")
    for i, (left, right) in enumerate(seen):
        for side, image in (("left", left), ("right", right)):
            write_png(root / side / f"{i}.png", np.repeat(image[..., None], 3, -1))
    return root


def rectify(*words) -> None:
    commands.main(["rectify", *map(str, words)])


def test_rectified_pairs_are_in_rows_and_in_metres(folder, tmp_path, capsys):
    sides = "--left", folder / "left", "--right", folder / "right"
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    rectify(*sides, "--board", f"{COLUMNS}x{ROWS}", "--square", SQUARE, "--out", tmp_path / "a")
    printed = capsys.readouterr()
    assert f"{len(POSES)} of {len(POSES)} pairs, reprojection error 0." in printed.err
    assert printed.out.splitlines()[:2] == [str(tmp_path / "a" / name) for name in ("rig.yaml", "calib.txt")]
    camera = read_calibration_file(tmp_path / "a" / "calib.txt")
    board, rows, sides_of_squares = Board(COLUMNS, ROWS, SQUARE), [], []
    for i in range(len(POSES)):
        images = (read_image(tmp_path / "a" / side / f"{i}.png")[..., 0] for side in ("left", "right"))
        left, right = (np.array(list(board.find(image).values())).reshape(-1, 2) for image in images)
        if len(left) != len(right) or not len(left):
            continue  # cut off by the crop
        rows.append(np.abs(left[:, 1] - right[:, 1]))
        depth = camera.fx * camera.baseline / (left[:, 0] - right[:, 0] + camera.doffs)
        points = np.stack([(left[:, 0] - camera.cx) / camera.fx, (left[:, 1] - camera.cy) / camera.fy, np.ones(len(left))], -1)
        grid = (points * depth[:, None]).reshape(ROWS, COLUMNS, 3)
        sides_of_squares.append(np.linalg.norm(np.diff(grid, axis=1), axis=-1).mean())
    assert len(rows) >= 4 and np.concatenate(rows).mean() < 0.15
    np.testing.assert_allclose(sides_of_squares, SQUARE, rtol=0.02)
    # The written calibration makes the same pairs again.
    rectify(*sides, "--calib", tmp_path / "a" / "rig.yaml", "--out", tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.png"):
        np.testing.assert_array_equal(read_image(path), read_image(tmp_path / "b" / path.relative_to(tmp_path / "a")))
    assert {path: path.read_bytes() for path in before} == before


def matrix_yaml(name: str, value: np.ndarray) -> str:
    rows, columns = value.shape
    return f"{name}:\n  rows: {rows}\n  cols: {columns}\n  data: {[float(v) for v in value.ravel()]}\n"


def write_ros(folder):
    turns_and_cameras = cv2.stereoRectify(
        RIG.left_matrix, RIG.left_distortion, RIG.right_matrix, RIG.right_distortion, SIZE, TURN, MOVE[:, None], alpha=0
    )
    for i, (side, matrix, distortion) in enumerate(
        (("left", RIG.left_matrix, RIG.left_distortion), ("right", RIG.right_matrix, RIG.right_distortion))
    ):
        text = f"image_width: {SIZE[0]}\nimage_height: {SIZE[1]}\ncamera_name: {side}\ndistortion_model: plumb_bob\n"
        text += matrix_yaml("camera_matrix", matrix) + matrix_yaml("distortion_coefficients", distortion[None])
        text += matrix_yaml("rectification_matrix", turns_and_cameras[i])
        (folder / f"{side}.yaml").write_text(text + matrix_yaml("projection_matrix", turns_and_cameras[2 + i]))
    return folder / "right.yaml"


def numbers(value) -> str:
    return " ".join(f"{v:.12e}" for v in np.ravel(value))


def write_kitti(folder):
    turns_and_cameras = cv2.stereoRectify(
        RIG.left_matrix, RIG.left_distortion, RIG.right_matrix, RIG.right_distortion, SIZE, TURN, MOVE[:, None], alpha=0
    )
    base, shift = cv2.Rodrigues(np.array([0.01, 0.02, 0.03]))[0], np.array([0.06, 0.001, 0.002])  # of camera 0
    rows = {"S": (SIZE, SIZE), "K": (RIG.left_matrix, RIG.right_matrix), "D": (RIG.left_distortion, RIG.right_distortion)}
    rows |= {"R": (base, TURN @ base), "T": (shift, TURN @ shift + MOVE), "P_rect": turns_and_cameras[2:4]}
    lines = [f"{name}_0{2 + i}: {numbers(value)}" for name, both in rows.items() for i, value in enumerate(both)]
    (folder / "calib_cam_to_cam.txt").write_text("calib_time: 09-Jan-2012 13:57:47\n" + "\n".join(lines) + "\n")
    return folder / "calib_cam_to_cam.txt"


def write_opencv(folder, ending: str = "yaml"):
    RIG.write(folder / f"rig.{ending}")
    return folder / f"rig.{ending}"


def write_other_names(folder):
    file = cv2.FileStorage(str(folder / "stereo.json"), cv2.FILE_STORAGE_WRITE)
    names = ("cameraMatrix1", "distCoeffs1", "cameraMatrix2", "distCoeffs2", "R", "T")
    values = (RIG.left_matrix, RIG.left_distortion, RIG.right_matrix, RIG.right_distortion, TURN, 1000 * MOVE)  # millimetres
    for name, value in zip(names, values, strict=True):
        file.write(name, value)
    file.release()
    return folder / "stereo.json"


@pytest.mark.parametrize("write", [write_ros, write_kitti, write_opencv, lambda folder: write_opencv(folder, "xml")])
def test_calibrations_of_other_tools(write, tmp_path):
    path = write(tmp_path)
    rig = read_rig(path)
    for name in ("left_matrix", "left_distortion", "right_matrix", "right_distortion", "rotation", "translation"):
        np.testing.assert_allclose(getattr(rig, name), getattr(RIG, name), atol=1e-7, err_msg=name)
    camera, expected = read_calibration_file(path), RIG.rectification().calibration
    for name in ("fx", "fy", "cx", "cy", "baseline", "doffs"):
        assert getattr(camera, name) == pytest.approx(getattr(expected, name), rel=1e-6, abs=1e-6), name
    assert READERS[format_of(path)](path) == camera


def test_other_names_and_millimetres(tmp_path):
    rig = read_rig(write_other_names(tmp_path), SIZE)
    np.testing.assert_allclose(rig.translation, MOVE, atol=1e-9)
    np.testing.assert_allclose(rig.right_matrix, RIG.right_matrix)


def test_q_and_projections_of_opencv(tmp_path):
    expected = RIG.rectification().calibration
    found = cv2.stereoRectify(
        RIG.left_matrix,
        RIG.left_distortion,
        RIG.right_matrix,
        RIG.right_distortion,
        SIZE,
        TURN,
        MOVE[:, None],
        flags=0,
        alpha=0,
    )
    assert abs(found[3][0, 2] - found[2][0, 2]) > 1  # without the flag the principal points differ
    cameras = []
    for names, values in ((("Q",), (found[4],)), (("P1", "P2"), found[2:4])):
        file = cv2.FileStorage(str(tmp_path / f"{names[0]}.yaml"), cv2.FILE_STORAGE_WRITE)
        for name, value in zip(names, values, strict=True):
            file.write(name, value)
        file.release()
        cameras.append(read_calibration_file(tmp_path / f"{names[0]}.yaml"))
    for name in ("fx", "cx", "cy", "baseline", "doffs"):
        assert getattr(cameras[0], name) == pytest.approx(getattr(cameras[1], name), abs=1e-6), name
    assert cameras[0].baseline == pytest.approx(expected.baseline)


ZED = """[LEFT_CAM_HD]\nfx=380\nfy=378\ncx=205\ncy=148\nk1=-0.12\nk2=0.03\np1=0.001\np2=-0.0005\nk3=0
[RIGHT_CAM_HD]\nfx=372\nfy=373\ncx=196\ncy=152\nk1=-0.1\nk2=0.02\np1=-0.0005\np2=0.001\nk3=0
[STEREO]\nBaseline=120\nTY=-2\nTZ=1.5\nRX_HD=0.005\nCV_HD=-0.01\nRZ_HD=0.002\n"""


def test_a_zed_conf(tmp_path):
    path = tmp_path / "SN123.conf"
    path.write_text(ZED)
    rig = read_rig(path, (1280, 720))
    np.testing.assert_array_equal(rig.right_matrix, RIG.right_matrix)
    np.testing.assert_allclose(-rig.rotation.T @ rig.translation, [0.12, -0.002, 0.0015], atol=1e-12)  # where it stands
    np.testing.assert_allclose(cv2.Rodrigues(rig.rotation.T)[0].ravel(), [0.005, -0.01, 0.002], atol=1e-12)
    assert read_calibration_file(path).baseline == pytest.approx(np.linalg.norm([0.12, 0.002, 0.0015]))


def test_middlebury_round_trip(tmp_path):
    camera = Calibration(380.5, 380.5, 200.25, 150.75, 0.12, 3.5, SIZE)
    write_middlebury(tmp_path / "calib.txt", camera)
    assert format_of(tmp_path / "calib.txt") == "middlebury" and read_calibration_file(tmp_path / "calib.txt") == camera


BAD = {
    "nothing": ([], "expected either --calib, or --board and --square"),
    "both": (["--calib", "CALIB", "--board", "7x5"], "expected either --calib"),
    "board": (["--board", "seven"], "--board seven, expected COLUMNSxROWS"),
    "no square": (["--board", "7x5"], "--square None"),
    "another board": (["--board", "9x6", "--square", "0.03"], "a board of 9x6 inner corners is seen by both cameras in 0 of 7"),
    "no such board": (["--board", "9x9", "--square", "0.03"], "expected 3; count the inner corners, one less than squares"),
    "squares": (["--board", "8x6", "--square", "0.03"], "one of 7x5 is: --board counts inner corners"),
    "millimetres": (["--board", "7x5", "--square", "30"], "--square 30, expected metres: 30 mm are 0.03"),
    "large marker": (["--board", "8x6", "--square", "0.03", "--marker", "0.04"], "the marker smaller than its square"),
    "dictionary": (["--board", "8x6", "--square", "0.03", "--marker", "0.02", "--dictionary", "DICT"], "expected one of DICT_"),
    "no file": (["--calib", "none.yaml"], "none.yaml: No such file"),
    "other size": (["--calib", "SMALL"], "400x300 pixels, but the calibration is of 200x150"),
    "rectified already": (["--calib", "MIDDLEBURY"], "whose images are rectified already"),
    "text": (["--calib", "TEXT"], "TEXT.yaml: no camera_matrix of 3x3 numbers"),
    "onto itself": (["--calib", "CALIB", "--out", "SELF"], "holds images that were given"),
    "crop": (["--calib", "CALIB", "--crop", "2"], "--crop 2.0, expected 0..1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(folder, tmp_path, capsys, case):
    arguments, message = BAD[case]
    names = {"CALIB": write_opencv(tmp_path), "SELF": folder, "SMALL": tmp_path / "small.yaml"}
    names |= {"MIDDLEBURY": tmp_path / "calib.txt", "TEXT": tmp_path / "left_TEXT.yaml"}
    Rig(*(getattr(RIG, f) for f in RIG.__dataclass_fields__ if f not in ("size", "fisheye")), (200, 150)).write(names["SMALL"])
    names["MIDDLEBURY"].write_text("cam0=[1 0 1; 0 1 1; 0 0 1]\ndoffs=0\nbaseline=1\n")
    names["TEXT"].write_text("camera_matrix: 5\n")
    (tmp_path / "right_TEXT.yaml").write_text("camera_matrix: 5\n")
    before = {path: path.read_bytes() for path in [*folder.rglob("*.png"), *tmp_path.iterdir()]}
    words = [str(names.get(word, word)) for word in arguments]
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        rectify("--left", folder / "left", "--right", folder / "right", *words, *out)
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.err.count("\n") == 1 and message in printed.err, printed.err
    assert {path: path.read_bytes() for path in [*folder.rglob("*.png"), *tmp_path.iterdir()]} == before
