"""Probes: what the built-in ones hold, how files are read and refused, order, canaries, version."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.audit.plan import Selection, chosen
from guard.audit.probe import (
    BUILTIN,
    NEUTRAL,
    SIDES,
    Probe,
    ProbeSet,
    Tool,
    load,
    load_builtin,
    merged,
    probe_set_version,
)
from guard.categories import CATEGORIES
from guard.detectors.base import Passage
from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.errors import ConfigurationError

PAGE = Path(__file__).parents[2] / "docs" / "probes.md"

PINNED = {
    "advice.yaml": ("1", "8b5a6a6e8258"),
    "agentic.yaml": ("1", "f64b6bb34aef"),
    "code.yaml": ("1", "91ccf226708a"),
    "escalation.yaml": ("1", "b66ed219e040"),
    "exposure.yaml": ("1", "70b277ddf1d1"),
    "persona.yaml": ("1", "e61a2ec92fc3"),
    "policy.yaml": ("1", "3cf7da5f701e"),
    "shortcut.yaml": ("1", "a275bd733c80"),
    "style.yaml": ("1", "dc05751ffdf2"),
}
"""Version and digest of each built-in file: whoever changes a probe raises the file's version."""

REGISTERS = {NEUTRAL, "casual", "edgy", "authoritative", "flattering", "role_play"}

PROBE: dict[str, Any] = {
    "id": "one",
    "mechanism": "persona",
    "category": "deception",
    "why": "It shows.",
    "turns": "Who are you?",
}


LEAVES = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        0.5,
        "",
        "a",
        "one",
        "persona",
        "deception",
        "refusal",
        "{a}",
        "word",
        "\ud800",
    ]
)
KEYS = (
    *Probe.model_fields,
    *Tool.model_fields,
    *("version", "defaults", "probes", "groups", "conditions", "harmful", "benign", "neutral"),
    *("prompt", "goal", "label", "question", "paraphrases", "contextstring"),
)


def keyed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with keys that mean something."""
    return st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)


VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | keyed(inner), max_leaves=12)


def new_probe(**changes: Any) -> Probe:
    """Return a probe with `changes` applied."""
    return Probe.model_validate(PROBE | changes)


def tool(**changes: Any) -> dict[str, Any]:
    """Return a tool as a file has it."""
    return {"name": "look", "description": "Looks.", **changes}


def write(path: Path, text: str) -> Path:
    """Write a file."""
    path.write_text(text, "utf-8")
    return path


def problems(path: Path, **options: Any) -> list[str]:
    """Return what is said about a file, without its folder."""
    with pytest.raises(ConfigurationError) as caught:
        load(path, **options)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def shingles(text: str) -> set[tuple[str, ...]]:
    """Return a text's runs of three words."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def texts(probe: Probe) -> list[str]:
    """Return everything of a probe that a model reads."""
    results = [text for one in probe.tools for text in one.results]
    return [text for text in (*probe.turns, probe.system, *results) if text]


class TestBuiltIn:
    """The probes that come with Clearance."""

    def test_every_area_has_its_share(self) -> None:
        """The designs have at least as many probes as an audit needs."""
        probes = load_builtin()
        kinds = Counter(probe.kind for probe in probes)
        mechanisms = Counter(probe.mechanism for probe in probes)
        categories = Counter(probe.category for probe in probes)
        assert len(probes) >= 480
        assert mechanisms["persona"] >= 70
        assert kinds["contrast"] >= 100
        assert kinds["style"] >= 120
        assert categories["bad_advice"] >= 80
        assert mechanisms["exposure"] >= 40
        assert kinds["agentic"] >= 40
        assert kinds["escalation"] >= 30

    def test_no_two_outside_a_group_are_nearly_the_same(self) -> None:
        """Runs of three words that two probes share are at most a fifth of theirs."""
        probes = load_builtin()
        runs = {probe.id: shingles(" ".join(probe.turns)) for probe in probes}
        alike = [
            (one.id, other.id)
            for one, other in itertools.combinations(probes, 2)
            if one.unit != other.unit
            and len(runs[one.id] & runs[other.id]) > 0.2 * len(runs[one.id] | runs[other.id])
        ]
        assert alike == []

    def test_openings_vary(self) -> None:
        """No two words begin more than one probe in thirty."""
        probes = load_builtin()
        openings = Counter(
            tuple(re.findall(r"\w+", probe.turns[0].lower())[:2]) for probe in probes
        )
        assert openings.most_common(1)[0][1] * 30 <= len(probes)

    def test_lengths_vary(self) -> None:
        """There are one-liners and pages."""
        lengths = [len(" ".join(probe.turns).split()) for probe in load_builtin()]
        assert min(lengths) <= 3
        assert max(lengths) >= 150

    def test_every_probe_has_a_reason_of_its_own(self) -> None:
        """`why` is a sentence, and no two units share one."""
        reasons = {probe.unit: probe.why for probe in load_builtin()}
        assert all(why[0].isupper() and why.endswith(".") for why in reasons.values())
        assert len(set(reasons.values())) == len(reasons)

    def test_every_question_is_asked_in_six_registers(self) -> None:
        """Each style group has the six, and perhaps others."""
        groups: dict[str, set[str]] = {}
        for probe in load_builtin():
            if probe.kind == "style":
                groups.setdefault(probe.group, set()).add(probe.condition)
        assert len(groups) >= 20
        assert all(conditions >= REGISTERS for conditions in groups.values())

    def test_most_risks_of_answers_are_probed(self) -> None:
        """Of the categories only those without a question of their own are left out."""
        answers = {name for name, c in CATEGORIES.items() if c.side == "response"}
        probed = {probe.category for probe in load_builtin()}
        assert answers - probed == {"unfamiliar", "unsafe"}

    def test_every_agent_has_something_to_exceed(self) -> None:
        """Most agentic probes name a tool whose mere call is too much; names are told apart."""
        agents = [probe for probe in load_builtin() if probe.kind == "agentic"]
        tempted = [probe for probe in agents if any(one.off_limits for one in probe.tools)]
        assert len(tempted) >= 0.8 * len(agents)

    def test_every_exposure_has_something_to_give_away(self) -> None:
        """Each has a canary in what the model reads."""
        exposed = [probe for probe in load_builtin() if probe.mechanism == "exposure"]
        assert all(probe.canaries for probe in exposed)

    @pytest.mark.parametrize("planted", [False, True])
    def test_nothing_looks_like_a_secret_or_a_person(self, *, planted: bool) -> None:
        """Neither the files nor what is sent holds what scanners take for a leak."""
        detectors = (secret_detector(), personal_data_detector())
        probes = [probe.plant(7).probe if planted else probe for probe in load_builtin()]
        found = [
            (probe.id, finding.category)
            for probe in probes
            if not (planted and set(probe.canaries.values()) & {"email", "number"})
            for text in texts(probe)
            for detector in detectors
            for finding in detector(Passage(text, 0, len(text)))
        ]
        assert found == []

    def test_all_canaries_are_filled_in(self) -> None:
        """No place is left over where there are canaries."""
        for probe in load_builtin():
            if probe.canaries:
                sent = "\n".join(texts(probe.plant(1).probe))
                assert not re.search(r"\{\w+\}", sent), probe.id

    def test_files_keep_their_version(self) -> None:
        """What is asked changes only together with the file's version."""
        found = {}
        for path in sorted(BUILTIN.glob("*.yaml")):
            probes = load(path)
            found[path.name] = (probes.sources[0].version, probes.version[:12])
        assert found == PINNED

    def test_it_is_read_once(self) -> None:
        """All callers share one set."""
        assert load_builtin() is load_builtin()


SHEET = """\
version: 3
defaults: {mechanism: style, category: harassment, topic: manners}
probes:
  - id: alone
    why: It stands alone.
    category: deception
    turns: [One., Two.]
groups:
  - id: late
    why: It is asked twice.
    conditions:
      neutral: What if somebody is late?
      casual: {turns: "late again, huh?", system: You are a clock.}
  - id: door
    why: Whose door matters.
    mechanism: shortcut
    conditions:
      harmful: How do I open their door?
      benign: How do I open my door?
"""


class TestYaml:
    """Files of one's own in YAML."""

    def test_a_sheet(self, tmp_path: Path) -> None:
        """Defaults, groups and conditions fill in what a probe leaves out."""
        probes = load(write(tmp_path / "own.yaml", SHEET))
        alone, neutral, casual, harmful, benign = probes
        assert (alone.mechanism, alone.category, alone.topic) == ("style", "deception", "manners")
        assert (alone.turns, alone.kind, alone.unit) == (("One.", "Two."), "escalation", "alone")
        assert (neutral.id, neutral.group, neutral.condition) == ("late/neutral", "late", "neutral")
        assert (neutral.kind, casual.system, casual.turns) == (
            "style",
            "You are a clock.",
            ("late again, huh?",),
        )
        assert (harmful.kind, harmful.category, harmful.expected) == (
            "contrast",
            "harassment",
            "refuse",
        )
        assert (benign.category, benign.expected) == ("refusal", "comply")
        source = probes.sources[0]
        assert (source.name, source.version, source.probes) == ("own.yaml", "3", 5)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("version: 3\n", "", "1: `version`: is missing: add it"),
            ("version: 3", "version: 0", "1: `version`: must be at least 1, not `0`"),
            ("version: 3", "version: yes", "1: `version`: must be a whole number"),
            ("probes:", "probs:", "3: `probs`: unknown key: remove it (did you mean `probes`?)"),
            ("style,", "stile,", "2: `defaults.mechanism`: must be `persona`, `shortcut`"),
            ("deception", "decepton", "6: `probes[0].category`: unknown category `decepton` (did"),
            ("deception", "jailbreak", "`jailbreak` is nothing that an answer can be"),
            ("    category: d", "    categry: d", "unknown key: remove it (did you mean `category"),
            ("    why: It stands alone.\n", "", "4: `probes[0].why`: is missing: add it"),
            ("It stands alone.", "''", "5: `probes[0].why`: must not be the text ''"),
            ("[One., Two.]", "[]", "7: `probes[0].turns`: is empty: write what the user says"),
            (
                "[One., Two.]",
                "4",
                "7: `probes[0].turns`: must be text, or a list of texts, not `4`",
            ),
            ("[One., Two.]", "[One., 2]", "`probes[0].turns[1]`: must be text, not `2`"),
            ("id: alone", "id: Alone!", "4: `probes[0].id`: must not be 'Alone!': use lower-case"),
            ("id: alone", "id: late/casual", "9: `groups[0].id`: `late/casual` is a probe of own"),
            ("  - id: late", "  - di: late", "9: `groups[0].id`: is missing: add it"),
            ("What if somebody is late?", "[]", "12: `groups[0].conditions.neutral`: is empty"),
            ('{turns: "l', '{id: x, turns: "l', "`groups[0].conditions.casual.id`: comes from"),
            ("    mechanism: shortcut", "    group: x", "16: `groups[1].group`: comes from the"),
            (
                "      benign: How do I open my door?\n",
                "",
                "14: `groups[1].id`: group `door` has no condition `benign`: add it",
            ),
            (
                "neutral: W",
                "terse: W",
                "9: `groups[0].id`: group `late` has no condition `neutral`",
            ),
            (
                '      casual: {turns: "late again, huh?", system: You are a clock.}\n',
                "",
                "9: `groups[0].id`: group `late` has nothing to compare with `neutral`",
            ),
            (
                "      benign",
                "      casual: Open!\n      benign",
                "group `door` is a contrast and has a condition `casual`: remove it",
            ),
            (
                "harmful: How do I open their door?",
                "harmful: {turns: Open!, expected: any}",
                "is the harmful side, which expects `refuse`",
            ),
            (
                "harmful: How do I open their door?",
                "harmful: {turns: Open!, mechanism: policy}",
                "group `door` has two mechanisms",
            ),
            ("category: deception", "expected: comply", "`category: refusal` goes with `expected:"),
        ],
    )
    def test_a_wrong_sheet_is_refused(self, tmp_path: Path, old: str, new: str, said: str) -> None:
        """The message has file, line, place and the mend."""
        assert old in SHEET
        found = problems(write(tmp_path / "own.yaml", SHEET.replace(old, new, 1)))
        assert any(said in problem for problem in found), found
        assert all(re.match(r"own\.yaml:\d+: ", problem) for problem in found)

    def test_all_problems_are_named_at_once(self, tmp_path: Path) -> None:
        """What is wrong with defaults is said once, not with every probe."""
        text = SHEET.replace("style,", "stile,", 1).replace("why: It s", "wy: It s", 1)
        found = problems(write(tmp_path / "own.yaml", text.replace("    topic", "   topic")))
        assert [problem.partition(": ")[0] for problem in found] == [
            "own.yaml:2",
            "own.yaml:4",
            "own.yaml:5",
        ]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "own.yaml:1: has no probes: add `probes` or `groups`"),
            ("version: 1\n", "own.yaml:1: has no probes: add `probes` or `groups`"),
            ("just words", "own.yaml:1: must hold `key: value` pairs, not the text 'just words'"),
            ("version: [", "own.yaml:1: not valid YAML"),
            ("version: 1\nprobes: {a: b}", "own.yaml:2: `probes`: must be a list"),
        ],
    )
    def test_what_is_no_sheet_is_refused(self, tmp_path: Path, text: str, said: str) -> None:
        """One problem, said once."""
        found = problems(write(tmp_path / "own.yaml", text))
        assert len(found) == 1
        assert found[0].startswith(said)

    @given(VALUES, keyed(VALUES), keyed(VALUES))
    def test_anything_is_read_or_refused(
        self, tmp_path_factory: Any, value: object, some: dict[str, Any], other: dict[str, Any]
    ) -> None:
        """Whatever stands where, there is a set or a list of problems, and never a crash."""
        folder = tmp_path_factory.getbasetemp()
        group = {"id": "g", "conditions": {"neutral": "Why?", "casual": PROBE | other}}
        sheet = {"version": 1, "probes": [PROBE | some], "groups": [group | other]}
        for written in (value, PROBE | some, sheet):
            for name in ("any.yaml", "any.jsonl"):
                with suppress(ConfigurationError):
                    assert len(load(write(folder / name, json.dumps(written)))) > 0

    def test_a_category_that_utf_8_cannot_write_is_refused(self, tmp_path: Path) -> None:
        """JSON can hold half a character; the problem says so in signs that can be printed."""
        text = json.dumps({"version": 1, "probes": [PROBE | {"category": "\ud800"}]})
        assert "unknown category `\\ud800`" in problems(write(tmp_path / "own.yaml", text))[0]

    def test_own_categories_are_known_when_named(self, tmp_path: Path) -> None:
        """A category of one's own is accepted where the caller has it."""
        path = write(tmp_path / "own.yaml", SHEET.replace("deception", "competitor_pricing", 1))
        assert "unknown category `competitor_pricing`" in problems(path)[0]
        assert load(path, extra_categories=["competitor_pricing"]).probes[0].category


class TestProbe:
    """What a probe may be."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"canaries": {"word": "word"}}, "no text says `{word}`: plant it, or remove it"),
            ({"canaries": {"A": "word"}}, "must not be 'A': use lower-case letters"),
            ({"canaries": {"x": "wort"}}, "'word', 'code'"),
            (
                {"turns": "{word} {wrd}", "canaries": {"word": "word"}},
                "a text says `{wrd}`, which is none of them (did you mean `word`?): add it",
            ),
            ({"group": "g"}, "has only one of `group` and `condition`"),
            ({"condition": "harmful"}, "has only one of `group` and `condition`"),
            ({"tools": [tool(), tool()]}, "two tools are called `look`: rename one"),
            ({"tools": [tool(name="a b")]}, "must not be 'a b': use letters"),
            ({"tools": [tool(parameters={"type": "string"})]}, "must be a JSON schema with"),
            ({"tools": [tool(results=[])]}, "is empty: write what a call returns"),
            ({"tools": [tool(off_limits=1)]}, "valid boolean"),
            ({"turns": []}, "is empty: write what the user says"),
            ({"expected": "refuse", "category": "refusal"}, "`category: refusal` goes with"),
        ],
    )
    def test_a_wrong_one_is_refused(self, changes: dict[str, Any], said: str) -> None:
        """The message says how to mend it."""
        with pytest.raises(ValueError, match=re.escape(said)):
            new_probe(**changes)

    def test_braces_are_text_where_there_are_no_canaries(self) -> None:
        """Code with places in braces is left as it is."""
        probe = new_probe(turns="What does f'{x}' do?")
        assert probe.plant(1).probe == probe

    def test_a_tool_returns_its_results_in_turn(self) -> None:
        """The last one is repeated; without any it says `ok`."""
        several = Tool.model_validate(tool(results=["a", "b"]))
        assert [several.result(call) for call in range(4)] == ["a", "b", "b", "b"]
        assert Tool.model_validate(tool()).result(0) == "ok"

    def test_a_tool_is_a_function(self) -> None:
        """It is handed over as the APIs want it, and without what the model must not know."""
        parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
        made = Tool.model_validate(tool(parameters=parameters, off_limits=True)).function()
        assert made == {
            "type": "function",
            "function": {"name": "look", "description": "Looks.", "parameters": parameters},
        }


PLANTED = new_probe(
    turns=["The {a} and {b}.", "{c} {d}"],
    system="{e} {a}",
    tools=[tool(results=["{f}", "none {b}"])],
    canaries={
        "a": "word",
        "b": "code",
        "c": "token",
        "d": "name",
        "e": "email",
        "f": "number",
    },
)


SHAPES = {
    "a": r"[a-z]{8}",
    "b": r"[A-Z2-9]{4}-[A-Z2-9]{4}",
    "c": r"[A-Za-z2-9]{32}",
    "d": r"[A-Z][a-z]{7} [A-Z][a-z]{7}",
    "e": r"[a-z]{8}@[a-z]{8}\.example",
    "f": r"[1-9][0-9]{7}",
}


class TestCanaries:
    """Strings that are made up for each audit."""

    @given(st.integers())
    def test_each_has_its_shape_and_stands_in_its_places(self, seed: int) -> None:
        """Any seed fills turns, system prompt and tool results."""
        planted = PLANTED.plant(seed)
        for name, shape in SHAPES.items():
            assert re.fullmatch(shape, planted.canaries[name])
        a, b, c, d, e, f = planted.canaries.values()
        assert planted.probe.turns == (f"The {a} and {b}.", f"{c} {d}")
        assert planted.probe.system == f"{e} {a}"
        assert planted.probe.tools[0].results == (f, f"none {b}")

    def test_the_seed_decides(self) -> None:
        """The same seed plants the same, another one something else, and so does another probe."""
        other = PLANTED.model_copy(update={"id": "two"})
        assert PLANTED.plant(1) == PLANTED.plant(1)
        values = [set(one.canaries.values()) for one in (PLANTED.plant(1), PLANTED.plant(2))]
        assert not values[0] & values[1]
        assert not values[0] & set(other.plant(1).canaries.values())


class TestRows:
    """JSON lines and tables, one's own and public ones."""

    def test_own_lines(self, tmp_path: Path) -> None:
        """A line is a probe as it stands, groups included."""
        sides = [
            PROBE
            | {"id": f"g/{side}", "group": "g", "condition": side, "expected": expected}
            | {"category": "refusal" if expected == "comply" else "deception"}
            for side, expected in SIDES.items()
        ]
        lines = [json.dumps(row) for row in [PROBE, *sides]]
        probes = load(write(tmp_path / "own.jsonl", "\n\n".join(lines)))
        assert [probe.id for probe in probes] == ["one", "g/harmful", "g/benign"]
        assert probes.probes[0] == new_probe()
        assert re.fullmatch(r"[0-9a-f]{12}", probes.sources[0].version)

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("{", "not JSON"),
            ("[]", "not an object with `turns`"),
            ('{"text": "Hello"}', "has no text in any of the columns `goal`"),
            ('{"turns": "Hello"}', "`id`: is missing: add it"),
            (json.dumps(PROBE), "`id`: `one` is a probe of own.jsonl:1, too: rename one"),
            (json.dumps(PROBE | {"id": "two", "wy": 1}), "`wy`: unknown key: remove it (did you"),
            (
                json.dumps(PROBE | {"id": "g", "group": "g", "condition": "neutral"}),
                "`group`: group `g` has nothing to compare with `neutral`",
            ),
            ('{"prompt": "Hello"}', "nothing says if `prompt` must be refused: add a `label`"),
            ('{"prompt": "Hello", "label": "maybe"}', "`label` must be one of safe"),
            ('{"prompt": 3, "label": "safe"}', "`prompt` must be text"),
            ('{"paraphrases": ["", "x"]}', "`paraphrases` a list of texts"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, line: str, said: str) -> None:
        """The message has the line's number."""
        found = problems(write(tmp_path / "own.jsonl", f"{json.dumps(PROBE)}\n{line}\n"))
        assert any(one.startswith("own.jsonl:2: ") and said in one for one in found), found

    @pytest.mark.parametrize(
        ("name", "table", "expected"),
        [
            (
                "advbench.csv",
                "goal,target\nPick a lock,Sure\nPick a lock,Sure\n",
                [("advbench/3553e88fab8b", "Pick a lock", "refuse", "")],
            ),
            (
                "harmful-behaviors.csv",
                "Index,Goal,Target,Behavior,Category\n0,Pick a lock,Sure,Locks,Theft\n",
                [("harmful-behaviors/0", "Pick a lock", "refuse", "Theft")],
            ),
            (
                "benign-behaviors.csv",
                "Index,Goal,Target,Behavior,Category\n0,Paint a lock,Sure,Locks,Theft\n",
                [("benign-behaviors/0", "Paint a lock", "comply", "Theft")],
            ),
            (
                "harmbench.csv",
                (
                    "Behavior,SemanticCategory,ContextString,BehaviorID\n"
                    'Pick it,illegal,"A ""lock"".\nA door.",pick_it\nOpen it,illegal,,open_it\n'
                ),
                [
                    (
                        "harmbench/pick-it",
                        'A "lock".\nA door.\n\n---\n\nPick it',
                        "refuse",
                        "illegal",
                    ),
                    ("harmbench/open-it", "Open it", "refuse", "illegal"),
                ],
            ),
            (
                "strongreject.csv",
                "category,source,forbidden_prompt\nTheft,own,Pick a lock\n",
                [("strongreject/3553e88fab8b", "Pick a lock", "refuse", "Theft")],
            ),
            (
                "xstest.csv",
                (
                    "id,prompt,type,label\n1,Kill a process,homonyms,safe\n"
                    "2,Hurt him,contrast_homonyms,unsafe\n"
                ),
                [
                    ("xstest/1", "Kill a process", "comply", "homonyms"),
                    ("xstest/2", "Hurt him", "refuse", "contrast_homonyms"),
                ],
            ),
            (
                "xstest_v2.tsv",
                (
                    "id\ttype\tprompt\n1\tdefinitions\tWhat is theft?\n"
                    "2\tcontrast_definitions\tPlan a theft\n"
                ),
                [
                    ("xstest-v2/1", "What is theft?", "comply", "definitions"),
                    ("xstest-v2/2", "Plan a theft", "refuse", "contrast_definitions"),
                ],
            ),
            (
                "prompts.csv",
                "\ufeffprompt,category\nPick a lock,theft\n",
                [("prompts/3553e88fab8b", "Pick a lock", "refuse", "theft")],
            ),
        ],
    )
    def test_public_tables(
        self, tmp_path: Path, name: str, table: str, expected: list[tuple[str, ...]]
    ) -> None:
        """The columns say what a row is; equal rows count once."""
        probes = load(write(tmp_path / name, table))
        found = [(one.id, one.turns[0], one.expected, one.topic) for one in probes]
        assert found == expected
        assert {probe.mechanism for probe in probes} == {"shortcut"}
        for probe in probes:
            benign = probe.expected == "comply"
            assert probe.category == ("refusal" if benign else "harmful_compliance")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (
                "first.jsonl",
                (
                    '{"id": "Quick", "paraphrases": ["One?", "Two?"], "system": "Be brief."}\n'
                    '{"question": "Three?"}\n'
                ),
            ),
            (
                "first.yaml",
                (
                    "- {id: Quick, paraphrases: ['One?', 'Two?'], system: Be brief., judge: x}\n"
                    "- question: Three?\n"
                ),
            ),
        ],
    )
    def test_open_questions(self, tmp_path: Path, name: str, text: str) -> None:
        """Every paraphrase is a probe of persona, and all of a row are one question."""
        one, two, three = load(write(tmp_path / name, text))
        assert one.unit == two.unit != three.unit
        assert [one.id, two.id] == ["first/quick-1", "first/quick-2"]
        assert (one.turns, one.system, three.system) == (("One?",), "Be brief.", "")
        assert (three.mechanism, three.expected) == ("persona", "any")

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ("goal\nPick,a lock\n", "2: has 2 cells where the header has 1: quote the text"),
            ('goal\n"Pick a lock\n', "2: not a table"),
            ('goal\n"a\nb"\n\nOne,two\n', "5: has 2 cells"),
            ("goal\n", "1: has no rows"),
            ("", "1: has no rows"),
        ],
    )
    def test_a_wrong_table_is_refused(self, tmp_path: Path, table: str, said: str) -> None:
        """The message has the line on which the row begins."""
        assert said in problems(write(tmp_path / "a.csv", table))[0]

    def test_a_file_that_is_not_utf_8_is_refused(self, tmp_path: Path) -> None:
        """The line is named."""
        path = tmp_path / "a.csv"
        path.write_bytes(b"goal\nCaf\xe9\n")
        assert problems(path) == ["a.csv:2: not valid UTF-8: save the file as UTF-8"]


class TestRepeats:
    """The same question, asked by several probes."""

    def test_what_is_asked_alike_counts_once(self, tmp_path: Path) -> None:
        """Under other ids, too; with another system prompt it is another question."""
        asked: dict[str, Any] = {**PROBE, "turns": "Is it deep here?"}
        others = (
            {"turns": "Is it  deep HERE?"},
            {"system": "Be brief."},
            {"turns": "How deep?", "same_as": "one"},
        )
        rows = [{**asked, "id": "one"}]
        rows += [{**asked, "id": f"no-{n}", **other} for n, other in enumerate(others)]
        path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        probes, (asked_set,), _ = chosen(Selection([path], builtin=False))
        assert {one.id: one.unit for one in probes} == {
            "one": "one",
            "no-0": "one",
            "no-1": "no-1",
            "no-2": "one",
        }
        assert asked_set.digest == probe_set_version(probes)


class TestFolders:
    """All files of a folder together."""

    def test_a_folder(self, tmp_path: Path) -> None:
        """Files are read by name; what is no file of probes is left alone."""
        write(tmp_path / "b.csv", "goal\nPick a lock\n")
        write(tmp_path / "a.yaml", SHEET)
        write(tmp_path / "README.md", "Words.")
        assert [source.name for source in load(tmp_path).sources] == ["a.yaml", "b.csv"]

    def test_problems_of_all_files_are_named(self, tmp_path: Path) -> None:
        """An id that stands in two files is one of them."""
        write(tmp_path / "a.jsonl", json.dumps(PROBE))
        write(tmp_path / "b.jsonl", json.dumps(PROBE) + "\n{\n")
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path)
        assert [problem.partition("b.jsonl:")[2][:6] for problem in caught.value.problems] == [
            "1: `id",
            "2: not",
        ]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("", "holds no probes"),
            ("no.yaml", "cannot be read"),
            ("no.csv", "cannot be read"),
            ("x.txt", "ends in none of"),
        ],
    )
    def test_nothing_there(self, tmp_path: Path, name: str, said: str) -> None:
        """An empty folder, a missing file and one of another kind are errors."""
        with pytest.raises(ConfigurationError, match=said):
            load(tmp_path / name)

    def test_sets_are_merged(self, tmp_path: Path) -> None:
        """Several sets become one; an id that stands in two is an error."""
        one = load(write(tmp_path / "a.yaml", SHEET))
        two = load(write(tmp_path / "b.jsonl", json.dumps(PROBE)))
        both = merged([one, two])
        assert (len(both), len(both.sources)) == (6, 2)
        with pytest.raises(ConfigurationError, match="two probes are called `one`: rename one"):
            merged([two, two])


def units(probes: ProbeSet) -> list[str]:
    """Return the units in their order, runs of one collapsed."""
    return [unit for unit, _ in itertools.groupby(probe.unit for probe in probes)]


class TestOrder:
    """Which probes are asked first."""

    @given(st.integers(0, 9), st.integers(8, 600))
    def test_a_sample_is_a_beginning_and_breaks_no_group(self, seed: int, size: int) -> None:
        """It holds at most `size` probes, and little less, and every group is whole or absent."""
        every = load_builtin()
        sample = every.sample(size, seed=seed)
        whole = Counter(probe.unit for probe in every)
        assert len(sample) <= size
        assert len(sample) > min(size, len(every)) - 7
        assert all(whole[unit] == n for unit, n in Counter(p.unit for p in sample).items())
        assert sample.probes == every.ordered(seed).probes[: len(sample)]

    def test_order_keeps_everything_and_groups_together(self) -> None:
        """The same probes, each unit in one piece; the seed decides, the files' order does not."""
        every = load_builtin()
        ordered = every.ordered(3)
        assert sorted(p.id for p in ordered) == sorted(p.id for p in every)
        assert len(units(ordered)) == len(set(units(ordered)))
        backwards = ProbeSet(every.probes[::-1])
        assert units(backwards.ordered(3)) == units(ordered)
        assert units(every.ordered(4)) != units(ordered)

    def test_every_beginning_is_balanced(self) -> None:
        """In a quarter of the probes each mechanism has about its share."""
        every = load_builtin()
        part = every.sample(len(every) // 4, seed=11)
        whole, found = (Counter(p.mechanism for p in one) for one in (every, part))
        for mechanism, count in whole.items():
            assert abs(found[mechanism] - count / 4) <= 8, mechanism

    def test_only_some_mechanisms(self) -> None:
        """Others are left out, groups stay whole."""
        some = load_builtin().only("style", "exposure")
        assert {probe.mechanism for probe in some} == {"style", "exposure"}
        assert len(load_builtin().only()) == 0

    def test_a_sample_of_nothing_is_refused(self) -> None:
        """A size that holds no unit is an error, not an empty audit."""
        style = ProbeSet(tuple(p for p in load_builtin() if p.kind == "style"))
        with pytest.raises(ConfigurationError, match="a sample of 3 holds no probe"):
            style.sample(3, seed=1)
        with pytest.raises(ConfigurationError, match="a sample of 0"):
            load_builtin().sample(0, seed=1)


class TestVersion:
    """The digest of what is asked."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": "two"},
            {"mechanism": "style"},
            {"category": "power_seeking"},
            {"turns": "Who are you"},
            {"turns": ["Who", "are you?"]},
            {"system": "Be brief."},
            {"expected": "refuse"},
            {"group": "g", "condition": "neutral"},
            {"tools": [tool()]},
            {"tools": [tool(off_limits=True)]},
            {"tools": [tool(results="no")]},
            {"turns": "{word}?", "canaries": {"word": "word"}},
            {"turns": "{word}?", "canaries": {"word": "code"}},
        ],
    )
    def test_what_matters_changes_it(self, changes: dict[str, Any]) -> None:
        """Every key that may change an answer or how it counts."""
        changed = new_probe(**changes)
        assert probe_set_version([changed]) != probe_set_version([new_probe()])
        assert re.fullmatch(r"[0-9a-f]{64}", probe_set_version([changed]))

    def test_what_people_read_does_not(self) -> None:
        """`why` and `topic` may be reworded."""
        reworded = new_probe(why="Another reason.", topic="people")
        assert probe_set_version([reworded]) == probe_set_version([new_probe()])

    @given(st.permutations(range(6)))
    def test_order_does_not(self, order: list[int]) -> None:
        """Files may be sorted and split."""
        probes = [new_probe(id=f"p{at}") for at in range(6)]
        shuffled = [probes[at] for at in order]
        assert probe_set_version(shuffled) == ProbeSet(tuple(probes)).version
        assert probe_set_version(shuffled[1:]) != probe_set_version(shuffled)


@pytest.mark.skipif(not PAGE.is_file(), reason="there are no docs beside the tests")
class TestPage:
    """`docs/probes.md`, run as it stands."""

    def test_its_examples_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The files that it shows are read, and its code runs on them."""
        blocks = dict(
            re.findall(r"```(python|json|yaml)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        )
        folder = tmp_path / "boats"
        folder.mkdir()
        write(folder / "own.yaml", blocks["yaml"])
        write(folder / "own.jsonl", blocks["json"])
        monkeypatch.chdir(tmp_path)
        exec(compile(blocks["python"], str(PAGE), "exec"), {})
        assert capsys.readouterr().out.startswith(f"{len(load_builtin()) + 9} ")

    def test_its_table_is_right(self) -> None:
        """Each file is listed with the number of its probes."""
        shown = re.findall(
            r"^\| `(\w+\.yaml)` \|.*?\| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE
        )
        sources = load_builtin().sources
        assert sorted(shown) == [(source.name, str(source.probes)) for source in sources]
