"""Ways through ONNX: ONNX Runtime and OpenVINO, each in its best settings found.

Measured on 2 x 128, one core of an AMD EPYC: ONNX Runtime runs unfused graphs faster, OpenVINO
fused int8 ones and batches of 64; activations as unsigned bytes are 1.6 times as fast as signed
ones; int8 with bf16 between is slower than with fp32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scoring_ways.onnx_graphs import INPUTS, Graphs, export_graphs
from scoring_ways.table import BF16, FP32, INT8, Absent, FloatArray, Way
from scoring_ways.torch_ways import in_order, sorted_batches
from scoring_ways.workload import Workload

ORT_BATCH, OPENVINO_BATCH = 32, 64
INSTALL = "not installed: pip install -e '.[bench]'"

Scorer = Callable[[Mapping[str, Any]], Any]
"""Inputs of a batch by name -> its (B, 1) logits."""


def missing_packages() -> list[str]:
    """Return which of the optional packages are not installed."""
    names = ("onnx", "onnxruntime", "openvino")
    return [name for name in names if importlib.util.find_spec(name) is None]


def onnx_ways(workload: Workload, scratch: Path) -> list[Way | Absent]:
    """Return the ways of both runtimes; absent ones where a package is missing.

    Args:
        workload: What is scored.
        scratch: An existing directory for the graphs, to be kept while the ways are used.
    """
    missing = missing_packages()
    needed = {
        "ONNX Runtime": {"onnx", "onnxruntime"},
        "OpenVINO": {"onnx", "onnxruntime", "openvino"},
    }
    graphs = None if needed["ONNX Runtime"] & set(missing) else export_graphs(workload, scratch)
    ways: list[Way | Absent] = []
    for name, precision, load in _loaders():
        runtime = name.split(",")[0]
        lacking = needed[runtime] & set(missing)
        if graphs is None or lacking:
            reason = f"{', '.join(sorted(lacking))} {INSTALL}"
            ways.append(Absent(name=name, precision=precision, reason=reason))
            continue
        batch = ORT_BATCH if runtime == "ONNX Runtime" else OPENVINO_BATCH
        ways.append(_way(name, precision, load(graphs), batch))
    return ways


def _loaders() -> list[tuple[str, str, Callable[[Graphs], Scorer]]]:
    """Return name, precision and how to load, of every way."""
    return [
        ("ONNX Runtime, as exported", FP32, lambda graphs: _ort(graphs.whole)),
        ("ONNX Runtime, last layer pruned", FP32, lambda graphs: _ort(graphs.pruned)),
        ("ONNX Runtime, pruned, dynamic", INT8, lambda graphs: _ort(graphs.dynamic_int8)),
        ("ONNX Runtime, pruned, static QDQ", INT8, lambda graphs: _ort(graphs.static_int8)),
        ("OpenVINO, pruned", FP32, lambda graphs: _openvino(graphs.pruned, "f32")),
        ("OpenVINO, pruned", BF16, lambda graphs: _openvino(graphs.pruned, "bf16")),
        (
            "OpenVINO, pruned, static QDQ of ONNX Runtime",
            INT8,
            lambda graphs: _openvino(graphs.fused_static_int8, "f32"),
        ),
    ]


def _way(name: str, precision: str, score: Scorer, batch: int) -> Way:
    """Return a way that scores batches sorted by length."""

    def run(prepared: tuple[Any, list[Any]]) -> FloatArray:
        order, batches = prepared
        return in_order(order, [score(inputs) for inputs in batches])

    def prepare(tokens: Any) -> tuple[Any, list[Any]]:
        order, batches = sorted_batches(tokens, batch)
        return order, [dict(zip(INPUTS, arrays, strict=True)) for arrays in batches]

    return Way(name=f"{name}, sorted, batch {batch}", precision=precision, prepare=prepare, run=run)


def _ort(file: Path) -> Scorer:
    """Load a graph into ONNX Runtime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))[0]


def _openvino(file: Path, precision: str) -> Scorer:
    """Load a graph into OpenVINO, one thread."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(str(file), "CPU", settings).create_infer_request()
    return lambda inputs: request.infer(dict(inputs))[0].copy()
