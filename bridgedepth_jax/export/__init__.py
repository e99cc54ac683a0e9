"""Networks for other programs: ONNX files and serialised JAX functions (spec `export.md`)."""
