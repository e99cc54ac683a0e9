"""Weights of StereoDiff's networks: containers, hostile ones, and there and back to the bit (spec `video.md` 1.3 and 4.4)."""

import argparse
import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from synth import synth_value

from bridgedepth_jax.convert import pth, video
from bridgedepth_jax.convert.conversion import convert_file, write_original
from bridgedepth_jax.convert.diffusion import file_shape, name_of
from bridgedepth_jax.convert.engine import original_shape, restore_state
from bridgedepth_jax.convert.pickled import Class
from bridgedepth_jax.convert.rules.dust3r import LICENCE, RULES, config_of, model_string, parse_model
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.video.config import VideoAutoencoderConfig, VideoScheduleConfig, VideoUNetConfig
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, load_checkpoint, save_checkpoint
from bridgedepth_jax.store.safetensors import SafeTensors, write_safetensors
from bridgedepth_jax.systems.stereodiff.config import VideoDiffusionConfig

GOLDEN = Path(__file__).parent / "reference" / "video"
TINY = PairConfig(
    img_size=(64, 48),
    enc_embed_dim=32,
    enc_depth=1,
    enc_num_heads=2,
    dec_embed_dim=16,
    dec_depth=4,
    dec_num_heads=1,
    feature_dim=8,
    last_dim=4,
    layer_dims=(4, 6, 8, 10),
)
LINEAR = dataclasses.replace(TINY, head_type="linear", feature_dim=256, last_dim=128, layer_dims=(96, 192, 384, 768))

FINE = dataclasses.replace(LINEAR, patch=8)


def state_of(config: PairConfig) -> dict[str, np.ndarray]:
    """Name-seeded tensors of the original, second names too."""
    expected = expected_shapes("dust3r", config)
    zeros = {path: np.broadcast_to(np.float32(0), shape) for path, shape in expected.items()}
    state = {name: synth_value(name, value.shape) for name, value in restore_state(RULES, zeros).items()}
    for name in list(state):
        if second := RULES.alias(name):
            state[second] = state[name]
    return state


def write(path: Path, config: PairConfig, **changes: np.ndarray | None) -> Path:
    """A .pth as the originals' training saves it."""
    state = {name: value for name, value in {**state_of(config), **changes}.items() if value is not None}
    pth.write_pth(path, RULES.content(config, state))
    return path


@pytest.mark.parametrize("config", [TINY, LINEAR, FINE], ids=["dpt", "linear", "patch 8"])
@pytest.mark.parametrize("ending", ["weights.pth", "model.safetensors"])
def test_a_file_there_and_back_is_equal_to_the_bit(config, ending, tmp_path):
    first = convert_file("dust3r", write(tmp_path / "a.pth", config))
    assert first.config == config
    assert first.provenance["licence"] == LICENCE
    save_checkpoint(tmp_path / "checkpoint", first)
    out = tmp_path / "back" / ending
    write_original(out, load_checkpoint(tmp_path / "checkpoint"))
    again = convert_file("dust3r", out)
    assert again.config == config
    read = (
        (lambda p: dict(SafeTensors(p)))
        if ending.endswith("safetensors")
        else (lambda p: pth.read_pth(p, RULES.classes)["model"])
    )
    state, expected = read(out), state_of(config)
    if ending.endswith("pth"):
        assert list(state) == sorted(state, key=RULES.order_key)
        assert set(state) == set(expected)
    for name, value in state.items():
        np.testing.assert_array_equal(value, expected[name])
    again_state = read(write_again(tmp_path, again, ending))
    assert list(again_state) == list(state)


def write_again(folder: Path, checkpoint: Checkpoint, ending: str) -> Path:
    out = folder / "again" / ending
    write_original(out, checkpoint)
    return out


def test_a_folder_of_the_hub_is_read(tmp_path):
    """model.safetensors without second names, and a config.json with bare Infinity; no heads' widths in it."""
    write_original(tmp_path / "hub" / "model.safetensors", Checkpoint("dust3r", _params(TINY), TINY, {}))
    assert "Infinity" in (tmp_path / "hub" / "config.json").read_text()
    found = convert_file("dust3r", tmp_path / "hub")
    assert found.config == TINY
    (tmp_path / "hub" / "config.json").unlink()
    wide = dataclasses.replace(TINY, img_size=(512, 512), enc_num_heads=1)
    assert convert_file("dust3r", tmp_path / "hub").config == wide  # what tensors alone say


def _params(config: PairConfig) -> dict:
    from bridgedepth_jax.convert.engine import convert_state
    from bridgedepth_jax.store.checkpoint import unflatten

    return unflatten(convert_state(RULES, state_of(config), expected_shapes("dust3r", config), source="test"))


def test_a_file_with_one_decoder_has_its_copy_as_the_second(tmp_path):
    """CroCo's; also MASt3R's descriptors are left aside."""
    state = {name: value for name, value in state_of(TINY).items() if not name.startswith("dec_blocks2.")}
    state["downstream_head1.head_local_features.fc1.weight"] = np.zeros((2, 2), np.float32)
    pth.write_pth(tmp_path / "croco.pth", RULES.content(TINY, state))
    params = convert_file("dust3r", tmp_path / "croco.pth").params
    first, second = (params[f"{name}_2"]["mlp"]["fc1"]["kernel"] for name in ("dec_blocks", "dec_blocks2"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enc_norm.weight": None}, "1 missing: enc_norm.weight"),
        ({"extra.weight": np.zeros(3, np.float32)}, "1 not part of this network: extra.weight"),
        ({"enc_norm.weight": np.zeros(3, np.float32)}, "enc_norm.weight has shape"),
        (
            {"downstream_head1.dpt.scratch.layer_rn.0.weight": np.zeros((8, 4, 3, 3), np.float32)},
            "differs from the tensor's other name",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        convert_file("dust3r", write(tmp_path / "a.pth", TINY, **changes))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('touch HERE')", "is a call|calls|expected a call"),
        ("AsymmetricCroCo3DStereo(img_size=__import__('os').getpid())", "has a call as img_size"),
        ("AsymmetricCroCo3DStereo(img_size=os.path)", "has an attribute as img_size"),
        ("AsymmetricCroCo3DStereo(**{'a': 1})", r"has \*\*"),
        ("AsymmetricCroCo3DStereo(512)", "without a keyword"),
        ("AsymmetricCroCo3DStereo(img_size=(1, [open]))", "has a Name as img_size"),
        ("AsymmetricCroCo3DStereo(img_size=[x for x in (1, 2)])", "as img_size"),
        ("AsymmetricCroCo3DStereo(img_size=2 ** 99)", "as img_size"),
        ("AsymmetricCroCo3DStereo(img_size=lambda: 0)", "has a lambda as img_size"),
        ("AsymmetricCroCo3DStereo(pos_embed='RoPE100')(1)", "is a call|expected a call"),
        ("eval('1')", "calls 'eval'"),
        ("torch.nn.Linear(1, 2)", "expected a call"),
        ("AsymmetricCroCo3DStereo(", "is no expression"),
        ("(" * 3000, "is no expression"),
        ("A" * 5000, "at most 4000 characters"),
        (None, "is NoneType"),
        ("AsymmetricCroCo3DStereo(pos_embed='cosine')", "pos_embed 'cosine', expected 'RoPE100'"),
        ("AsymmetricCroCo3DStereo(secret=1)", "secret 1, which is not known"),
        ("AsymmetricCroCo3DStereo(enc_depth=-1)", "enc_depth -1, expected a positive number"),
        ("AsymmetricCroCo3DStereo(patch_size=0)", "patch_size 0, expected a positive number"),
        ("AsymmetricCroCo3DStereo(patch_size=8)", "patch 8, expected 16 with head_type 'dpt'"),
        ("AsymmetricCroCo3DStereo(enc_depth=True)", "enc_depth True, expected a positive number"),
        ("AsymmetricCroCo3DStereo(img_size='512')", "img_size '512', expected two numbers"),
    ],
)
def test_hostile_model_strings_are_refused_and_nothing_runs(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        config_of({"args": {"model": text}}, {"dec_blocks2.0": 0}, None)
    assert not list(tmp_path.iterdir())


def test_a_model_string_is_read_as_it_was_written():
    said = parse_model(model_string(TINY))
    assert said["enc_embed_dim"] == 32
    assert said["img_size"] == (64, 48)
    assert said["depth_mode"] == ("exp", -float("inf"), float("inf"))


def test_a_file_with_another_global_is_refused(tmp_path):
    other = pth.Instance({}, of=Class("os", "system"), state={})
    pth.write_pth(tmp_path / "a.pth", {"args": other, "model": state_of(TINY)})
    with pytest.raises(InputError, match=r"refused, os.system is not allowed"):
        convert_file("dust3r", tmp_path / "a.pth")


def test_what_is_written_is_what_argparse_reads(tmp_path):
    """The Namespace in a file of ours is one to Python itself; its tensors stay where they are."""
    import pickle

    path = write(tmp_path / "a.pth", TINY)
    with zipfile.ZipFile(path) as archive:
        data = archive.read("a/data.pkl")

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) == ("argparse", "Namespace"):
                return argparse.Namespace
            return lambda *_: None

        def persistent_load(self, pid):
            return None

    import io

    args = Reader(io.BytesIO(data)).load()["args"]
    assert isinstance(args, argparse.Namespace)
    assert parse_model(args.model)["head_type"] == "dpt"


def test_a_training_container_is_read_past_what_is_not_the_network():
    content = pth.read_pth(GOLDEN / "sample_dust3r_training.pth", RULES.classes)
    assert {"args", "model", "epoch"} <= set(content)


def parts(config: VideoDiffusionConfig) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for name in video.NETWORKS:
        shapes = video.expected_of(getattr(config, name))
        found[name] = {name_of(p): synth_value(name_of(p), file_shape(p, s)) for p, s in shapes.items()}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A diffusers folder of a tiny model: the U-Net in float16, the rest in float32."""
    config, out = VideoDiffusionConfig.tiny(), tmp_path_factory.mktemp("svd")
    # Files of these classes always have 32 groups.
    config = dataclasses.replace(
        config,
        unet=dataclasses.replace(config.unet, block_out_channels=(32, 64, 64), norm_num_groups=32),
        vae=dataclasses.replace(config.vae, block_out_channels=(32, 32), norm_num_groups=32),
    )
    for name, state in parts(config).items():
        kind = np.dtype(np.float16 if name == "unet" else np.float32)
        state: dict[str, np.ndarray] = {key: state[key].astype(kind) for key in sorted(state)}
        part = getattr(config, name)
        (out / name).mkdir()
        (out / name / "config.json").write_text(json.dumps(part.to_diffusers()) + "\n")
        if name == "image_encoder":
            state["vision_model.embeddings.position_ids"] = np.arange(65)
        shapes = {key: (value.dtype, value.shape) for key, value in state.items()}
        write_safetensors(out / name / f"{video.STEMS[name]}.safetensors", shapes, state.values(), {"format": "pt"})
    (out / "scheduler").mkdir()
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(config.schedule.to_diffusers()))
    return out


def test_a_diffusers_folder_there_and_back_is_equal_to_the_bit(folder, tmp_path):
    checkpoint = video.convert_folder(folder)
    save_checkpoint(tmp_path / "checkpoint", checkpoint)
    video.write_folder(tmp_path / "back", load_checkpoint(tmp_path / "checkpoint", dtype=None))
    for name in video.NETWORKS:
        one, two = (SafeTensors(place / name / f"{video.STEMS[name]}.safetensors") for place in (folder, tmp_path / "back"))
        assert set(one) - video.UNUSED == set(two)
        for key in two:
            assert one[key].dtype == two[key].dtype
            np.testing.assert_array_equal(one[key], two[key])
        assert (folder / name / "config.json").read_text() == (tmp_path / "back" / name / "config.json").read_text()
    assert (folder / video.SCHEDULE).read_text() == (tmp_path / "back" / video.SCHEDULE).read_text()


@pytest.mark.parametrize(
    ("cls", "change", "words"),
    [
        (VideoUNetConfig, {"down_block_types": ["DownBlock2D"] * 4}, "expected .CrossAttn.DownBlockSpatioTemporal"),
        (VideoUNetConfig, {"transformer_layers_per_block": 2}, "transformer_layers_per_block 2 is not implemented"),
        (VideoUNetConfig, {"_class_name": "UNet2DConditionModel"}, "expected 'UNetSpatioTemporalConditionModel'"),
        (VideoUNetConfig, {"guess": 1}, "unknown key 'guess'"),
        (VideoUNetConfig, {"projection_class_embeddings_input_dim": 700}, "expected a multiple of"),
        (VideoAutoencoderConfig, {"down_block_types": ["Other"] * 4}, "expected 4 times DownEncoderBlock2D"),
        (VideoScheduleConfig, {"prediction_type": "epsilon"}, "prediction_type 'epsilon', expected 'v_prediction'"),
        (VideoScheduleConfig, {"timestep_type": "discrete"}, "timestep_type 'discrete', expected 'continuous'"),
        (VideoScheduleConfig, {"use_beta_sigmas": True}, "use_beta_sigmas True is not implemented"),
        (VideoScheduleConfig, {"sigma_max": 0.001}, "expected 0 < min < max"),
    ],
)
def test_values_that_are_not_implemented_are_refused_by_name(cls, change, words):
    said = cls().to_diffusers()
    assert cls.from_diffusers(said, "config.json") == cls()
    with pytest.raises(InputError, match=f"config.json: .*{words}"):
        cls.from_diffusers({**said, **change}, "config.json")


def test_shapes_of_the_original_are_those_of_the_layouts():
    """`original_shape` inverts every layout of the pair network."""
    expected = expected_shapes("dust3r", TINY)
    manifest = state_of(TINY)
    for path, shape in expected.items():
        layout = RULES.layout(RULES.name(path))
        assert layout is not None
        assert original_shape(shape, layout) == manifest[RULES.name(path)].shape
