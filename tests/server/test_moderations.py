"""`/v1/moderations`, called by OpenAI's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types.moderation import Categories, CategoryScores

from guard.categories import CATEGORIES
from guard.detectors.base import Finding
from guard.server.guards import Judges
from guard.server.moderations import OPENAI_NAMES, UNJUDGED_NAMES, result_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2

    from guard.detectors.base import Passage
    from guard.engine import Guard
    from guard.security_class import SecurityClass

PATH = "/v1/moderations"

WORDS = {"zhate": "hate_toxicity", "zself": "self_harm", "zadvice": "bad_advice"}


class Topics:
    """Finds the words of `WORDS`, each for its category."""

    name, version, categories = "topics", "1", tuple(WORDS.values())

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per word in the unit."""
        return [
            Finding(category, 9.0, passage.start, passage.end, self.name, "1", localised=False)
            for word, category in WORDS.items()
            if word in passage.unit
        ]


@pytest.fixture
def judges(make_class: Callable[..., SecurityClass]) -> Judges:
    """Return judges that block hate, flag self-harm, and only score bad advice."""
    limits = {"hate_toxicity": {"act": 0.9, "remedy": "block"}, "self_harm": {"flag": 0.5}}
    return Judges.of(make_class(name="topics", limits=limits), (Topics(),))


@pytest.fixture
def raw(serve: Callable[..., httpx2.Client], judges: Judges) -> httpx2.Client:
    """Return a plain client."""
    return serve(judges)


@pytest.fixture
def client(raw: httpx2.Client) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client."""
    with openai.OpenAI(base_url=f"{raw.base_url}/v1", api_key="any", max_retries=0) as made:
        yield made


class TestOpenAIsClient:
    """What its users see."""

    def test_typed(self, client: openai.OpenAI) -> None:
        """The response has OpenAI's types, with every field that they have."""
        done = client.moderations.create(input="All is well.", model="omni-moderation-latest")
        assert isinstance(done, openai.types.ModerationCreateResponse)
        assert done.id.startswith("modr-")
        assert done.model == "clearance-topics"
        (result,) = done.results
        assert result.flagged is False
        assert set(Categories.model_fields) == set(CategoryScores.model_fields)
        for field in Categories.model_fields:
            assert getattr(result.categories, field) is False
            assert 0 <= getattr(result.category_scores, field) < 0.5

    def test_flagged(self, client: openai.OpenAI) -> None:
        """A category is flagged under OpenAI's name and under ours, with the same score."""
        (result,) = client.moderations.create(input="There is zhate.").results
        assert result.flagged
        assert result.categories.hate
        assert not result.categories.harassment
        assert not result.categories.hate_threatening
        assert result.category_scores.hate > 0.9
        extra = result.category_scores.model_extra or {}
        assert extra["hate_toxicity"] == result.category_scores.hate
        assert result.category_applied_input_types.hate == ["text"]
        assert result.category_applied_input_types.hate_threatening == []

    @pytest.mark.parametrize("text", ["zself here", "zadvice here", ""])
    def test_limits_decide(self, client: openai.OpenAI, text: str) -> None:
        """The lower limit of a category flags it; one without a limit is only scored."""
        (result,) = client.moderations.create(input=text).results
        assert result.flagged is ("zself" in text)
        assert result.categories.self_harm is ("zself" in text)
        extra = result.category_scores.model_extra or {}
        assert (extra["bad_advice"] > 0.9) is ("zadvice" in text)

    def test_judged_to_the_end(self, client: openai.OpenAI) -> None:
        """What comes after a text that would be blocked is scored all the same."""
        plain = "The ferry leaves at nine from the second pier, and nobody is late for it. "
        (result,) = client.moderations.create(input=f"zhate {plain * 10} zself").results
        assert result.categories.hate
        assert result.categories.self_harm
        guard = (result.model_extra or {})["guard"]
        assert guard["action"] == "block"
        assert guard["complete"]

    def test_several_texts(self, client: openai.OpenAI) -> None:
        """A list of texts has a result each, in their order."""
        results = client.moderations.create(input=["Fine.", "zhate", "Fine."]).results
        assert [result.flagged for result in results] == [False, True, False]

    def test_parts(self, client: openai.OpenAI) -> None:
        """A list of parts is one text."""
        parts: list[Any] = [{"type": "text", "text": "Fine."}, {"type": "text", "text": "zhate"}]
        (result,) = client.moderations.create(input=parts).results
        assert result.flagged

    def test_images(self, client: openai.OpenAI) -> None:
        """An image is refused: nothing here can judge it."""
        parts: list[Any] = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
        with pytest.raises(openai.BadRequestError) as caught:
            client.moderations.create(input=parts)
        assert caught.value.code == "invalid_request"
        assert caught.value.request_id

    def test_a_detector_that_fails(
        self, serve: Callable[..., httpx2.Client], make_class: Callable[..., SecurityClass]
    ) -> None:
        """A text that could not be judged is flagged, and says so."""

        class Broken(Topics):
            def __call__(self, passage: Passage) -> list[Finding]:
                raise RuntimeError(passage)

        judges = Judges.of(make_class(limits={"self_harm": {"flag": 0.5}}), (Broken(),))
        body = serve(judges).post(PATH, json={"input": "Fine."}).json()
        (result,) = body["results"]
        assert result["flagged"]
        assert not result["guard"]["complete"]


class TestNames:
    """The table of names."""

    def test_every_name_of_openai_is_there(self) -> None:
        """Each of OpenAI's categories is either ours or said not to be told apart."""
        theirs = {field.alias or name for name, field in Categories.model_fields.items()}
        assert theirs == {*OPENAI_NAMES, *UNJUDGED_NAMES}
        assert set(OPENAI_NAMES.values()) <= set(CATEGORIES)

    def test_auxiliary_and_prompt_categories_are_not_shown(self, real_guard: Guard) -> None:
        """Signals, and what is judged of prompts, are no risks of a text."""
        body = result_body(real_guard.check("Hello."), real_guard.security_class)
        shown = set(body["category_scores"]) - {*OPENAI_NAMES, *UNJUDGED_NAMES}
        assert "refusal" not in shown
        assert "jailbreak" not in shown
        assert {"bad_advice", "secret_leak"} <= shown


class TestRefused:
    """Bad requests, in OpenAI's form."""

    @pytest.mark.parametrize(
        "body",
        [{}, {"input": 5}, {"input": []}, {"input": None}, {"input": ["a", 5]}, [], None],
    )
    def test_shape(self, raw: httpx2.Client, body: Any) -> None:
        """They are a 400 with a message."""
        answer = raw.post(PATH, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]
