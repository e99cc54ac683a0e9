"""Every published model by its name: licence, size, data, scores as published, and whether it is in the cache.

bridgedepth models
bridgedepth models rvc_pretrain
bridgedepth models --commercial

A name is taken wherever a checkpoint is: bridgedepth infer --checkpoint rvc_pretrain. `nano` comes with the package; the
others are fetched from the hub when first asked for and converted into the cache ($BRIDGEDEPTH_CACHE, by default
~/.cache/bridgedepth_jax).
"""

import argparse
from typing import Any, NamedTuple

from bridgedepth_jax.errors import unknown

_SCENEFLOW = "Scene Flow"
_LARGE = f"{_SCENEFLOW}, then "


class Card(NamedTuple):
    """What is not in the weights."""

    parameters: int
    data: str
    memory: str = ""  # of a forward pass, as `bridgedepth benchmark` measured it
    scores: str = ""  # as published by others, not measured here


# Parameters are counted by a test. Data: the originals' configs. Scores: the paper's and those of papers that quote it.
_PHOTOS = "synthetic images, and photographs labelled by a larger network"
_VITL = "2.8 GB at 288x512"
LICENCES = {"stable_diffusion_2_inpainting": "CreativeML Open RAIL++-M", "zerostereo_stereogen": "unknown"}  # not of the rules
CARDS = {
    "nano": Card(1_837_244, "generated pairs alone", "0.4 GB at 480x640", "see its card: bridgedepth_jax/weights/nano"),
    "sf": Card(
        346_387_771,
        _SCENEFLOW,
        "",
        "EPE 0.37 px; zero-shot: KITTI 2015 D1 4.5 %, Middlebury Q bad-2 4.3 %, ETH3D bad-1 1.3 %",
    ),
    "l_sf": Card(359_823_803, _SCENEFLOW, _VITL, "EPE 0.32 px (probably this one)"),
    "kitti": Card(359_823_803, f"{_LARGE}KITTI 2012 and 2015", _VITL, "test: KITTI 2015 D1 1.40 %, 2012 Out-3 all 1.03 %"),
    "eth3d_pretrain": Card(359_823_803, f"{_LARGE}Sintel, TartanAir, CREStereo, InStereo2K, ETH3D", _VITL),
    "eth3d": Card(359_823_803, "eth3d_pretrain, then CREStereo, InStereo2K, ETH3D", _VITL, "ETH3D test bad-1 all 0.50 %"),
    "middlebury_pretrain": Card(
        359_823_803, f"{_LARGE}FallingThings, TartanAir, CARLA, CREStereo, InStereo2K, Middlebury 2014, 2021, H", _VITL
    ),
    "middlebury": Card(359_823_803, "middlebury_pretrain, then the same with Middlebury F at 512x768", _VITL),
    "rvc_pretrain": Card(359_823_803, f"{_LARGE}FallingThings, CREStereo, TartanAir, CARLA, Sintel, Virtual KITTI 2", _VITL),
    "rvc": Card(
        359_823_803,
        "rvc_pretrain, then CREStereo, TartanAir, CARLA, Virtual KITTI 2, KITTI, Middlebury, ETH3D, others",
        _VITL,
    ),
    "depth_anything_v2_vits": Card(24_785_089, _PHOTOS),
    **{
        f"depth_anything_v2_metric_{data}_{vit}": Card(count, f"depth_anything_v2_{vit}, then {words}")
        for data, words in (("hypersim", "Hypersim (metres, indoors)"), ("vkitti", "Virtual KITTI 2 (metres, outdoors)"))
        for vit, count in (("vits", 24_785_089), ("vitb", 97_470_785), ("vitl", 335_315_649))
    },
    "bridge_mde": Card(1_258_132_225, "images generated for exact depth maps, and labels of a larger network"),
    "stable_diffusion_2_inpainting": Card(949_581_035, "photographs of the web"),
    "zerostereo_stereogen": Card(949_581_035, "stable_diffusion_2_inpainting, then rendered stereo pairs"),
    **{
        name: Card(count, "pairs of views of scenes")
        for name, count in (
            ("dust3r_512", 571_171_208),
            ("dust3r_512_linear", 532_342_784),
            ("mast3r", 571_171_208),
            ("monst3r", 571_171_208),
        )
    },
    "depth_anything_v2_vitb": Card(97_470_785, _PHOTOS),
    "depth_anything_v2_vitl": Card(335_315_649, _PHOTOS),
    "depth_anything_v2_vitg": Card(1_258_132_225, _PHOTOS),
}

TASKS = {
    "depth-anything": "depth",
    "bridge_mde": "depth",
    "zerostereo": "data synthesize",
    "dust3r": "video",
}  # what takes them


class Listed(NamedTuple):
    """A model as it is listed."""

    name: str
    system: str
    licence: str
    commercial: str  # yes, no, or ask
    card: Card
    where: str  # package, cache, or the repository of the hub


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one model, in full; default: all of them, a line each")
    parser.add_argument("--commercial", action="store_true", help="only those whose licence allows commercial use")


def run(args: argparse.Namespace) -> None:
    rows = models()
    if args.name is not None:
        if args.name not in rows:
            raise unknown("model", args.name, rows)
        print("\n".join(f"{key:12}{value}" for key, value in describe(rows[args.name]).items()))
        return
    shown = [row for row in rows.values() if not args.commercial or row.commercial == "yes"]
    cells = [["name", "system", "licence", "commercial", "parameters", "memory", "here", "data", "quoted scores"]]
    for row in shown:
        size = f"{row.card.parameters / 1e6:.1f} M"
        cells.append(
            [row.name, row.system, row.licence, row.commercial, size, memory(row), here(row), row.card.data, row.card.scores]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def models() -> dict[str, Listed]:
    """All published models by name, `nano` first."""
    from bridgedepth_jax.convert.published import SHIPPED, converted, named_config, published
    from bridgedepth_jax.system import find_system, load

    rows = {name: Listed(name, "bridgedepth", "MIT", "yes", CARDS[name], "package") for name in SHIPPED}
    for name, file in published().items():
        system: Any = find_system(file.kind)
        config = named_config(file) or system.variants.get(name, system.config)()
        licence = LICENCES.get(name) or load(system.rules).licence(config)
        where = "cache" if converted(name).exists() else file.repository
        rows[name] = Listed(name, file.kind, licence, commercial(licence), CARDS.get(name, Card(0, "")), where)
    return rows


def commercial(licence: str) -> str:
    """Does it allow commercial use: yes, no, or ask where that cannot be told by its name."""
    if "NC" in licence.replace("-", " ").split():
        return "no"
    return "yes" if any(known in licence for known in ("MIT", "Apache", "BSD")) else "ask"


def here(row: Listed) -> str:
    return "yes" if row.where in ("package", "cache") else "no"


def memory(row: Listed) -> str:
    """Of a forward pass as measured, or at least of the weights."""
    return row.card.memory or f"{4e-9 * row.card.parameters:.1f} GB of weights"


def describe(row: Listed) -> dict[str, str]:
    size = f"{row.card.parameters:,} parameters, {4 * row.card.parameters / 2**20:,.0f} MiB in float32"
    place = {"package": "comes with the package", "cache": "in the cache"}.get(row.where, f"not here, from {row.where}")
    found = {
        "name": row.name, "system": row.system, "licence": row.licence, "commercial": row.commercial, "size": size,
        "memory": memory(row), "data": row.card.data, "quoted": row.card.scores, "where": place,
    }  # fmt: skip
    task = TASKS.get(row.system, "infer")
    option = "--inpaint" if row.system == "zerostereo" else "--checkpoint"
    found["use"] = f"bridgedepth {task} {option} {row.name} ..."
    return {key: value for key, value in found.items() if value}
