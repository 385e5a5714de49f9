"""How LLM Guard is probed: `scan_output` on the whole answer, since it knows no streams.

A stream is read to its end, scanned and then released: with this package nothing else keeps an
unjudged answer from its reader. The rule is a scanner of one's own; the classifier is run by the
package's own `Toxicity` scanner, which takes any text classifier in ONNX, with its pipeline's
default settings (padding to 512 tokens) and without padding. Its default models are fetched from
a hub when they are first used, so they are not measured.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import onnxruntime
import structlog
from llm_guard import scan_output
from llm_guard.model import Model
from llm_guard.output_scanners import Toxicity

from peers_probes.probing import PROMPT, RULE, Given, Way, run, sdk_reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peers_probes.probing import Reader

SETTINGS = {
    "padding": "max_length",
    "top_k": None,
    "function_to_apply": "sigmoid",
    "return_token_type_ids": False,
    "max_length": 512,
    "truncation": True,
}
"""The pipeline's settings in the scanner's own description of its default model."""


class BlockedError(Exception):
    """An answer that did not pass."""


class Marker:
    """The rule as a scanner."""

    def scan(self, prompt: str, output: str) -> tuple[str, bool, float]:
        """Judge an answer."""
        del prompt
        found = RULE(output)
        return output, not found, float(found)


def scanned(plain: Reader, *scanners: Any) -> Reader:
    """Return a reader of answers that were read to the end and scanned."""

    def read(name: str, *, stream: bool) -> Iterator[str]:
        answer, valid, _ = scan_output(list(scanners), PROMPT, "".join(plain(name, stream=stream)))
        if not all(valid.values()):
            raise BlockedError
        yield answer

    return read


def laid_out(given: Given) -> Path:
    """Return the classifier's files as the package's loaders look for them."""
    place = given.place / "llm-guard-model"
    place.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(given.model / name, place / name)
    graph = next((given.model / "onnx").glob("*.onnx"))
    shutil.copyfile(graph, place / "model.onnx")
    for data in graph.parent.glob("*.data"):
        # The graph names the file beside it.
        shutil.copyfile(data, place / data.name)
    kept = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    text = json.dumps(kept | {"model_max_length": 512})
    (place / "tokenizer_config.json").write_text(text, "utf-8")
    return place


def classifying(place: Path, **changes: Any) -> Any:
    """Return the package's scanner with the classifier."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as everywhere else
    model = Model(
        path=str(place),
        onnx_path=str(place),
        kwargs={"session_options": options},
        pipeline_kwargs=SETTINGS | changes,
    )
    return Toxicity(model=model, use_onnx=True)


def ways(given: Given) -> list[Way]:
    """Return the default and the one without padding."""
    from openai import OpenAI  # noqa: PLC0415  # not one of this environment's packages

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    place = laid_out(given)
    plain = sdk_reader(OpenAI(base_url=given.url, api_key="x"))
    return [
        Way(name, scanned(plain, Marker()), plain, scanned(plain, classifying(place, **changes)))
        for name, changes in (
            ("whole answer, `scan_output`", {}),
            ("the same, padding off", {"padding": False}),
        )
    ]


if __name__ == "__main__":
    run(ways)
