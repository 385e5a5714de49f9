"""What makes steps on a CPU cheap changes nothing of what dropout is."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.training import cpu
from guard.training.cpu import dropped


class TestDropped:
    """Dropout from one long draw."""

    @settings(max_examples=20)
    @given(
        rate=st.sampled_from([0.1, 0.3, 0.5]),
        rows=st.integers(1, 40),
        seed=st.integers(0, 99),
    )
    def test_values_are_zero_or_larger(self, rate: float, rows: int, seed: int) -> None:
        """What is kept makes up for what is not."""
        torch.manual_seed(seed)
        found = dropped(torch.ones(rows, 96), rate)
        assert found.shape == (rows, 96)
        assert set(found.flatten().tolist()) <= {0.0, float(torch.tensor(1.0) / (1 - rate))}

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    def test_as_many_are_zero_as_asked(self, kind: torch.dtype) -> None:
        """By the million."""
        torch.manual_seed(1)
        found = dropped(torch.ones(1000, 1000, dtype=kind), 0.1)
        assert found.dtype == kind
        assert float((found == 0).float().mean()) == pytest.approx(0.1, abs=0.002)

    def test_each_call_drops_others(self) -> None:
        """Two masks agree as often as chance has it."""
        torch.manual_seed(1)
        given = torch.ones(400, 400)
        first, second = (dropped(given, 0.5) == 0 for _ in range(2))
        assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.01)

    def test_it_follows_torchs_random_state(self) -> None:
        """A run that is resumed drops what it would have dropped."""
        given = torch.ones(50, 50)
        torch.manual_seed(3)
        state = torch.get_rng_state()
        first = dropped(given, 0.3)
        torch.set_rng_state(state)
        assert torch.equal(dropped(given, 0.3), first)

    def test_it_is_the_same_behind_a_longer_draw(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was drawn before for larger batches, or for none, does not matter."""
        monkeypatch.setattr(cpu, "_draws", {})
        given = torch.ones(30, 30)
        torch.manual_seed(3)
        alone = dropped(given, 0.3)
        dropped(torch.ones(3000, 300), 0.3)
        torch.manual_seed(3)
        assert torch.equal(dropped(given, 0.3), alone)

    def test_gradients_pass_where_values_do(self) -> None:
        """By the same factors."""
        torch.manual_seed(1)
        given = torch.ones(20, 20, requires_grad=True)
        found = dropped(given, 0.3)
        found.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert given.grad is not None
        assert torch.equal(given.grad, found.detach())

    def test_nothing_is_dropped_at_no_rate(self) -> None:
        """Not even copied."""
        given = torch.ones(3)
        assert dropped(given, 0.0) is given


_FREED = """
import numpy as np
from guard.training.cpu import keep_memory, trim_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

keep_memory()
before = resident()
last = [np.ones(10_000_000) for _ in range(4)]
last = last[-1:]
kept = resident()
trim_memory()
print(before, kept, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept_until_it_is_trimmed() -> None:
    """Of four blocks of 80 MB the last is still in use."""
    said = subprocess.run(
        [sys.executable, "-c", _FREED], check=True, capture_output=True, text=True
    )
    before, kept, after = map(float, said.stdout.split())
    assert kept - before > 300
    assert after - before < 120


def test_memory_is_kept_where_the_allocator_can() -> None:
    """It goes for a whole process, so that another one is asked."""
    said = subprocess.run(
        [sys.executable, "-c", "from guard.training.cpu import keep_memory as k; print(k())"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
