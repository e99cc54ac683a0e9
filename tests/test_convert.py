"""Conversion both ways: the original's names, shapes and order for every variant, and whole files of a small network."""

import gzip
import json
import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bridgedepth_jax.convert import published
from bridgedepth_jax.convert.__main__ import main
from bridgedepth_jax.convert.conversion import convert_file, sha256_of, write_original
from bridgedepth_jax.convert.engine import (
    CONV,
    CONV_TRANSPOSED,
    NORM,
    SAME,
    Layout,
    Rules,
    convert_state,
    original_shape,
    restore_state,
    table,
)
from bridgedepth_jax.convert.pth import read_pth, write_pth
from bridgedepth_jax.convert.rules import depth_anything
from bridgedepth_jax.convert.rules.bridgedepth import CONFIG, RULES, as_original, buffers, read_imagenet_backbone
from bridgedepth_jax.convert.rules.bridgedepth_config import from_original, to_original
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks import config as config_module
from bridgedepth_jax.networks.config import BackboneConfig, DepthConfig, MonoConfig
from bridgedepth_jax.store import hub as store_hub
from bridgedepth_jax.store.checkpoint import expected_shapes, flatten, load_checkpoint
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig, NMPConfig

REFERENCE = Path(__file__).parent / "reference/convert"
MANIFESTS = json.loads(gzip.decompress((REFERENCE / "manifests.json.gz").read_bytes()))
BUFFERS = dict(np.load(REFERENCE / "buffers.npz", allow_pickle=False))
LARGE = ("mono_vitl", "mono_vitg", "convnext_vitl", "resnet_vitl", "resnet_vitb")
TINY_VIT = dict(dim=16, depth=4, heads=2, taps=(0, 1, 2, 3), features=8, out_channels=(4, 8, 8, 8))
LAYERS = {"prop_layers": 1, "infer_layers": 2, "refine_layers": 1}


def tiny(encoder: str) -> ModelConfig:
    """Needs the fixture `tiny_vits`."""
    return ModelConfig(MonoConfig.named("vits"), BackboneConfig(encoder, out_channels=32), nmp=NMPConfig(**LAYERS))


@pytest.fixture
def tiny_vits(monkeypatch):
    monkeypatch.setitem(config_module.VITS, "vits", TINY_VIT)


def synth(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def original_state(config: ModelConfig | MonoConfig, seed: int = 0) -> dict[str, np.ndarray]:
    if isinstance(config, MonoConfig):
        return restore_state(depth_anything.RULES, synth(expected_shapes("depth-anything", config), seed))
    leaves = synth(expected_shapes("bridgedepth", config), seed)
    return restore_state(RULES, leaves, buffers(config, leaves))


def original_file(path: Path, config: ModelConfig, seed: int = 0, **more) -> dict[str, np.ndarray]:
    state = original_state(config, seed)
    write_pth(path, {"model": state, "model_config": as_original(to_original(config)), **more})
    return state


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in sorted(MANIFESTS)]
)
def test_names_shapes_order_and_buffers_are_the_originals(variant):
    manifest = MANIFESTS[variant]
    if variant.startswith("mono_"):
        rules, constants = depth_anything.RULES, {}
        expected = expected_shapes("depth-anything", MonoConfig.named(variant[5:]))
    else:
        rules, config = RULES, from_original(manifest["model_config"])
        expected = expected_shapes("bridgedepth", config)
        constants = buffers(config, expected)
    assert sum(int(np.prod(shape)) for shape in expected.values()) == manifest["num_params"]
    shapes = {}
    for path, shape in expected.items():
        name = rules.name(path)
        layout = rules.layout(name)
        assert layout is not None and rules.path(name) == path
        shapes[name] = original_shape(shape, layout)
    shapes |= {name: value.shape for name, value in constants.items()}
    assert sorted(shapes, key=rules.order_key) == [name for name, _, _ in manifest["entries"]]
    for name, shape, buffer in manifest["entries"]:
        assert shapes[name] == tuple(shape), name
        assert (buffer is not None) == (name in constants)
        if buffer:
            np.testing.assert_array_equal(constants[name], BUFFERS[buffer], strict=True)


@pytest.mark.parametrize(
    ("name", "path", "axes"),
    [
        ("mono.pretrained.blocks.0.attn.qkv.weight", "mono/pretrained/blocks_0/attn/qkv/kernel", (1, 0)),
        (
            "stereo_encoder.backbone.features.1.0.block.0.weight",
            "stereo_encoder/backbone/features_1_0/block_0/kernel",
            (2, 3, 1, 0),
        ),
        ("stereo_encoder.backbone.features.1.0.block.2.weight", "stereo_encoder/backbone/features_1_0/block_2/scale", (0,)),
        ("align_0.layers.3.readout.norm_y.weight", "align_0/layers_3/readout/norm_y/scale", (0,)),
        ("mono.depth_head.resize_layers.1.weight", "mono/depth_head/resize_layers_1/kernel", (2, 3, 0, 1)),
        ("mono.depth_head.resize_layers.3.weight", "mono/depth_head/resize_layers_3/kernel", (2, 3, 1, 0)),
        ("stereo_encoder.dpn.mlp.2.weight", "stereo_encoder/dpn/mlp_2/kernel", (2, 1, 0)),
        ("pretrained.patch_embed.proj.weight", "pretrained/patch_embed/proj/kernel", (2, 3, 1, 0)),
        ("pretrained.cls_token", "pretrained/cls_token", None),
    ],
)
def test_rules(name, path, axes):
    layout = RULES.layout(name)
    assert layout is not None and layout.axes == axes
    assert RULES.path(name) == path and RULES.name(path) == name


def test_layouts_by_hand():
    """Against loops over the definition of each layer, not against the permutations of the table."""
    rng = np.random.default_rng(0)
    state = {
        "gw.0.weight": rng.standard_normal((5, 4, 3, 2), np.float32),
        "head.layers.0.weight": rng.standard_normal((5, 4), np.float32),
        "dpn.mlp.0.weight": rng.standard_normal((5, 4, 3), np.float32),
        "resize_layers.0.weight": rng.standard_normal((4, 5, 3, 2), np.float32),
        "features.1.0.layer_scale": rng.standard_normal((5, 1, 1), np.float32),
    }
    w = dict(state)
    expected = {
        "gw_0/kernel": (3, 2, 4, 5),
        "head/layers_0/kernel": (4, 5),
        "dpn/mlp_0/kernel": (3, 4, 5),
        "resize_layers_0/kernel": (3, 2, 4, 5),
        "features_1_0/layer_scale": (5,),
    }
    leaves = convert_state(RULES, state, expected, source="x")
    assert not state
    for i in range(4):
        for o in range(5):
            assert leaves["head/layers_0/kernel"][i, o] == w["head.layers.0.weight"][o, i]
            assert leaves["features_1_0/layer_scale"][o] == w["features.1.0.layer_scale"][o, 0, 0]
            for k in range(3):
                assert leaves["dpn/mlp_0/kernel"][k, i, o] == w["dpn.mlp.0.weight"][o, i, k]
                for j in range(2):
                    assert leaves["gw_0/kernel"][k, j, i, o] == w["gw.0.weight"][o, i, k, j]
                    assert leaves["resize_layers_0/kernel"][k, j, i, o] == w["resize_layers.0.weight"][i, o, k, j]
    assert_same(restore_state(RULES, leaves), {name: w[name] for name in sorted(w, key=RULES.order_key)})


# A network with everything that neither table above has: BatchNorm, a tensor under two names, weights that the file may hold.
TOY = Rules(
    layouts=table(
        ("bias", SAME),
        (r"(bn@|downsample\.1)\.weight", NORM),
        (r"conv@\.weight", CONV),
        (r"up\.weight", CONV_TRANSPOSED),
        (r"head\.weight", Layout("kernel", (1, 0), ones=2)),
    ),
    config_of=lambda content, state, config: config,
    licence=lambda config: "MIT",
    content=lambda config, state: state,
    order="block conv1 bn1 downsample weight bias running_mean running_var num_batches_tracked up head",
    aliases=((re.compile(r"^block\.0\.bn1\."), "block.0.downsample.1."),),
    ignored=re.compile(r"^size$"),
)
TOY_SHAPES = {
    "block_0/conv1/kernel": (3, 3, 1, 4),  # in groups: each output sees one channel
    "block_0/bn1/scale": (4,),
    "block_0/bn1/bias": (4,),
    "batch_stats/block_0/bn1/mean": (4,),
    "batch_stats/block_0/bn1/var": (4,),
    "up/kernel": (2, 2, 4, 5),
    "head/kernel": (5, 2),
}
TOY_NAMES = [
    "block.0.conv1.weight",
    *(f"block.0.{name}.{leaf}" for name in ("bn1", "downsample.1")
      for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    "up.weight",
    "head.weight",
]  # fmt: skip


def toy_state() -> dict[str, np.ndarray]:
    return restore_state(TOY, synth(TOY_SHAPES))


def test_statistics_second_names_and_counters():
    state = toy_state()
    assert list(state) == TOY_NAMES
    assert state["block.0.conv1.weight"].shape == (4, 1, 3, 3) and state["up.weight"].shape == (4, 5, 2, 2)
    assert state["head.weight"].shape == (2, 5, 1, 1)
    np.testing.assert_array_equal(state["block.0.bn1.num_batches_tracked"], np.zeros((), np.int64), strict=True)
    given = dict(state) | {"size": np.zeros(2, np.int64), "block.0.bn1.num_batches_tracked": np.array(7)}
    leaves = convert_state(TOY, given, TOY_SHAPES, source="x")
    assert {path: value.shape for path, value in leaves.items()} == TOY_SHAPES
    np.testing.assert_array_equal(leaves["batch_stats/block_0/bn1/var"], state["block.0.bn1.running_var"])
    assert_same(restore_state(TOY, leaves), state)
    for dropped in ("block.0.bn1", "block.0.downsample.1"):  # one name is enough
        some = {name: value for name, value in state.items() if not name.startswith(f"{dropped}.")}
        assert_same(restore_state(TOY, convert_state(TOY, some, TOY_SHAPES, source="x")), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block.0.downsample.1.running_var": np.zeros(4, np.float32)}, "1 wrong: .*running_var differs from .* other name"),
        ({"block.0.bn1.bias": np.full(4, np.nan, np.float32)}, "1 wrong: .*bias differs from the tensor's other name"),
        ({"block.0.bn2.running_mean": np.zeros(4, np.float32)}, r"1 not part of this network: block\.0\.bn2\.running_mean$"),
        ({"block.0.bn2.num_batches_tracked": np.array(0)}, r"1 not part of this network: block\.0\.bn2\.num_batches_tracked$"),
        ({"head.weight": np.zeros((2, 5), np.float32)}, r"has shape \(2, 5\), expected \(2, 5, 1, 1\)$"),
    ],
)
def test_statistics_and_second_names_are_accounted_for(change, message):
    with pytest.raises(InputError, match=message):
        convert_state(TOY, toy_state() | change, TOY_SHAPES, source="x")


def test_a_missing_statistic_is_named_as_in_the_original():
    state = {name: value for name, value in toy_state().items() if not name.endswith("running_mean")}
    with pytest.raises(InputError, match=r"1 missing: block\.0\.bn1\.running_mean$"):
        convert_state(TOY, state, TOY_SHAPES, source="x")


@pytest.mark.parametrize("encoder", ["resnet", "convnext", "swin"])
def test_file_to_folder_to_file_is_bit_equal(tmp_path, tiny_vits, capsys, encoder):
    state = original_file(tmp_path / "a.pth", tiny(encoder), step=7, optimizer={"state": {0: {"step": np.float32([3])}}})
    main(["bridgedepth", str(tmp_path / "a.pth"), str(tmp_path / "ckpt")])
    digest = sha256_of(tmp_path / "a.pth")
    assert digest in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "ckpt")
    assert checkpoint.config == tiny(encoder)
    assert checkpoint.provenance["sha256"] == digest and checkpoint.provenance["licence"] == "Apache-2.0"
    main(["to-torch", str(tmp_path / "ckpt"), str(tmp_path / "b.pth")])
    written = read_pth(tmp_path / "b.pth", [CONFIG])
    assert list(written) == ["model", "model_config"] and written["model_config"] == to_original(tiny(encoder))
    assert_same(written["model"], state)


def test_bare_state_dict_narrow_dtypes_and_storage(tmp_path, tiny_vits):
    config = tiny("resnet")
    state = original_state(config)
    narrow = {
        name: value.astype(ml_dtypes.bfloat16 if value.dtype.kind == "f" else value.dtype) for name, value in state.items()
    }
    narrow |= {name: state[name] for name in ("mean", "std")}
    write_pth(tmp_path / "a.pth", narrow)
    with pytest.raises(InputError, match="holds no model config, say with --variant"):
        convert_file("bridgedepth", tmp_path / "a.pth")
    checkpoint = convert_file("bridgedepth", tmp_path / "a.pth", config=config)
    leaves = flatten(checkpoint.params)
    back = restore_state(RULES, leaves, buffers(config, leaves))
    assert_same(back, {name: value.astype(state[name].dtype) for name, value in narrow.items()})


def test_depth_anything(tmp_path, tiny_vits):
    config = DepthConfig.named("vits")
    state = original_state(config)
    write_pth(tmp_path / "a.pth", state)
    main(["depth-anything", str(tmp_path / "a.pth"), str(tmp_path / "ckpt"), "--dtype", "bfloat16"])
    checkpoint = load_checkpoint(tmp_path / "ckpt")
    assert (checkpoint.kind, checkpoint.config) == ("depth-anything", config)
    write_original(tmp_path / "b.pth", checkpoint)
    assert_same(read_pth(tmp_path / "b.pth"), {n: v.astype(ml_dtypes.bfloat16).astype(np.float32) for n, v in state.items()})


def drop(state):
    del state["align_0.norm.weight"], state["align_0.norm.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"2 missing: align_0\.norm\.bias, align_0\.norm\.weight$"),
        (
            lambda s: s.update({"head.extra.weight": np.zeros((2, 2), np.float32)}),
            r"1 not part of this network: head\.extra\.weight$",
        ),
        (lambda s: s.update({"more": np.zeros(2, np.float32)}), "1 not part of this network: more$"),
        (
            lambda s: s.update({f"more{i:02}": np.zeros(2, np.float32) for i in range(25)}),
            "25 not part of this network: (more[0-9]{2}, ){19}more19 and 5 more$",
        ),
        (lambda s: (drop(s), s.update(more=np.zeros(2, np.float32))), "2 missing: .*; 1 not part of this network: more$"),
        (
            lambda s: s.update({"infer_score_head.bias": np.zeros(3, np.float32)}),
            r"1 wrong: .*has shape \(3,\), expected \(64,\)$",
        ),
        (lambda s: s.update({"infer_score_head.bias": np.zeros(64, np.int64)}), "has dtype int64, expected floating point$"),
        (lambda s: s.update(mean=s["mean"] + 1), "1 wrong: mean .a constant of the network. differs"),
        (
            lambda s: s["align_0.layers.0.update.attn.relative_position_index"].__setitem__((0, 0), 5),
            "relative_position_index .a constant of the network. differs",
        ),
        (lambda s: s.update(mean="grey"), "mean is str, expected a tensor"),
    ],
)
def test_every_tensor_is_accounted_for(tmp_path, tiny_vits, change, message):
    config = tiny("resnet")
    state = original_state(config)
    change(state)
    write_pth(tmp_path / "a.pth", {"model": state, "model_config": as_original(to_original(config))})
    with pytest.raises(InputError, match=message):
        convert_file("bridgedepth", tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("node", "key", "value", "message"),
    [
        ("BACKBONE", "MODEL_TYPE", "vgg", "model.backbone.model_type = 'vgg', expected one of 'resnet'"),
        ("BACKBONE", "MODEL_TYPE", ["resnet"], "its model config is not one of this network"),
        ("BACKBONE", "NORM_FN", "batch", "norm_fn 'batch' is not supported"),
        ("BACKBONE", "OUT_CHANNELS", "many", "its model config is not one of this network"),
        ("BACKBONE", "OUT_CHANNELS", -8, "no network can be made of its model config"),
        ("NMP", "INFER_N_HEADS", 0, "model config"),
        ("NMP", "SPLIT_SIZE", 2, "SPLIT_SIZE = 2 is not supported"),
        ("NMP", "COLOUR", 2, "unknown key NMP.COLOUR"),
        ("BRIDGEDEPTH", "ENCODER_VIT", "vitx", "unknown ViT 'vitx'"),
    ],
)
def test_model_configs_of_no_network(tmp_path, tiny_vits, node, key, value, message):
    tree = to_original(tiny("resnet"))
    tree[node][key] = value
    write_pth(tmp_path / "a.pth", {"model": {}, "model_config": tree})
    with pytest.raises(InputError, match=f"a.pth: .*{message}"):
        convert_file("bridgedepth", tmp_path / "a.pth")


@pytest.mark.parametrize("content", [[], {"model": 3}, {3: {}}, "text", {"model": {}, "model_config": 5}])
def test_files_without_weights(tmp_path, content):
    write_pth(tmp_path / "a.pth", content)
    for kind in ("bridgedepth", "depth-anything"):
        with pytest.raises(InputError, match=r"a\.pth"):
            convert_file(kind, tmp_path / "a.pth")


@pytest.mark.parametrize("encoder", ["convnext", "swin"])
def test_imagenet_backbone(tmp_path, tiny_vits, encoder):
    prefix = "stereo_encoder.backbone."
    state = {
        name.removeprefix(prefix): value for name, value in original_state(tiny(encoder)).items() if name.startswith(prefix)
    }
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    later = ("features.6.1.weight", "features.7.0.block.0.weight", "classifier.2.weight", "norm.weight", "head.bias")
    write_pth(tmp_path / "a.pth", features | {name: np.zeros((3,), np.float32) for name in later})
    subtree = read_imagenet_backbone(tmp_path / "a.pth", tiny(encoder))
    restored = restore_state(RULES, flatten(subtree))
    assert_same(restored, {name: value for name, value in features.items() if not name.endswith("position_index")})
    write_pth(tmp_path / "b.pth", features | {"fc.weight": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match=r"1 not part of this network: fc\.weight"):
        read_imagenet_backbone(tmp_path / "b.pth", tiny(encoder))
    with pytest.raises(InputError, match="this config has resnet"):
        read_imagenet_backbone(tmp_path / "a.pth", tiny("resnet"))


def test_command_errors(tmp_path, tiny_vits, capsys):
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("error: ")
        return error

    source, out = str(tmp_path / "a.pth"), str(tmp_path / "ckpt")
    original_file(tmp_path / "a.pth", tiny("resnet"))
    assert "cannot be read" in refused("bridgedepth", str(tmp_path / "nothing.pth"), out)
    assert "bridgedepth.config.config.CfgNode is not allowed" in refused("depth-anything", source, out)
    write_pth(tmp_path / "b.pth", original_state(tiny("resnet")))
    assert "expected pretrained.cls_token" in refused("depth-anything", str(tmp_path / "b.pth"), out)
    (tmp_path / "b.pth").unlink()
    assert "--variant is not expected" in refused("bridgedepth", source, out, "--variant", "resnet_vits")
    assert "is none" in refused("bridgedepth", source, out, "--revision", "main")
    assert "is of kind depth-anything" in refused("bridgedepth", "depth_anything_v2_vits", out)
    assert "neither a checkpoint folder nor a published name" in refused("to-torch", out, str(tmp_path / "b.pth"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth"]
    for arguments in (["bridgedepth", source, f"{source}/x"], ["bridgedepth", source, "/proc/x/y"]):
        assert "cannot be written" in refused(*arguments)
    (tmp_path / "ckpt").mkdir()
    assert "exists, expected a new name, or --overwrite" in refused("bridgedepth", source, out)
    assert "is a file and would not be replaced" in refused("bridgedepth", source, source, "--overwrite")
    main(["bridgedepth", source, out, "--overwrite"])
    assert load_checkpoint(out).config == tiny("resnet")


def test_forks_cannot_go_back(tmp_path, tiny_vits):
    """A width that the original's config cannot say would load as another network."""
    config = ModelConfig(MonoConfig.named("vits"), BackboneConfig(out_channels=32), nmp=NMPConfig(**LAYERS, concat_dim=32))
    write_pth(tmp_path / "a.pth", original_state(config))
    checkpoint = convert_file("bridgedepth", tmp_path / "a.pth", config=config)
    with pytest.raises(InputError, match=r"cannot express these values: nmp\.concat_dim"):
        write_original(tmp_path / "b.pth", checkpoint)


class Hub:
    """Stands in for the network: files by (repository, file), commits counted."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.calls, self.commit = folder, [], "c1"
        monkeypatch.setattr(store_hub, "download", self.download)
        monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(folder / "cache"))

    def download(self, row, revision):
        self.calls.append(revision)
        return self.folder / row.file, self.commit


def fetch(name: str, **options) -> store_hub.Fetched:
    return store_hub.fetch(name, published.published()[name], **options)


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny_vits) -> Hub:
    original_file(tmp_path / "bridge_rvc.pth", tiny("resnet"))
    return Hub(tmp_path, monkeypatch)


def test_published_name_is_fetched_and_converted_once(hub, tmp_path):
    folder = published.resolve("rvc")
    checkpoint = load_checkpoint(folder)
    assert checkpoint.config == tiny("resnet")
    assert checkpoint.provenance["repository"] == "aeolusguan/BridgeDepth"
    assert (checkpoint.provenance["revision"], checkpoint.provenance["name"]) == ("c1", "rvc")
    assert published.resolve("rvc") == folder and hub.calls == ["main"]
    assert published.resolve(folder) == folder


def test_published_name_is_pinned(hub, tmp_path, capsys):
    fetch("rvc")
    hub.commit = "c2"
    fetch("rvc")
    assert hub.calls == ["main", "c1"]
    original_file(tmp_path / "bridge_rvc.pth", tiny("resnet"), seed=1)
    with pytest.raises(InputError, match=r"rvc: bridge_rvc\.pth has SHA-256 \w+, expected \w+ as fetched before"):
        fetch("rvc", revision="main")
    main(["bridgedepth", "rvc", str(tmp_path / "ckpt"), "--revision", "main", "--accept-new"])
    assert load_checkpoint(tmp_path / "ckpt").provenance["sha256"] == sha256_of(tmp_path / "bridge_rvc.pth")
    fetch("rvc")
    (tmp_path / "cache/published.json").write_text("{")
    with pytest.raises(InputError, match=r"published\.json: damaged"):
        fetch("rvc")


def test_unknown_names_and_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path))
    assert {"rvc": "bridgedepth", "depth_anything_v2_vitg": "depth-anything"}.items() <= {
        name: row.kind for name, row in published.published().items()
    }.items()
    with pytest.raises(
        InputError, match=r"rvx: neither a checkpoint folder nor a published name, did you mean rvc\? Known: nano, sf, l_sf"
    ):
        published.resolve("rvx")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: (_ for _ in ()).throw(ConnectionError("no route")))
    with pytest.raises(
        InputError, match=r"bridge_sf\.pth: cannot be fetched .*no route.*download bridge_sf\.pth from https://"
    ):
        published.resolve("sf")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'bridgedepth-jax\[hub\]'"):
        published.resolve("sf")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_hub_calls(tmp_path, monkeypatch):
    """A branch is resolved to its commit; a commit in the cache needs no network."""
    import huggingface_hub as hub

    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path))
    calls = []

    def fake(repository, file, *, revision, cache_dir, local_files_only=False):
        calls.append((revision, local_files_only))
        path = Path(cache_dir) / "snapshots" / revision / file
        if local_files_only and not path.exists():
            raise hub.errors.LocalEntryNotFoundError("not there")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REFERENCE / "buffers.npz", path)
        return str(path)

    monkeypatch.setattr(hub, "hf_hub_download", fake)
    monkeypatch.setattr(hub.HfApi, "model_info", lambda self, repository, revision: type("Info", (), {"sha": "abc"}))
    path, origin = fetch("kitti")
    assert calls == [("main", True), ("abc", False)] and origin["revision"] == "abc" and path.exists()
    fetch("kitti")
    assert calls[2:] == [("abc", True)]
