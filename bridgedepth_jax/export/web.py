"""A page that computes in the browser: `web/`, a model as ONNX for each size, and onnxruntime-web, all in one folder.

No server computes and no request leaves the page: its content security policy allows its own folder alone. onnxruntime-web
comes from the npm registry, once, into the cache; what is taken of it is pinned by hash.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export.pairs import OnnxOptions, check_size, export_onnx, stereo
from bridgedepth_jax.files import cache_folder, replacing
from bridgedepth_jax.store.checkpoint import Checkpoint

PAGE = Path(__file__).parent / "web"
VERSION = "1.30.0"  # of onnxruntime-web
# Files of its folder `dist`, with their SHA-256: the engine for WebAssembly alone, and the one that knows WebGPU too.
RUNTIME = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}


def fetch_runtime() -> Path:
    """The package onnxruntime-web in the cache, fetched by npm if it is not there yet. InputError: no npm, no network."""
    file = cache_folder() / f"onnxruntime-web-{VERSION}.tgz"
    if file.is_file():
        return file
    advice = f"get it elsewhere with `npm pack onnxruntime-web@{VERSION}` and give --runtime FILE"
    print(f"fetching onnxruntime-web {VERSION} from the npm registry, once, to {file}", file=sys.stderr)
    with replacing(file) as temporary:
        try:
            command = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}", "--pack-destination", str(temporary.parent)]
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=temporary.parent)
        except FileNotFoundError:
            raise InputError(f"onnxruntime-web cannot be fetched, there is no npm: {advice}") from None
        except subprocess.CalledProcessError as error:
            raise InputError(f"onnxruntime-web cannot be fetched ({error.stderr.strip()[-200:]}): {advice}") from None
        if not temporary.is_file():
            raise InputError(f"npm wrote no {file.name}: {advice}")
    return file


def runtime_files(source: Path) -> dict[str, bytes]:
    """The files of onnxruntime-web that the page needs, by name.

    Args:
      source: the package as npm packs it (.tgz), or the folder of an installed one.

    Raises InputError: not there, incomplete, or not the version that this page was tested with.
    """
    found = {}
    try:
        if source.is_dir():
            for name in RUNTIME:
                found[name] = (source / "dist" / name).read_bytes()
        else:
            with tarfile.open(source) as archive:
                for name in RUNTIME:
                    member = archive.extractfile(f"package/dist/{name}")
                    found[name] = member.read() if member else b""
    except (OSError, KeyError, tarfile.TarError) as error:
        raise InputError(f"--runtime {source}: expected onnxruntime-web {VERSION}, packed or as a folder ({error})") from None
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != RUNTIME[name]:
            raise InputError(f"--runtime {source}: {name} is not that of onnxruntime-web {VERSION}, expected that version")
    return found


def export_web(
    checkpoint: Checkpoint,
    folder: os.PathLike | str,
    out: Path,
    name: str,
    pair: tuple[np.ndarray, np.ndarray],
    sizes: tuple[tuple[int, int], ...],
    runtime: Path | None,
    say: Callable[[str], None] = print,
) -> None:
    """Writes the page to the folder OUT, which must not be there.

    Args:
      folder, pair: as for `export_onnx`, which compares each model with JAX first.
      sizes: (H, W) of the models; images of other sizes are resized to the one chosen on the page.
      runtime: of `runtime_files`; None fetches it.

    Raises InputError: as `export_onnx` and `runtime_files`, or OUT exists.
    """
    if out.exists():
        raise InputError(f"{out} exists, expected a new folder")
    system = stereo(checkpoint)
    for shape in sizes:
        check_size(system, *shape)
    engine = runtime_files(runtime or fetch_runtime())
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_TURBO)[0, :, ::-1]
    licence = checkpoint.provenance.get("licence", "unknown")
    page = {
        "models": [],
        "minimum": system.minimum,
        "colors": colors.ravel().tolist(),
        "about": f"Model {name}, licence {licence}. Runs on onnxruntime-web {VERSION} (MIT, Microsoft Corporation).",
    }
    with replacing(out) as temporary:
        shutil.copytree(PAGE, temporary)
        for height, width in sizes:
            options = OnnxOptions(((height, width),), input="uint8")
            (made,) = export_onnx(checkpoint, folder, temporary, name, pair, options, say)
            entry = {"file": made.path.name, "height": height, "width": width, "bytes": made.path.stat().st_size}
            page["models"].append(entry)
        (temporary / "page.json").write_text(json.dumps(page))
        (temporary / "runtime").mkdir()
        for file, content in engine.items():
            (temporary / "runtime" / file).write_bytes(content)
