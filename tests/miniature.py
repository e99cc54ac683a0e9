"""Every data set in miniature, in its real layout: two pairs each, one textured surface a pair."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bridgedepth_jax.data import write_pfm

HEIGHT, WIDTH = 48, 80
DISPARITIES = (6.0, 9.0)  # of the first and second pair of every set, exact in every format that allows it


def build(root: Path, *names: str) -> Path:
    """Writes the data sets `names` (default: all of `LAYOUTS`) under `root`."""
    for name in names or LAYOUTS:
        for index, disparity in enumerate(DISPARITIES):
            LAYOUTS[name](root, index, disparity)
    return root


def views(index: int, disparity: float) -> tuple[np.ndarray, np.ndarray]:
    """Left and right uint8 RGB: smooth noise, the right one shifted by a whole number of pixels."""
    rng = np.random.default_rng(index)
    shift = round(disparity)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (HEIGHT, WIDTH + shift, 3)).astype(np.float32), (0, 0), 2)
    wide = np.clip((wide - wide.mean()) * 4 + 128, 0, 255).astype(np.uint8)
    return wide[:, :WIDTH], wide[:, shift:]


def _image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image, options)


def _views(root: Path, index: int, disparity: float, left: str, right: str) -> None:
    for path, image in zip((left, right), views(index, disparity), strict=True):
        _image(root / path, image)


def _full(disparity: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), disparity, np.float32)


def _pfm(path: Path, disparity: float, unknown: bool = False) -> None:
    values = _full(disparity)
    if unknown:
        values[:3] = np.inf
    write_pfm(path, values)


def _uint16(path: Path, disparity: float, scale: float) -> None:
    values = np.round(_full(disparity) * scale).astype(np.uint16)
    values[:3] = 0
    _image(path, values)


def _npy(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def _sceneflow(*folders: str) -> "Layout":
    def write(root: Path, index: int, disparity: float) -> None:
        for folder in folders:
            path = f"{folder}/left/{index:04d}.png"
            _views(root, index, disparity, path, path.replace("/left/", "/right/"))
            for side in ("left", "right"):
                _pfm(root / folder.replace("frames_finalpass", "disparity") / side / f"{index:04d}.pfm", disparity)

    return write


def _kitti(year: int, frames: tuple[int, int], test: bool = False) -> "Layout":
    left, right, occ, noc = {
        2012: ("colored_0", "colored_1", "disp_occ", "disp_noc"),
        2015: ("image_2", "image_3", "disp_occ_0", "disp_noc_0"),
    }[year]

    def write(root: Path, index: int, disparity: float) -> None:
        folder, name = f"KITTI/KITTI_{year}/{'testing' if test else 'training'}", f"{frames[index]:06d}_10.png"
        _views(root, index, disparity, f"{folder}/{left}/{name}", f"{folder}/{right}/{name}")
        _image(root / folder / left / name.replace("_10", "_11"), views(index, disparity)[0])  # the next frame is no pair
        if not test:
            _uint16(root / folder / occ / name, disparity, 256)
            _uint16(root / folder / noc / name, disparity, 256)

    return write


def _eth3d(folder: str) -> "Layout":
    def write(root: Path, index: int, disparity: float) -> None:
        scene = ("delivery_area_1l", "electro_1l")[index]
        _views(root, index, disparity, f"ETH3D/{folder}/{scene}/im0.png", f"ETH3D/{folder}/{scene}/im1.png")
        if folder == "two_view_training":
            _pfm(root / f"ETH3D/two_view_training_gt/{scene}/disp0GT.pfm", disparity, unknown=True)
            _image(root / f"ETH3D/two_view_training_gt/{scene}/mask0nocc.png", _nocc())

    return write


def _nocc() -> np.ndarray:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, :16] = 128
    return mask


def _calib(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "cam0=[200 0 40; 0 200 24; 0 0 1]\ncam1=[200 0 44; 0 200 24; 0 0 1]\ndoffs=4\nbaseline=150.0\n"
        f"width={WIDTH}\nheight={HEIGHT}\nndisp=32\n"
    )


def _middeval(folder: str) -> "Layout":
    def write(root: Path, index: int, disparity: float) -> None:
        scene = f"Middlebury/MiddEval3/{folder}/{('Adirondack', 'Motorcycle')[index]}"
        _views(root, index, disparity, f"{scene}/im0.png", f"{scene}/im1.png")
        _calib(root / scene / "calib.txt")
        if folder.startswith("training"):
            _pfm(root / scene / "disp0GT.pfm", disparity, unknown=True)
            _image(root / scene / "mask0nocc.png", _nocc())

    return write


def _middlebury_old(year: int) -> "Layout":
    def write(root: Path, index: int, disparity: float) -> None:
        scene = f"Middlebury/{year}/{('Art', 'Dolls')[index]}"
        for illumination in (1, 2, 3):
            for exposure in (0, 1, 2):
                folder = f"{scene}/Illum{illumination}/Exp{exposure}"
                _views(root, index, disparity, f"{folder}/view1.png", f"{folder}/view5.png")
        for name in ("disp1.png", "disp5.png"):
            _image(root / scene / name, _full(disparity).astype(np.uint8))

    return write


def _middlebury_2014(root: Path, index: int, disparity: float) -> None:
    scene = f"Middlebury/2014/{('Adirondack-perfect', 'Piano-perfect')[index]}"
    for right in ("im1.png", "im1E.png", "im1L.png"):
        _views(root, index, disparity, f"{scene}/im0.png", f"{scene}/{right}")
    _calib(root / scene / "calib.txt")
    _pfm(root / scene / "disp0.pfm", disparity, unknown=True)


def _middlebury_2021(root: Path, index: int, disparity: float) -> None:
    scene = f"Middlebury/2021/data/{('artroom1', 'chess1')[index]}"
    _views(root, index, disparity, f"{scene}/im0.png", f"{scene}/im1.png")
    for exposure in range(4 if index == 0 else 0):  # not every scene has them
        folder = f"{scene}/ambient/L0"
        _views(root, index, disparity, f"{folder}/im0e{exposure}.png", f"{folder}/im1e{exposure}.png")
    _calib(root / scene / "calib.txt")
    _pfm(root / scene / "disp0.pfm", disparity, unknown=True)


def _sintel(root: Path, index: int, disparity: float) -> None:
    frame = f"alley_1/frame_{index + 1:04d}.png"
    for rendering in ("clean", "final"):
        folder = f"SintelStereo/training/{rendering}"
        _views(root, index, disparity, f"{folder}_left/{frame}", f"{folder}_right/{frame}")
    scaled = np.round(_full(disparity) * 2**14).astype(np.int64)  # 4 R + G / 2^6 + B / 2^14
    red, green, blue = scaled // 2**16, scaled // 2**8 % 2**8, scaled % 2**8
    _image(root / "SintelStereo/training/disparities" / frame, np.stack([red, green, blue], -1).astype(np.uint8))


def _falling_things(root: Path, index: int, disparity: float) -> None:
    for folder in ("single/002_master_chef_can_16k/kitchen_0", "mixed/kitedemo_0"):
        stem = f"FallingThings/{folder}/{index:06d}"
        _views(root, index, disparity, f"{stem}.left.jpg", f"{stem}.right.jpg")
        _image(root / f"{stem}.left.depth.png", np.round(120.0 * 6 * 100 / _full(disparity)).astype(np.uint16))
        settings = {"camera_settings": [{"name": "left", "intrinsic_settings": {"fx": 120.0, "fy": 120.0}}]}
        (root / stem).with_name("_camera_settings.json").write_text(json.dumps(settings))


def _tartan_air(root: Path, index: int, disparity: float) -> None:
    folder, frame = "TartanAir/abandonedfactory/Easy/P000", f"{index:06d}"
    _views(root, index, disparity, f"{folder}/image_left/{frame}_left.png", f"{folder}/image_right/{frame}_right.png")
    _npy(root / folder / f"depth_left/{frame}_left_depth.npy", 80 / _full(disparity))


def _crestereo(root: Path, index: int, disparity: float) -> None:
    for part in ("shapenet", "reflective", "tree", "hole"):
        stem = f"CREStereo/{part}/{index:08d}"
        _views(root, index, disparity, f"{stem}_left.jpg", f"{stem}_right.jpg")
        for side in ("left", "right"):
            _uint16(root / f"{stem}_{side}.disp.png", disparity, 32)


def _vkitti2(root: Path, index: int, disparity: float) -> None:
    for scene in ("01", "02", "06", "18", "20"):
        folder, frame = f"VKITTI2/Scene{scene}/clone/frames", f"{index:05d}"
        _views(root, index, disparity, f"{folder}/rgb/Camera_0/rgb_{frame}.jpg", f"{folder}/rgb/Camera_1/rgb_{frame}.jpg")
        depth = np.round(725.0087 * 0.532725 * 100 / _full(disparity)).astype(np.uint16)
        depth[:3] = 65535  # sky
        _image(root / folder / f"depth/Camera_0/depth_{frame}.png", depth)


def _carla(root: Path, index: int, disparity: float) -> None:
    scene = f"carla-highres/trainingF/Town01-{index}"
    _views(root, index, disparity, f"{scene}/im0.png", f"{scene}/im1.png")
    _pfm(root / scene / "disp0GT.pfm", disparity)


def _in_stereo2k(root: Path, index: int, disparity: float) -> None:
    for folder in ("part1", "part5", "test"):
        scene = f"InStereo2K/{folder}/{index:06d}"
        _views(root, index, disparity, f"{scene}/left.png", f"{scene}/right.png")
        _uint16(root / scene / "left_disp.png", disparity, 100)


def _booster(split: str) -> "Layout":
    def write(root: Path, index: int, disparity: float) -> None:
        scene = f"booster/{split}/balanced/{('Bathroom', 'Moka')[index]}"
        for number in range(2):
            _views(root, index, disparity, f"{scene}/camera_00/im{number}.png", f"{scene}/camera_02/im{number}.png")
        if split == "train":
            _npy(root / scene / "disp_00.npy", _full(disparity))

    return write


def _mfs35k(root: Path, index: int, disparity: float) -> None:
    folder, name = root / "MfS35K", ("coco_1", "diw_2")[index]
    _views(folder, index, disparity, f"left/{name}.png", f"right/{name}.png")
    _npy(folder / f"disparity/{name}.npy", _full(disparity))
    _npy(folder / f"confidence/{name}.npy", np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH))
    for mask, columns in (("nocc", np.s_[round(disparity) :]), ("inpaint", np.s_[WIDTH - round(disparity) :])):
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[:, columns] = 255
        _image(folder / f"{mask}/{name}.png", values)
    line = f"left/{name}.png right/{name}.png disparity/{name}.npy confidence/{name}.npy nocc/{name}.png inpaint/{name}.png"
    with open(folder / "MfS35K.txt", "a" if index else "w") as file:
        file.write(line + "\n")


Layout = Callable[[Path, int, float], None]
_FLYING = "FlyingThings3D/frames_finalpass"
LAYOUTS: dict[str, Layout] = {
    "sceneflow": _sceneflow(
        f"SceneFlow/{_FLYING}/TRAIN/A/0000",
        "SceneFlow/Monkaa/frames_finalpass/a_rain_of_stones_x2",
        "SceneFlow/Driving/frames_finalpass/15mm_focallength/scene_forwards/fast",
    ),
    "things": _sceneflow(f"{_FLYING}/TEST/A/0000"),
    "kitti_2012_train": _kitti(2012, (1, 2)),
    "kitti_2012_val": _kitti(2012, (0, 193)),
    "kitti_2012_test": _kitti(2012, (0, 1), test=True),
    "kitti_2015_train": _kitti(2015, (1, 193)),
    "kitti_2015_val": _kitti(2015, (0, 195)),
    "kitti_2015_test": _kitti(2015, (0, 1), test=True),
    "eth3d": _eth3d("two_view_training"),
    "eth3d_test": _eth3d("two_view_testing"),
    **{f"middlebury_{size}": _middeval(f"training{size}") for size in "FHQ"},
    **{f"middlebury_{size}_test": _middeval(f"test{size}") for size in "FHQ"},
    "middlebury_2005": _middlebury_old(2005),
    "middlebury_2006": _middlebury_old(2006),
    "middlebury_2014": _middlebury_2014,
    "middlebury_2021": _middlebury_2021,
    "sintel_stereo": _sintel,
    "falling_things": _falling_things,
    "tartan_air": _tartan_air,
    "crestereo": _crestereo,
    "vkitti2": _vkitti2,
    "carla_highres": _carla,
    "in_stereo2k": _in_stereo2k,
    "booster": _booster("train"),
    "booster_test": _booster("test"),
    "mfs35k": _mfs35k,
}
# How many pairs a set has when everything above is written (kitti_* that join splits have no layout of their own).
PAIRS = {
    "sceneflow": 6, "things": 2, "kitti_2012_train": 2, "kitti_2012_val": 2, "kitti_2012_trainval": 4, "kitti_2012_test": 2,
    "kitti_2015_train": 2, "kitti_2015_val": 2, "kitti_2015_trainval": 4, "kitti_2015_test": 2, "kitti_mix": 8,
    "kitti_mix_2012_train": 6, "kitti_mix_2015_train": 6, "eth3d": 2, "eth3d_test": 2, "middlebury_F": 2, "middlebury_H": 2,
    "middlebury_Q": 2, "middlebury_F_test": 2, "middlebury_H_test": 2, "middlebury_Q_test": 2, "middlebury_2005": 18,
    "middlebury_2006": 18, "middlebury_2014": 6, "middlebury_2021": 6, "sintel_stereo": 4, "falling_things": 4, "tartan_air": 2,
    "crestereo": 8, "vkitti2": 10, "carla_highres": 2, "in_stereo2k": 6, "booster": 8, "booster_test": 4,
    "mfs35k": 2,
}  # fmt: skip
