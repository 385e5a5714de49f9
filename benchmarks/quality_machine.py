"""The parts of the quality benchmark about the machine: speed and memory. They read no rows.

This module does not know what the model's scores mean.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime

from guard.detectors.classifier import session
from guard.detectors.model_directory import ONNX_FILES
from latency import medians
from quality_sets import AGAINST_FLOAT, AGAINST_STOCK, FLOOR_SHARE, MEMORY, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

LINEAR: Final = 21.2e6
"""Operations per token in the linear layers of the encoder."""

ATTENTION: Final = 9216
"""Operations per token and token in attention, which stays in floating point."""

LENGTHS: Final = (32, 128, 256, 512)
REFERENCE: Final = 128

SHAPES: Final = ((128, 384, 1536), (256, 384, 1536), (512, 1536, 384), (512, 1024, 1024))
"""Of the products whose fastest is taken for the processor's peak: rows, inner, columns."""

SENTENCE: Final = (
    "The museum by the river opens at ten and shows old maps and clocks on two floors. "
)
LONG_TEXT: Final = SENTENCE * 112
"""About 2,000 tokens."""

_PROBE: Final = """
import json, sys
def resident():
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
what, model, name, text = sys.argv[1:]
if what == "guard":
    from guard import Guard
    judge = Guard.load(name, model=model, journal=None).check
else:
    from guard.detectors.base import Passage
    from guard.detectors.classifier import Classifier
    from guard.text.units import CLOSING, CONTEXT, units
    classifier = Classifier(model)
    def judge(text):
        for start, end in units(text):
            begin, closing = max(0, start - CONTEXT), text[-CLOSING:] if end == len(text) else ""
            classifier(Passage(text[begin:end], start - begin, closing=closing))
loaded = resident()
judge(text)
print(json.dumps({"loaded": loaded, "after": resident()}))
"""


def speed(model: Path, exact: Path | None, rounds: int) -> dict[str, Any]:
    """Measure the model's time per window against the processor's floor and other graphs.

    Args:
        model: the model's directory.
        exact: the 32-bit graph, if it is at hand.
        rounds: counted rounds; the graphs take turns within each.
    """
    peaks = {"float": peak(np.float32), "int8": peak(np.int8)}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {"int8": session(_graph(model))}
        if exact is not None:
            sessions["float"] = _plain(exact)
            sessions["stock"] = _plain(_stock(exact, Path(folder) / "stock.onnx"))
        entries = [_timed(sessions, tokens, rounds, peaks) for tokens in LENGTHS]
    at = next(entry for entry in entries if entry["tokens"] == REFERENCE)
    checks = [
        FLOOR_SHARE.check(f"share of the floor at {REFERENCE} tokens", "share", at["floor_share"])
    ]
    if exact is not None:
        ratios = (("float", AGAINST_FLOAT, "ONNX Runtime fp32"), ("stock", AGAINST_STOCK, "stock"))
        for name, target, title in ratios:
            ratio = at["milliseconds"][name] / at["milliseconds"]["int8"]
            what = f"times as fast as {title} at {REFERENCE} tokens"
            checks.append(target.check(what.replace("stock", "stock int8"), "ratio", ratio))
    return {
        "entries": entries,
        "peaks": {name: value / 1e9 for name, value in peaks.items()},
        "machine": f"{platform.machine()}, onnxruntime {onnxruntime.__version__}",
        "rounds": rounds,
        "checks": checks,
    }


def floor(tokens: int, peaks: Mapping[str, float]) -> float:
    """Return the least seconds that a window can take at the processor's peaks (operations/s)."""
    return tokens * LINEAR / peaks["int8"] + tokens * tokens * ATTENTION / peaks["float"]


def peak(kind: type[np.float32 | np.int8], seconds: float = 0.4) -> float:
    """Return the operations per second of the fastest product of two matrices, on one thread."""
    return max(_product_rate(kind, shape, seconds) for shape in SHAPES)


def _product_rate(
    kind: type[np.float32 | np.int8], shape: tuple[int, int, int], seconds: float
) -> float:
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415  # other parts need it not

    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    whole = kind is np.int8
    weights = rng.integers(-64, 64, (inner, columns)).astype(kind)
    given = rng.integers(0, 128, (rows, inner)).astype(np.uint8 if whole else np.float32)
    node = helper.make_node("MatMulInteger" if whole else "MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph(
        [node],
        "product",
        [
            helper.make_tensor_value_info(
                "a", TensorProto.UINT8 if whole else TensorProto.FLOAT, [rows, inner]
            )
        ],
        [
            helper.make_tensor_value_info(
                "c", TensorProto.INT32 if whole else TensorProto.FLOAT, [rows, columns]
            )
        ],
        [numpy_helper.from_array(weights, "b")],
    )
    content = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    session = onnxruntime.InferenceSession(content, _one_thread())
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        session.run(None, {"a": given})
        best = min(best, time.perf_counter() - began)
    return 2 * rows * inner * columns / best


def _timed(
    sessions: Mapping[str, Any], tokens: int, rounds: int, peaks: Mapping[str, float]
) -> dict[str, Any]:
    ids = np.random.default_rng(tokens).integers(1000, 20_000, tokens)
    calls = {name: _call(session, ids) for name, session in sessions.items()}
    times = medians(calls, rounds)
    least = 1000 * floor(tokens, peaks)
    return {
        "tokens": tokens,
        "milliseconds": times,
        "floor": least,
        "floor_share": least / times["int8"],
    }


def _call(session: Any, ids: NDArray[np.int64]) -> Callable[[], object]:
    given = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        "position_ids": np.arange(len(ids)),
    }
    feed = {item.name: given[item.name][None] for item in session.get_inputs()}
    return lambda: session.run(["logits"], feed)


def memory(model: Path, name: str) -> dict[str, Any]:
    """Measure resident memory in fresh processes, and the model's size on disk."""
    entries = [_resident(what, model, name) for what in ("classifier", "guard")]
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) / 1e6
    checks = [
        MEMORY.check(f"{e['what']}: MB resident after 2,000 tokens", "megabytes", e["after"])
        for e in entries
    ]
    checks.append(SIZE.check("MB of the model's files", "megabytes", size))
    return {"entries": entries, "megabytes": size, "checks": checks}


def _resident(what: str, model: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _PROBE, what, str(model), name, LONG_TEXT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"what": what} | found


def _graph(model: Path) -> Path:
    return next(model / name for name in ONNX_FILES if (model / name).is_file())


def _plain(graph: Path) -> Any:
    return onnxruntime.InferenceSession(str(graph), _one_thread())


def _one_thread() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _stock(exact: Path, target: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415  # it loads onnx

    quantize_dynamic(exact, target)
    return target
