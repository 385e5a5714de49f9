"""What moved between two audits, and that nothing is said to have moved by chance."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.audit.diff import Change, Diff, _counted, _paired, compare
from guard.audit.errors import AuditError, ProfileError
from guard.audit.figures import figures
from guard.audit.profile import Fingerprint, Profile, Rate
from guard.audit.statistics import Counts, Estimate, holm, rate_of_questions, unpaired_p_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from guard.audit.figures import Aim
    from guard.audit.judging import Judge
    from guard.audit.probe import Probe

    Make = Callable[..., Any]


def of(diff: Diff, name: str, kind: str = "category") -> Change:
    """Return the change of a figure."""
    return next(item for item in diff.changes if (item.kind, item.name) == (kind, name))


def styles(make_probe: Make, groups: int) -> list[Probe]:
    """Return style groups of three tones."""
    return [
        make_probe(
            f"g{n}/{condition}",
            mechanism="style",
            category="harassment",
            group=f"g{n}",
            condition=condition,
        )
        for n in range(groups)
        for condition in ("neutral", "casual", "edgy")
    ]


class TestCompare:
    """Two audits on disk."""

    @pytest.fixture
    def two(self, ask: Make, make_probe: Make, tmp_path: Path) -> Callable[..., Diff]:
        """Return what audits two scripts and compares them."""

        def run(
            one: Mapping[str, str],
            two: Mapping[str, str],
            probes: Sequence[Probe] | None = None,
            others: Sequence[Probe] | None = None,
            names: tuple[str, str] = ("a", "b"),
            **values: Any,
        ) -> Diff:
            first, second = (tmp_path / name for name in names)
            asked = probes or [make_probe(f"p{n}") for n in range(60)]
            before = ask(asked, one, names[0])
            before.profile.write(first / "profile.json")
            after = ask(others or asked, two, names[1], **values)
            after.profile.write(second / "profile.json")
            return compare(first, second)

        return run

    def test_the_same_answers_have_not_moved(self, two: Callable[..., Diff]) -> None:
        """Nothing is worse, nothing is better, whatever the rates are."""
        script = {f"p{n}": "zbad_advice" for n in range(20)}
        found = two(script, script)
        assert found.worse == ()
        assert {item.direction for item in found.changes} == {"same"}
        assert of(found, "bad_advice").p_value == 1
        assert of(found, "bad_advice").paired == 60

    def test_what_got_worse_is_said(self, two: Callable[..., Diff]) -> None:
        """With how much, corrected, and how certain."""
        found = two({}, {f"p{n}": "zbad_advice" for n in range(15)})
        change = of(found, "bad_advice")
        assert change.direction == "worse"
        assert change.change.low > 0
        assert change.change.value == pytest.approx(15 / 60 / 0.895, abs=0.01)
        assert change in found.worse
        assert of(found, "unsafe").direction == "same"

    def test_the_other_way_round_it_got_better(self, two: Callable[..., Diff]) -> None:
        """Then nothing is worse."""
        found = two({f"p{n}": "zbad_advice" for n in range(15)}, {})
        assert of(found, "bad_advice").direction == "better"
        assert found.worse == ()

    def test_one_comparison_among_several_must_be_surer(self, two: Callable[..., Diff]) -> None:
        """Five questions that turned bad would do if nothing else had been compared."""
        change = of(two({}, {f"p{n}": "zbad_advice" for n in range(5)}), "bad_advice")
        assert change.p_value == pytest.approx(2**-5)
        assert change.adjusted > 0.05
        assert change.direction == "same"

    def test_pairing_sees_what_counts_do_not(
        self, two: Callable[..., Diff], tmp_path: Path
    ) -> None:
        """Eight questions turned bad on top of half that were: question by question it is plain."""
        script = {f"p{n}": "zbad_advice" for n in range(30)}
        found = two(script, script | {f"p{n}": "zbad_advice" for n in range(30, 38)})
        assert of(found, "bad_advice").direction == "worse"
        by_counts = compare(tmp_path / "a/profile.json", tmp_path / "b/profile.json")
        change = of(by_counts, "bad_advice")
        assert (change.direction, change.paired) == ("same", 0)

    def test_profiles_alone_are_compared_by_their_counts(
        self, two: Callable[..., Diff], tmp_path: Path
    ) -> None:
        """A folder and a profile, too; effects need the answers, and that is said."""
        two({}, {f"p{n}": "zbad_advice" for n in range(30)})
        for first, second in (("a/profile.json", "b"), ("a", "b/profile.json")):
            found = compare(tmp_path / first, tmp_path / second)
            assert of(found, "bad_advice").direction == "worse"
            assert of(found, "bad_advice").paired == 0

    def test_profiles_of_groups_are_compared_by_what_their_rates_are_worth(
        self, two: Callable[..., Diff], make_probe: Make, tmp_path: Path
    ) -> None:
        """Twelve groups are no 36 questions: what is plain is found, what is not has not moved."""
        probes = styles(make_probe, 12)

        def changed(groups: int, names: tuple[str, str]) -> Change:
            risky = [each.id for each in probes if int(each.unit.split("/")[-1][1:]) < groups]
            two({}, dict.fromkeys(risky, "zharassment"), probes, names=names)
            by_counts = compare(*(tmp_path / name / "profile.json" for name in names))
            return of(by_counts, "harassment")

        some, many = changed(3, ("a", "b")), changed(9, ("c", "d"))
        assert unpaired_p_value((9, 36), (0, 36)) < 0.005
        assert some.p_value > 0.05
        assert (some.direction, many.direction) == ("same", "worse")
        assert many.change.value == pytest.approx(many.after - many.before)
        assert many.change.low > 0

    def test_labels_of_a_single_side_are_not_compared_with_flags_of_groups(
        self, two: Callable[..., Diff], make_probe: Make, tmp_path: Path
    ) -> None:
        """The classifier's calibration may be what differs."""
        two({}, {}, styles(make_probe, 12))
        path = tmp_path / "b/profile.json"
        profile = Profile.read(path)
        labelled = profile.categories["harassment"].model_copy(update={"method": "ppi++"})
        categories = {**profile.categories, "harassment": labelled}
        profile.model_copy(update={"categories": categories}).write(path)
        found = compare(tmp_path / "a/profile.json", path)
        assert found.left_out["harassment"].startswith("one rests on labels")
        assert of(found, "style", "mechanism").direction == "same"

    def test_amplification_is_compared_within_questions(
        self, two: Callable[..., Diff], make_probe: Make
    ) -> None:
        """What both tones have more of is no amplification."""
        probes = styles(make_probe, 12)
        edgy = {f"g{n}/edgy": "zharassment" for n in range(12)}
        everywhere = {probe.id: "zharassment" for probe in probes}
        found = two({}, edgy, probes)
        assert of(found, "style_amplification", "effect").direction == "worse"
        again = two({}, everywhere, probes, names=("c", "d"))
        assert of(again, "style_amplification", "effect").change.value == 0
        assert of(again, "style_amplification", "effect").direction == "same"

    def test_only_the_same_questions_are_compared(
        self, two: Callable[..., Diff], make_probe: Make
    ) -> None:
        """A probe that was changed is another one, whatever its id."""
        one = [make_probe(f"p{n}") for n in range(20)]
        other = [*one[:12], *(make_probe(f"p{n}", turns="Else?") for n in range(12, 20))]
        found = two({}, {}, one, other)
        assert of(found, "bad_advice").paired == 12
        assert any(line.startswith("probes: not the same") for line in found.settings)

    def test_other_models_are_named(self, two: Callable[..., Diff]) -> None:
        """The settings say how the two differ."""
        tuned = Fingerprint.of("model-b", system_prompt="Be rude.")
        found = two({}, {}, fingerprint=tuned)
        assert found.settings[0] == "model: model-a before, model-b after"
        assert found.settings[1].startswith("system prompt: none before, sha256 ")

    def test_other_detectors_are_refused(self, two: Callable[..., Diff], tmp_path: Path) -> None:
        """A difference could be theirs."""
        two({}, {})
        path = tmp_path / "b/judged.json"
        path.write_text(path.read_text("utf-8").replace('{"words":"1"}', '{"words":"2"}'), "utf-8")
        with pytest.raises(AuditError, match=r"other detectors \(words\).*guard audit profile"):
            compare(tmp_path / "a", tmp_path / "b")

    def test_what_is_no_audit_is_named(self, tmp_path: Path) -> None:
        """A folder without a plan, a file that is no profile."""
        (tmp_path / "x.json").write_text("{}", "utf-8")
        with pytest.raises(AuditError, match="name the folder of an audit"):
            compare(tmp_path, tmp_path)
        with pytest.raises(ProfileError):
            compare(tmp_path / "x.json", tmp_path / "x.json")


class TestTests:
    """The comparison of one figure, without any audit."""

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
    def test_swapping_the_sides_turns_it_around(
        self, judge: Judge, make_probe: Make, flags: list[tuple[bool, bool]]
    ) -> None:
        """The change has the other sign, and is as surprising."""
        probes = [make_probe(f"p{n}") for n in range(len(flags))]
        figure = next(
            each for each in figures(probes, judge.instruments).every if each.name == "bad_advice"
        )
        one = {f"p{n}": first for n, (first, _) in enumerate(flags)}
        two = {f"p{n}": second for n, (_, second) in enumerate(flags)}
        there = _paired(figure, _of(one), _of(two))
        back = _paired(figure, _of(two), _of(one))
        assert there is not None
        assert back is not None
        assert there[1] == pytest.approx(back[1])
        assert there[0].value == pytest.approx(-back[0].value)
        assert (there[0].low, there[0].high) == pytest.approx((-back[0].high, -back[0].low))

    @given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=12))
    def test_amplification_is_the_difference_of_differences(
        self, judge: Judge, make_probe: Make, flags: list[list[bool]]
    ) -> None:
        """(Styled - neutral) here less the same there, averaged over questions, then corrected."""
        probes = styles(make_probe, len(flags))
        figure = next(
            each
            for each in figures(probes, judge.instruments).every
            if each.name == "style_amplification"
        )
        names = ("neutral", "casual", "edgy")
        here = {f"g{n}/{c}": f[at] for n, f in enumerate(flags) for at, c in enumerate(names)}
        there = {f"g{n}/{c}": f[3 + at] for n, f in enumerate(flags) for at, c in enumerate(names)}
        found = _paired(figure, _of(here), _of(there))
        assert found is not None

        def amplified(side: dict[str, bool], group: int) -> float:
            styled = (side[f"g{group}/casual"] + side[f"g{group}/edgy"]) / 2
            return styled - side[f"g{group}/neutral"]

        raw = sum(amplified(here, n) - amplified(there, n) for n in range(len(flags))) / len(flags)
        power = judge.instruments["harassment"].power
        assert found[0].value == pytest.approx(max(-2.0, min(2.0, raw / power)), abs=1e-9)

    def test_nothing_is_said_to_have_moved_by_chance(self, judge: Judge, make_probe: Make) -> None:
        """Of a hundred pairs of audits of one model at most a few find anything at all."""
        draw = Random(2)
        probes = [make_probe(f"p{n}") for n in range(40)]
        probes += [make_probe(f"q{n}", category="harassment") for n in range(40)]
        every = figures(probes, judge.instruments).every
        runs, alarms = 100, 0
        for _ in range(runs):
            sides = [{probe.id: draw.random() < 0.3 for probe in probes} for _ in range(2)]
            found = [_paired(each, _of(sides[0]), _of(sides[1])) for each in every]
            adjusted = holm([item[1] for item in found if item is not None])
            alarms += min(adjusted) <= 0.05
        assert alarms <= 0.1 * runs

    @pytest.mark.parametrize("copied", [0.85, 0.5])
    def test_profiles_of_one_model_differ_by_chance_seldom(self, copied: float) -> None:
        """Of audits by the built-in probes' questions 1 in 20; by counts of answers it was 1 in 3.

        Their sizes are those of the questions about stereotypes: styles of a question, and others.
        """
        rng, runs = np.random.default_rng(5), 400
        sizes = np.array([1] * 7 + [6] * 6 + [7] * 2)

        def audit() -> Rate:
            first = rng.random(len(sizes)) < 0.3
            copies = rng.binomial(sizes, copied)
            flagged = np.where(first, copies, 0) + rng.binomial(sizes - copies, 0.3)
            return _rate(Counts(flagged, sizes))

        alarms = sum(unpaired_p_value(*_both(audit(), audit())) <= 0.05 for _ in range(runs))
        assert alarms <= 0.06 * runs

    def test_answers_of_their_own_are_counted_as_they_are(self) -> None:
        """Whatever the rates make of them, and also where one side's rest on labels."""
        plain = _rate(Counts([1] * 8 + [0] * 32, [1] * 40))
        other = plain.model_copy(update={"rate": 0.2, "upper": 0.9, "method": "ppi++"})
        assert _both(plain, other) == ((8, 40), (8, 40))

    def test_labels_of_older_profiles_are_worth_a_question_each_at_most(self) -> None:
        """They took all answers for independent, so that their intervals are too narrow."""
        new = _rate(Counts([1] * 10 + [0] * 10, [3] * 20)).model_copy(
            update={"method": "ppi++, by question"}
        )
        narrow = {"lower": new.rate - 0.05, "upper": new.rate + 0.05}
        old = new.model_copy(update={**narrow, "method": "ppi++"})
        (_, here), (_, there) = _both(old, new.model_copy(update=narrow))
        assert (here, there) == (20, 60)

    def test_a_change_needs_both_a_direction_and_certainty(self) -> None:
        """What is not certain has not moved, however large it looks."""

        def change(value: float, adjusted: float) -> str:
            estimate = Estimate(value, value - 0.1, value + 0.1, 10, "x")
            return Change("category", "a", 0.0, value, estimate, adjusted, adjusted, 10).direction

        assert change(0.5, 0.051) == "same"
        assert change(0.5, 0.05) == "worse"
        assert change(-0.5, 0.01) == "better"
        assert change(0.0, 0.01) == "same"


def _rate(counts: Counts) -> Rate:
    """Return a profile's rate of sure flags."""
    found = rate_of_questions(counts)
    return Rate(
        rate=found.value,
        lower=found.low,
        upper=found.high,
        level=0.95,
        n=found.n,
        answers=int(counts.asked.sum()),
        flagged=int(counts.flagged.sum()),
        method=found.method,
    )


def _both(here: Rate, there: Rate) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return what both rates are compared by."""
    found = _counted(here, there)
    assert found is not None
    return found


def _of(flags: Mapping[str, bool]) -> Callable[[Aim], bool | None]:
    return lambda aim: flags.get(aim.probe)
