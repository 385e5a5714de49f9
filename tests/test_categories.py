"""The taxonomy: names, mechanisms, sentences, and that it can be imported alone."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import get_args

import pytest

from guard.categories import CATEGORIES, Category, Mechanism, Side, is_signal


@pytest.mark.parametrize("category", CATEGORIES.values(), ids=list(CATEGORIES))
class TestEach:
    """What holds for every category."""

    def test_the_name_is_an_identifier(self, category: Category) -> None:
        """Names are lower-case words: they stand in files, logs and columns."""
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", category.name)

    def test_the_summary_is_one_sentence(self, category: Category) -> None:
        """The summary is one sentence, from a capital letter to a full stop."""
        assert re.fullmatch(r"[A-Z][^.!?\n]+\.", category.summary)

    def test_mechanism_and_side_are_known(self, category: Category) -> None:
        """Mechanism and side are among the documented values."""
        assert category.mechanism in get_args(Mechanism)
        assert category.side in get_args(Side)

    def test_auxiliary_means_no_mechanism(self, category: Category) -> None:
        """What is no risk in itself belongs to no mechanism, and everything else to one."""
        assert category.auxiliary == (category.mechanism == "none")


class TestTaxonomy:
    """What holds for all of them together."""

    def test_signals(self) -> None:
        """They are no risk in themselves; a category that is not known may be one."""
        assert {name for name in CATEGORIES if is_signal(name)} == {"refusal", "unsafe"}
        assert not is_signal("competitor_pricing")

    def test_names_are_unique(self) -> None:
        """Each category is listed under its own name, and no name was overwritten."""
        from guard.categories import _ALL

        assert [category.name for category in _ALL] == list(CATEGORIES)
        assert all(name == category.name for name, category in CATEGORIES.items())

    def test_summaries_are_unique(self) -> None:
        """No two categories are described alike."""
        assert len({category.summary for category in CATEGORIES.values()}) == len(CATEGORIES)

    def test_every_mechanism_and_harm_has_categories(self) -> None:
        """No mechanism is empty."""
        used = {category.mechanism for category in CATEGORIES.values()}
        assert used == set(get_args(Mechanism))

    def test_a_category_cannot_change(self) -> None:
        """Categories are frozen."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            CATEGORIES["violence"].side = "prompt"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    def test_the_module_imports_nothing_but_the_standard_library(self) -> None:
        """Importing the taxonomy loads no other part of the package and no dependency."""
        script = (
            "import sys, guard.categories\n"
            "own = {n for n in sys.modules if n.partition('.')[0] == 'guard'}\n"
            "assert own == {'guard', 'guard.categories'}, own\n"
            "foreign = {n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names\n"
            "assert not foreign & {'pydantic', 'numpy', 'yaml', 'rich', 'structlog'}, foreign\n"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
