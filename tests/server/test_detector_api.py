"""The detector API of the FMS guardrails orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from guard.detectors.base import Finding, Passage
    from guard.server.guards import Judges

PATH = "/api/v1/text/contents"

PLAIN = "The ferry leaves at nine from the second pier, and nobody is late for it. "


@pytest.fixture
def client(serve: Callable[..., httpx2.Client]) -> httpx2.Client:
    """Return a client of a server whose guard fires on words."""
    return serve()


def post(client: httpx2.Client, *contents: str, **params: Any) -> list[list[dict[str, Any]]]:
    """Return the detections of each text."""
    body = {"contents": contents, "detector_params": params}
    answer = client.post(PATH, json=body, headers={"detector-id": "clearance"})
    assert answer.status_code == 200, answer.text
    result: list[list[dict[str, Any]]] = answer.json()
    return result


class TestDetections:
    """What is found."""

    def test_spans(self, client: httpx2.Client) -> None:
        """A detection's text stands at its span in code points, wherever the unit begins."""
        text = f"\U0001f6a2 é {PLAIN * 9}Say zredact and zflag, then zblock. {PLAIN * 9}zreplace."
        (found,) = post(client, text)
        assert [each["text"] for each in found] == ["zredact", "zflag", "zblock", "zreplace"]
        for each in found:
            assert text[each["start"] : each["end"]] == each["text"]

    def test_fields(self, client: httpx2.Client) -> None:
        """A detection has the fields of the API, and what the class does about the text."""
        ((found,),) = post(client, "Mail ann@ferry-pier-two.org at once")
        assert found["detection"] == "email"
        assert found["detection_type"] == "pii_leak"
        assert found["text"] == "ann@ferry-pier-two.org"
        assert 0.4 <= found["score"] <= 1
        (evidence,) = found["evidences"]
        assert evidence["name"] == "personal_data"
        assert found["metadata"] == {"action": "flag", "security_class": "test"}

    def test_several_contents(self, client: httpx2.Client) -> None:
        """Each text has a list of its own, in their order."""
        lengths = [len(found) for found in post(client, "Fine.", "zblock", "", "zflag zflag")]
        assert lengths == [0, 1, 0, 2]

    def test_threshold(self, client: httpx2.Client) -> None:
        """A threshold leaves out what is weaker, and never brings what reaches no limit."""
        text = "Mail ann@ferry-pier-two.org, zblock"
        both, one = post(client, text)[0], post(client, text, threshold=0.98)[0]
        assert [each["detection_type"] for each in both] == ["pii_leak", "to_block"]
        assert [each["detection_type"] for each in one] == ["to_block"]
        assert post(client, "Fine.", threshold=0.0) == [[]]

    def test_the_unit_stands_for_what_has_no_span(self, client: httpx2.Client) -> None:
        """Of a classifier's finding the span is the unit that was judged."""
        ((found,),) = post(client, "Here is zexcise at last.")
        assert found["text"] == "Here is zexcise at last."


class TestRefused:
    """Errors, in the API's own form."""

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"contents": []},
            {"contents": "text"},
            {"contents": ["a"], "detector_params": {"treshold": 1}},
            {"contents": ["a"], "detector_params": {"threshold": 2}},
            {"contents": ["a"], "detector_params": {"threshold": "high"}},
        ],
    )
    def test_shape(self, client: httpx2.Client, body: Any) -> None:
        """A bad request is a 422 with code and message."""
        answer = client.post(PATH, json=body)
        assert answer.status_code == 422
        assert answer.json().keys() == {"code", "message"}
        assert answer.json()["code"] == 422

    def test_a_detector_that_fails(
        self, serve: Callable[..., httpx2.Client], make_judges: Callable[..., Judges]
    ) -> None:
        """Where nothing is known the request fails: an empty list would be an all-clear."""

        class Broken:
            name, version, categories = "broken", "1", ("to_block",)

            def __call__(self, _: Passage) -> list[Finding]:
                raise RuntimeError

        client = serve(make_judges(Broken(), limits={"to_block": {"act": 0.9}}))
        answer = client.post(PATH, json={"contents": ["Fine."]})
        assert answer.status_code == 503
        assert answer.json()["code"] == 503
        assert answer.headers["retry-after"] == "1"
