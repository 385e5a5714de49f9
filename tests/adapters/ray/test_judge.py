"""Ray's `Judge`: columns in, verdicts out, in each format of a batch, with and without Ray."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.adapters.ray import COLUMNS, Judge
from guard.errors import ConfigurationError, InputError
from guard.exchange import Exchange
from tests.adapters.missing_extra import error_without, loaded_with
from tests.scan.logs import FINE, LEAK

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard

pytestmark = [
    # Ray leaves its processes and their files to the garbage collector,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # and warns of its own options when it makes them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ANSWERS = [FINE, LEAK, None, FINE]
PROMPTS = ["Basil?", None, "Basil?", ""]
ACTIONS = ["allow", "rewrite", "error", "allow"]


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Return a judge of responses and prompts."""
    return Judge("public", prompt_column="prompt")


def arrays(columns: dict[str, list[Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a batch of numpy."""
    return {name: np.array(values, object) for name, values in columns.items()}


FORMATS: dict[str, tuple[Callable[..., Any], Callable[[Any, str], list[Any]]]] = {
    "numpy": (arrays, lambda batch, name: batch[name].tolist()),
    "pandas": (pd.DataFrame, lambda batch, name: batch[name].tolist()),
    "pyarrow": (pa.table, lambda batch, name: batch[name].to_pylist()),
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_a_batch(judge: Judge, form: str) -> None:
    """It comes back in its own format, with all rows and columns, and verdicts beside them."""
    make, read = FORMATS[form]
    batch = make({"response": ANSWERS, "prompt": PROMPTS, "n": [1, 2, 3, 4]})
    found = judge(batch)
    assert type(found) is type(batch)
    assert read(found, "n") == [1, 2, 3, 4]
    assert read(found, "guard_action") == ACTIONS
    risks = [json.loads(text) for text in read(found, "guard_risks")]
    assert risks[1]["secret_leak"] > 0.9
    assert risks[2] == {}
    assert "4eC39" not in read(found, "guard_text")[1]


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_batch(judge: Judge, form: str) -> None:
    """It has the columns, and no rows."""
    make, read = FORMATS[form]
    found = judge(make({"response": [], "prompt": []}))
    assert [read(found, name) for name in COLUMNS] == [[]] * len(COLUMNS)


@pytest.mark.parametrize("form", FORMATS)
def test_half_a_character_costs_no_other_row(form: str) -> None:
    """A lone surrogate, which JSON can write and UTF-8 cannot, is replaced in what is added."""
    make, read = FORMATS[form]
    found = Judge(exchange_column="line")(make({"line": [r'"Hi \ud800"', json.dumps(FINE)]}))
    assert read(found, "guard_text") == ["Hi \ufffd", FINE]


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), pd.NA, 5, b"bytes", ["a"], {}],
    ids=["none", "nan", "na", "number", "bytes", "list", "object"],
)
def test_what_is_no_text_is_an_error(judge: Judge, value: Any) -> None:
    """Its row says why, and is neither an all-clear nor delivered; its neighbours are judged."""
    values = np.empty(2, object)
    values[:] = [value, FINE]
    found = judge({"response": values, "prompt": np.array(["", ""], object)})
    assert found["guard_action"].tolist() == ["error", "allow"]
    assert "response" in found["guard_error"][0]
    assert found["guard_text"].tolist() == [None, FINE]


def test_whole_exchanges(real_guard: Guard) -> None:
    """As JSON text, with what a column of responses cannot have; a broken one is an error."""
    call = {"tool_calls": [{"name": "send", "arguments": {"text": LEAK}}]}
    lines = [json.dumps({"choices": [call]}), json.dumps(FINE), "{", None]
    found = Judge(exchange_column="line")({"line": np.array(lines, object)})
    assert found["guard_action"].tolist()[1:] == ["allow", "error", "error"]
    said = real_guard.check(Exchange.parse({"choices": [call]}))
    assert found["guard_action"][0] == said.action != "allow"


@given(st.lists(st.sampled_from([FINE, LEAK, "No.", None]), max_size=8), st.integers(0, 8))
@settings(max_examples=15)
def test_batches_do_not_matter(judge: Judge, answers: list[str | None], cut: int) -> None:
    """However rows are cut into batches, they get the same verdicts."""

    def judged(part: list[str | None]) -> list[tuple[Any, ...]]:
        found = judge(arrays({"response": part, "prompt": [""] * len(part)}))
        return list(zip(*(found[name].tolist() for name in COLUMNS), strict=True))

    assert judged(answers) == judged(answers[:cut]) + judged(answers[cut:])


def test_missing_and_taken_columns_are_named(judge: Judge) -> None:
    """An error says which columns there are, and which must go."""
    with pytest.raises(InputError, match="no column `prompt`: there are `response`"):
        judge(arrays({"response": [FINE]}))
    with pytest.raises(InputError, match="`guard_action` already: drop it"):
        judge(arrays({"response": [FINE], "prompt": [""], "guard_action": [""]}))


def test_it_can_be_sent(judge: Judge) -> None:
    """A copy that went through pickle judges alike."""
    batch = arrays({"response": [LEAK], "prompt": [""]})
    again = pickle.loads(pickle.dumps(judge))
    assert again(batch)["guard_reasons"].tolist() == judge(batch)["guard_reasons"].tolist()


def test_a_wrong_class_is_said_at_once() -> None:
    """Before any batch."""
    with pytest.raises(ConfigurationError, match="publik"):
        Judge("publik")


def test_it_loads_no_other_framework() -> None:
    """Its own alone, whose absence it names with the extra."""
    assert loaded_with("ray") == "ray"
    assert "clearance-guard[ray]" in error_without("ray", "ray")


@pytest.mark.usefixtures("cluster")
def test_map_batches(real_guard: Guard) -> None:
    """As users write it: actors judge a dataset, and say what `Guard.check` says."""
    rows = [{"n": n, "response": [FINE, LEAK, None][n % 3], "prompt": "Basil?"} for n in range(30)]
    judged = ray.data.from_items(rows).map_batches(
        Judge,
        fn_constructor_kwargs={"security_class": "public", "prompt_column": "prompt"},
        concurrency=2,
        batch_size=7,
    )
    found = sorted(judged.take_all(), key=lambda row: row["n"])
    assert [row["n"] for row in found] == list(range(30))
    said = {text: real_guard.check(text, prompt="Basil?") for text in (FINE, LEAK)}
    for row in found:
        if row["response"] is None:
            assert row["guard_action"] == "error"
        else:
            verdict = said[row["response"]]
            assert row["guard_action"] == verdict.action
            assert json.loads(row["guard_reasons"]) == list(verdict.reasons)
            assert row["guard_text"] == verdict.text
