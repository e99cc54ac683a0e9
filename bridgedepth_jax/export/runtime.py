"""onnxruntime, which is an extra."""

from pathlib import Path

from bridgedepth_jax.errors import InputError

try:
    import onnxruntime
except ImportError:
    raise InputError("onnxruntime is not installed: pip install 'bridgedepth-jax[onnx]'") from None


def session(file: Path) -> onnxruntime.InferenceSession:
    """A file's program on the CPU. Errors alone are logged."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
