"""diffusers folders: there and back to the bit in every precision, old spellings, and what is refused."""

import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from synth import synth_value

from bridgedepth_jax.convert import published
from bridgedepth_jax.convert.__main__ import main as convert
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint
from bridgedepth_jax.store.safetensors import SafeTensors, write_safetensors
from bridgedepth_jax.systems.zerostereo.config import InpaintingTask
from bridgedepth_jax.systems.zerostereo.system import check

MANIFEST = Path(__file__).parent / "reference" / "diffusion" / "manifest"
SCHEDULE = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False,
}  # fmt: skip
FOLDERS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def state_of(name, dtype=np.float32):
    manifest = json.loads((MANIFEST / f"tiny_{name}.json").read_text())
    return {entry: synth_value(entry, tuple(shape)).astype(dtype) for entry, shape in manifest["entries"]}


def write(path, state, metadata=None):
    write_safetensors(path, {n: (v.dtype, v.shape) for n, v in state.items()}, state.values(), metadata or {"format": "pt"})


def build(folder, dtype=np.float32, *, suffix="", change=None):
    """A whole folder as the library writes one, from the tiny manifests."""
    for name, stem in FOLDERS.items():
        (folder / name).mkdir(parents=True)
        config = json.loads((MANIFEST / f"tiny_{name}.json").read_text())["config"]
        config = {"_class_name": {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}.get(name), **config}
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = state_of(name, dtype)
        write(folder / name / f"{stem}{suffix}.safetensors", change(name, state) if change else state)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULE))
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionInpaintPipeline"}')
    return folder


def fails(capfd, *arguments):
    with pytest.raises(SystemExit) as status:
        convert(list(map(str, arguments)))
    assert status.value.code == 2
    return capfd.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_there_and_back_to_the_bit(tmp_path, dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    source = build(tmp_path / "source", kind, suffix=".fp16" if dtype == "float16" else "")
    convert(["diffusers", str(source), str(tmp_path / "checkpoint")])
    convert(["to-diffusers", str(tmp_path / "checkpoint"), str(tmp_path / "back")])
    for name in ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    for name in ("unet", "vae"):
        found = SafeTensors(tmp_path / "back" / name / "diffusion_pytorch_model.safetensors")
        expected = state_of(name, kind)
        assert found.keys() == expected.keys() and found.metadata == {"format": "pt"}
        for key, value in expected.items():
            assert found[key].dtype == kind and found[key].shape == value.shape
            assert found[key].tobytes() == value.tobytes()


def test_what_a_checkpoint_holds(tmp_path):
    convert(["diffusers", str(build(tmp_path / "source")), str(tmp_path / "checkpoint")])
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint.kind == "zerostereo" and checkpoint.config.schedule.sampler == "pndm"
    assert checkpoint.config.unet.block_out_channels == (16, 32, 48, 48)
    prompt = checkpoint.params["empty_prompt"]
    with np.load(MANIFEST.parent / "clip_text_empty.npz") as golden:
        np.testing.assert_allclose(prompt, golden["embedding"], atol=2e-6)
    with pytest.raises(InputError, match="context_dim = 32"):  # the golden text model is wider than the golden U-Net's context
        check(checkpoint.config, InpaintingTask())
    unet = UNet2DConditionModel(checkpoint.config.unet)
    output = jax.eval_shape(
        lambda p: unet.apply({"params": p}, np.zeros((1, 8, 8, 9), np.float32), 0, prompt[None, :, :24]),
        checkpoint.params["unet"],
    )
    assert output.shape == (1, 8, 8, 4)


def test_old_attention_names_and_kernels(tmp_path):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def change(name, state):
        if name != "vae":
            return state
        renamed = {}
        for key, value in state.items():
            for new, before in old.items():
                if f"attentions.0.{new}." in key:
                    key = key.replace(new, before)
                    value = value[:, :, None, None] if before == "query" and value.ndim == 2 else value
            renamed[key] = value
        assert set(renamed) != set(state)
        return renamed

    convert(["diffusers", str(build(tmp_path / "old", change=change)), str(tmp_path / "a")])
    convert(["diffusers", str(build(tmp_path / "new")), str(tmp_path / "b")])
    a, b = (flatten(load_checkpoint(tmp_path / name).params) for name in "ab")
    assert all(np.array_equal(a[key], b[key]) for key in b) and a.keys() == b.keys()


@pytest.mark.parametrize("name", ["zerostereo_stereogen", "stable_diffusion_2_inpainting"])
def test_published_folders_are_fetched_and_pinned(tmp_path, monkeypatch, capfd, name):
    """A folder of a repository, or all of one, by name: each file of one commit; other files later are refused."""
    import huggingface_hub as hub

    row = published.published()[name]
    part = Path("." if row.file == "." else row.file)
    build(tmp_path / "repository" / part)
    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path / "cache"))
    asked = []

    def download(repository, file, *, revision, cache_dir, local_files_only=False):
        target = Path(cache_dir) / "snapshots" / revision / file
        if local_files_only and not target.exists():
            raise hub.errors.LocalEntryNotFoundError("not there")
        asked.append((repository, revision, file))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "repository" / file).read_bytes())
        return str(target)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub.HfApi, "model_info", lambda self, repository, revision: type("Info", (), {"sha": "abc"}))
    convert(["diffusers", name, str(tmp_path / "a")])
    assert {(repository, revision) for repository, revision, _ in asked} == {(row.repository, "abc")}
    assert [file for *_, file in asked] == [(part / file).as_posix() for file in row.files]
    convert(["diffusers", str(tmp_path / "repository" / part), str(tmp_path / "b")])
    first, second = (load_checkpoint(tmp_path / folder) for folder in "ab")
    assert first.provenance["sha256"] == second.provenance["sha256"] and first.provenance["name"] == name
    assert ("MIT" in first.provenance["licence"]) == (name == "zerostereo_stereogen")
    assert all(map(np.array_equal, *(flatten(c.params).values() for c in (first, second))))
    assert load_checkpoint(published.resolve(name)).provenance == first.provenance
    config = tmp_path / "repository" / part / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.8.0", "0.9.0"))
    for file in (tmp_path / "cache").rglob("scheduler_config.json"):
        file.write_bytes(config.read_bytes())
    assert "as fetched before" in fails(capfd, "diffusers", name, tmp_path / "c")


def test_what_is_refused(tmp_path, capfd):
    def change(name, state):
        if name == "unet":
            state["extra.weight"] = state.pop("conv_in.bias")
            state["conv_out.bias"] = np.zeros(5, np.float32)
        return state

    text = fails(capfd, "diffusers", build(tmp_path / "lists", change=change), tmp_path / "out")
    assert "1 missing: conv_in.bias; 1 not part of this network: extra.weight; 1 wrong: conv_out.bias has shape (5,)" in text
    assert not (tmp_path / "out").exists()

    folder = build(tmp_path / "cut")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "truncated" in fails(capfd, "diffusers", folder, tmp_path / "out")
    weights.write_bytes(b"\xff" * 100)
    assert "expected a whole safetensors file" in fails(capfd, "diffusers", folder, tmp_path / "out")
    weights.write_bytes((20).to_bytes(8, "little") + b'{"a": {"dtype": "F3"}')
    assert "header is damaged" in fails(capfd, "diffusers", folder, tmp_path / "out")
    weights.unlink()
    assert "no diffusion_pytorch_model.safetensors" in fails(capfd, "diffusers", folder, tmp_path / "out")

    folder = build(tmp_path / "config")
    path = folder / "unet" / "config.json"
    good = path.read_text()
    for key, value in (("class_embed_type", "timestep"), ("brand_new", 1), ("only_cross_attention", True), ("in_channels", 4)):
        path.write_text(json.dumps(json.loads(good) | {key: value}))
        found = fails(capfd, "diffusers", folder, tmp_path / "out")
        assert "unet/config.json" in found and ("channels 4 in" if key == "in_channels" else key) in found
    path.write_text("{")
    assert "not JSON" in fails(capfd, "diffusers", folder, tmp_path / "out")
    path.write_text(good)
    text = folder / "text_encoder" / "config.json"
    text.write_text(json.dumps(json.loads(text.read_text()) | {"hidden_act": "quick_gelu"}))
    assert "hidden_act 'quick_gelu', expected 'gelu'" in fails(capfd, "diffusers", folder, tmp_path / "out")
    assert "cannot be read" in fails(capfd, "diffusers", tmp_path / "nowhere", tmp_path / "out")
