"""Where the files of each data set lie and how they pair (spec: data, table). One row of `DATASETS` is one data set.

To add one, add a row and, if its disparity format is new, a reader in `formats`.
"""

import dataclasses
from typing import Literal

from bridgedepth_jax.data import kitti_raw

Kind = Literal["dense", "sparse", "masked"]  # masked: dense, but the mask given with it is kept

# Replacements in a path (regular expression, text), applied one after another; written so that they fit the glob as well.
Swap = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """Some pairs of a data set: a glob of left images under the data directory, and how to get the other files from one."""

    left: str
    right: Swap
    disparity: Swap | None = None
    frames: frozenset[str] | None = None  # only left images with these file names
    cross: Literal["product", "zip"] | None = None  # rights of a folder: every one with every left, or in order
    nonocc: Swap | None = None  # these three are used where the file is there
    right_disparity: Swap | None = None
    calib: Swap | None = None
    calibration: Literal["kitti", "middlebury"] = "middlebury"  # format of that file


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A row: sources, disparity format, kind (spec: data), and for `check_data` its origin and full size."""

    sources: tuple[Source, ...]
    format: str
    kind: Kind
    origin: str
    pairs: int | None = None
    listing: str = ""  # glob of text files in place of sources; `LISTED` are a line's files, relative to the text's folder


LISTED = ("left", "right", "disparity", "confidence", "nonocc", "inpaint")

_KITTI_VAL = {
    2012: frozenset([*range(0, 195, 5), 193]),
    2015: frozenset(range(0, 200, 5)),
}
_KITTI_FRAMES = {2012: 194, 2015: 200}
_KITTI_FOLDERS = {
    2012: ("colored_0", "colored_1", "disp_occ", "disp_noc", "calib"),
    2015: ("image_2", "image_3", "disp_occ_0", "disp_noc_0", "calib_cam_to_cam"),
}


def _kitti(year: int, split: str) -> Source:
    """A split of KITTI: train, val, trainval or test."""
    left, right, disparity, nonocc, calib = _KITTI_FOLDERS[year]
    folder = f"KITTI/KITTI_{year}/" + ("testing" if split == "test" else "training")
    source = Source(
        f"{folder}/{left}/*_10.png",
        ((left, right),),
        calib=((rf"{left}/([^/]*)_10\.png$", rf"{calib}/\1.txt"),),
        calibration="kitti",
    )
    if split == "test":
        return source
    everything, val = frozenset(range(_KITTI_FRAMES[year])), _KITTI_VAL[year]
    frames = {"train": everything - val, "val": val, "trainval": everything}[split]
    return dataclasses.replace(
        source,
        disparity=((left, disparity),),
        frames=frozenset(f"{frame:06d}_10.png" for frame in frames),
        nonocc=((left, nonocc),),
    )


def _sceneflow(left: str) -> Source:
    disparity = (("frames_finalpass", "disparity"), (r"\.png$", ".pfm"))
    sides = (("/left/", "/right/"),)
    return Source(left, sides, disparity, right_disparity=disparity + sides)


def _beside(name: str) -> Swap:
    """The file of that name in the folder of the left image."""
    return ((r"/[^/]*$", f"/{name}"),)


def _middlebury(size: str) -> Source:
    return Source(
        f"Middlebury/MiddEval3/training{size}/*/im0.png",
        _beside("im1.png"),
        _beside("disp0GT.pfm"),
        nonocc=_beside("mask0nocc.png"),
        calib=_beside("calib.txt"),
    )


def _middlebury_test(size: str) -> Source:
    return Source(f"Middlebury/MiddEval3/test{size}/*/im0.png", _beside("im1.png"), calib=_beside("calib.txt"))


def _middlebury_old(year: int) -> Source:
    return Source(
        f"Middlebury/{year}/*/Illum[1-3]/Exp[0-2]/view1.png",
        (("view1", "view5"),),
        ((r"/Illum[^/]*/Exp[^/]*/view1\.png$", "/disp1.png"),),
    )


_KITTI_PAGE = "https://www.cvlibs.net/datasets/kitti/eval_stereo_flow.php?benchmark=stereo"
_ORIGINS = {
    "sceneflow": "https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html (finalpass, disparity)",
    "kitti_2012": f"{_KITTI_PAGE} (KITTI/KITTI_2012)",
    "kitti_2015": f"{_KITTI_PAGE.replace('stereo_flow.php', 'scene_flow.php')} (KITTI/KITTI_2015)",
    "eth3d": "https://www.eth3d.net/datasets#low-res-two-view (ETH3D/two_view_{training,training_gt,testing})",
    "middlebury": "https://vision.middlebury.edu/stereo/submit3/ (Middlebury/MiddEval3)",
    "middlebury_old": "https://vision.middlebury.edu/stereo/data/ (Middlebury/2005, 2006, 2014, 2021)",
    "sintel": "http://sintel.is.tue.mpg.de/stereo (SintelStereo)",
    "falling_things": "https://research.nvidia.com/publication/2018-06_Falling-Things (FallingThings)",
    "tartan_air": "https://theairlab.org/tartanair-dataset/ (TartanAir; left and right images, left depth)",
    "crestereo": "https://github.com/megvii-research/CREStereo, dataset_download.sh (CREStereo)",
    "vkitti2": "https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2/ (VKITTI2; rgb and depth)",
    "carla": "CARLA high resolution, released with HSMNet: https://github.com/gengshan-y/high-res-stereo (carla-highres)",
    "in_stereo2k": "https://github.com/YuhuaXu/StereoDataset (InStereo2K)",
    "booster": "https://cvlab-unibo.github.io/booster-web/ (booster; the balanced setup)",
    "mfs35k": "https://huggingface.co/datasets/Windsrain/MfS35K (MfS35K; pairs made from photographs by ZeroStereo)",
}

DATASETS: dict[str, Dataset] = {
    "sceneflow": Dataset(
        (
            _sceneflow("SceneFlow/FlyingThings3D/frames_finalpass/TRAIN/*/*/left/*.png"),
            _sceneflow("SceneFlow/Monkaa/frames_finalpass/*/left/*.png"),
            _sceneflow("SceneFlow/Driving/frames_finalpass/*/*/*/left/*.png"),
        ),
        "pfm", "dense", _ORIGINS["sceneflow"], 35454,
    ),
    "things": Dataset(
        (_sceneflow("FlyingThings3D/frames_finalpass/TEST/*/*/left/*.png"),), "pfm", "dense", _ORIGINS["sceneflow"], 4370
    ),
    "kitti_2012_train": Dataset((_kitti(2012, "train"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 154),
    "kitti_2012_val": Dataset((_kitti(2012, "val"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 40),
    "kitti_2012_trainval": Dataset((_kitti(2012, "trainval"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 194),
    "kitti_2012_test": Dataset((_kitti(2012, "test"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 195),
    "kitti_2015_train": Dataset((_kitti(2015, "train"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 160),
    "kitti_2015_val": Dataset((_kitti(2015, "val"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 40),
    "kitti_2015_trainval": Dataset((_kitti(2015, "trainval"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 200),
    "kitti_2015_test": Dataset((_kitti(2015, "test"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 200),
    "kitti_mix": Dataset(
        (_kitti(2012, "trainval"), _kitti(2015, "trainval")), "kitti", "sparse", _ORIGINS["kitti_2015"], 394
    ),
    "kitti_mix_2012_train": Dataset(
        (_kitti(2012, "train"), _kitti(2015, "trainval")), "kitti", "sparse", _ORIGINS["kitti_2015"], 354
    ),
    "kitti_mix_2015_train": Dataset(
        (_kitti(2012, "trainval"), _kitti(2015, "train")), "kitti", "sparse", _ORIGINS["kitti_2015"], 354
    ),
    "eth3d": Dataset(
        (
            Source(
                "ETH3D/two_view_training/*/im0.png",
                ((r"im0\.png$", "im1.png"),),
                (("two_view_training", "two_view_training_gt"), (r"im0\.png$", "disp0GT.pfm")),
                nonocc=(("two_view_training", "two_view_training_gt"), (r"im0\.png$", "mask0nocc.png")),
                calib=((r"im0\.png$", "calib.txt"),),
            ),
        ),
        "pfm", "sparse", _ORIGINS["eth3d"], 27,
    ),
    "eth3d_test": Dataset(
        (Source("ETH3D/two_view_testing/*/im0.png", ((r"im0\.png$", "im1.png"),)),), "pfm", "sparse", _ORIGINS["eth3d"], 20
    ),
    **{f"middlebury_{s}": Dataset((_middlebury(s),), "middlebury", "sparse", _ORIGINS["middlebury"], 15) for s in "FHQ"},
    **{
        f"middlebury_{s}_test": Dataset((_middlebury_test(s),), "middlebury", "sparse", _ORIGINS["middlebury"], 15)
        for s in "FHQ"
    },
    "middlebury_2005": Dataset((_middlebury_old(2005),), "middlebury", "sparse", _ORIGINS["middlebury_old"], 54),
    "middlebury_2006": Dataset((_middlebury_old(2006),), "middlebury", "sparse", _ORIGINS["middlebury_old"], 189),
    "middlebury_2014": Dataset(
        tuple(
            Source("Middlebury/2014/*/im0.png", _beside(right), _beside("disp0.pfm"), calib=_beside("calib.txt"))
            for right in ("im1E.png", "im1L.png", "im1.png")
        ),
        "middlebury", "sparse", _ORIGINS["middlebury_old"], 69,
    ),
    "middlebury_2021": Dataset(
        (
            Source(
                "Middlebury/2021/data/*/im0.png", _beside("im1.png"), _beside("disp0.pfm"), calib=_beside("calib.txt")
            ),
            Source(
                "Middlebury/2021/data/*/ambient/L0/im0e[0-3].png",
                ((r"/im0(?=e[^/]*$)", "/im1"),),
                ((r"/ambient/L0/im0[^/]*$", "/disp0.pfm"),),
                calib=((r"/ambient/L0/im0[^/]*$", "/calib.txt"),),
            ),
        ),
        "middlebury", "sparse", _ORIGINS["middlebury_old"],
    ),
    "sintel_stereo": Dataset(
        (
            Source(
                "SintelStereo/training/*_left/*/frame_*.png",
                (("_left/", "_right/"),),
                ((r"/[^/]*_left/", "/disparities/"),),
            ),
        ),
        "sintel", "sparse", _ORIGINS["sintel"], 2128,
    ),
    "falling_things": Dataset(
        tuple(
            Source(pattern, ((r"\.left\.jpg$", ".right.jpg"),), ((r"\.left\.jpg$", ".left.depth.png"),))
            for pattern in ("FallingThings/single/*/*/*.left.jpg", "FallingThings/mixed/*/*.left.jpg")
        ),
        "falling_things", "dense", _ORIGINS["falling_things"], 61500,
    ),
    "tartan_air": Dataset(
        (
            Source(
                "TartanAir/*/*/*/image_left/*_left.png",
                (("/image_left/", "/image_right/"), (r"_left\.png$", "_right.png")),
                (("/image_left/", "/depth_left/"), (r"_left\.png$", "_left_depth.npy")),
            ),
        ),
        "tartan_air", "dense", _ORIGINS["tartan_air"],
    ),
    "crestereo": Dataset(
        tuple(
            Source(f"CREStereo/{part}/*_left.jpg", ((r"_left\.jpg$", "_right.jpg"),), ((r"_left\.jpg$", "_left.disp.png"),))
            for part in ("shapenet", "reflective", "tree", "hole")
        ),
        "crestereo", "dense", _ORIGINS["crestereo"], 200000,
    ),
    "vkitti2": Dataset(
        tuple(
            Source(
                f"VKITTI2/Scene{scene}/*/frames/rgb/Camera_0/rgb_*.jpg",
                (("/Camera_0/", "/Camera_1/"),),
                (("/rgb/", "/depth/"), (r"/rgb_(?=[^/]*$)", "/depth_"), (r"\.jpg$", ".png")),
            )
            for scene in ("01", "02", "06", "18", "20")
        ),
        "vkitti2", "dense", _ORIGINS["vkitti2"], 21260,
    ),
    "carla_highres": Dataset(
        (Source("carla-highres/trainingF/*/im0.png", _beside("im1.png"), _beside("disp0GT.pfm")),),
        "pfm", "dense", _ORIGINS["carla"],
    ),
    "in_stereo2k": Dataset(
        tuple(
            Source(f"InStereo2K/{folder}/*/left.png", _beside("right.png"), _beside("left_disp.png"))
            for folder in ("part[1-5]", "train", "test")
        ),
        "in_stereo2k", "sparse", _ORIGINS["in_stereo2k"], 2060,
    ),
    "booster": Dataset(
        (
            Source(
                "booster/train/balanced/*/camera_00/im*.png",
                (("/camera_00/", "/camera_02/"),),
                ((r"/camera_00/[^/]*$", "/disp_00.npy"),),
                cross="product",
            ),
        ),
        "booster", "sparse", _ORIGINS["booster"],
    ),
    "booster_test": Dataset(
        (Source("booster/test/balanced/*/camera_00/im*.png", (("/camera_00/", "/camera_02/"),), cross="zip"),),
        "booster", "sparse", _ORIGINS["booster"],
    ),
    "mfs35k": Dataset((), "npy", "dense", _ORIGINS["mfs35k"], listing="MfS35K/*.txt"),
}  # fmt: skip

# What a config may say; also "custom:FILE.csv" and "kitti_raw_SPLIT:DRIVE,DRIVE".
NAMES = (*DATASETS, *kitti_raw.SETS, "synthetic", "custom")
