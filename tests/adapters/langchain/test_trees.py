"""Models in chains: each is guarded, or the chain is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    ConfigurableFieldSingleOption,
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableSerializable,
)
from pydantic import BaseModel, PrivateAttr

from guard.adapters.langchain import GuardedChatModel, GuardRunnable
from guard.errors import InputError
from tests.adapters.langchain.subjects import PROMPT

if TYPE_CHECKING:
    from guard.engine import Guard

BAD = "They zredact."
MENDED = "They [redacted: to redact]."


def chat(said: str = BAD) -> FakeListChatModel:
    """Return a model that says one thing."""
    return FakeListChatModel(responses=[said])


def chosen(**values: Any) -> Any:
    """Return a configuration that sets fields."""
    return {"configurable": values}


class Broken(FakeListChatModel):
    """Cannot be reached."""

    def _call(self, *_: Any, **__: Any) -> Any:
        raise ConnectionError("down")


class Holder(Runnable[Any, Any]):
    """Holds anything, as a chain that is no document does."""

    def __init__(self, held: Any) -> None:
        """Hold it."""
        self.held = held

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        """Pass on."""
        del config, kwargs
        return input


class Private(RunnableSerializable[Any, Any]):
    """Holds anything in a private attribute."""

    _held: Any = PrivateAttr(default=None)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        """Pass on."""
        del config, kwargs
        return input


class Plain(BaseModel):
    """A document with a model in it, which is no chain."""

    held: Any


class Fields(RunnableSerializable[Any, Any]):
    """Holds anything in a field."""

    held: Any

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        """Pass on."""
        del config, kwargs
        return input


class Pair(NamedTuple):
    """Two of a kind."""

    one: Any
    other: Any


class TestAlternatives:
    """Models that are chosen at the call."""

    @pytest.mark.parametrize("which", ["default", "other", "lazy", "ready"])
    async def test_each_is_guarded(self, which: str, guard: Guard) -> None:
        """Also one that is made at the call, and one that was guarded by then."""
        model = chat().configurable_alternatives(
            ConfigurableField(id="which"),
            other=chat(),
            lazy=chat,
            ready=lambda: guard.wrap(chat()),
        )
        chain = guard.wrap(model | StrOutputParser())
        config = chosen(which=which)
        assert chain.invoke(PROMPT, config) == MENDED
        assert await chain.ainvoke(PROMPT, config) == MENDED
        assert "".join(chain.stream(PROMPT, config)) == MENDED

    def test_one_that_cannot_be_guarded_is_refused_at_the_call(self, guard: Guard) -> None:
        """Nobody knows before what it is."""
        alternatives: Any = {"text": lambda: FakeListLLM(responses=[BAD])}
        model = chat().configurable_alternatives(ConfigurableField(id="which"), **alternatives)
        guarded: Any = guard.wrap(model)
        assert guarded.invoke(PROMPT).content == MENDED
        with pytest.raises(InputError, match="completes texts"):
            guarded.invoke(PROMPT, chosen(which="text"))

    def test_prompts_stay(self, guard: Guard) -> None:
        """What holds no model is the same object."""
        prompt = ChatPromptTemplate.from_template("{a}").configurable_alternatives(
            ConfigurableField(id="which"), other=ChatPromptTemplate.from_template("{a}?")
        )
        chain: Any = guard.wrap(prompt | chat())
        assert chain.first is prompt


class TestFields:
    """Models whose fields are set at the call."""

    async def test_they_are_set(self, guard: Guard) -> None:
        """On the model inside, and what it answers is judged."""
        model: Any = guard.wrap(
            chat("Ferns.").configurable_fields(responses=ConfigurableField(id="said"))
        )
        assert model.invoke(PROMPT).content == "Ferns."
        assert model.invoke(PROMPT, chosen(said=["Moss."])).content == "Moss."
        assert model.invoke(PROMPT, chosen(said=[BAD])).content == MENDED
        assert (await model.ainvoke(PROMPT, chosen(said=[BAD]))).content == MENDED
        assert "".join(c.content for c in model.stream(PROMPT, chosen(said=[BAD]))) == MENDED
        assert [spec.id for spec in model.config_specs] == ["said"]
        assert model.with_config(configurable={"said": [BAD]}).invoke(PROMPT).content == MENDED
        assert isinstance(model.default, GuardedChatModel)

    def test_more_fields_can_be_set(self, guard: Guard) -> None:
        """What is built of it is guarded, too."""
        guarded: Any = guard.wrap(
            chat().configurable_fields(responses=ConfigurableField(id="said"))
        )
        more = guarded.configurable_fields(name=ConfigurableField(id="named"))
        assert {spec.id for spec in more.config_specs} == {"said", "named"}
        assert more.invoke(PROMPT, chosen(said=[BAD], named="one")).content == MENDED
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(guarded)

    def test_a_field_that_holds_a_model(self, guard: Guard) -> None:
        """Options are models that are chosen at the call."""
        option = ConfigurableFieldSingleOption(
            id="which", options={"good": chat("Ferns."), "bad": chat()}, default="good"
        )
        bound: Any = chat().bind(stop=["x"])
        model: Any = guard.wrap(bound.configurable_fields(bound=option))
        assert model.invoke(PROMPT).content == "Ferns."
        assert model.invoke(PROMPT, chosen(which="bad")).content == MENDED

    def test_fields_of_a_prompt(self, guard: Guard) -> None:
        """What holds no model is the same object."""
        prompt = ChatPromptTemplate.from_template("{a}").configurable_fields(
            messages=ConfigurableField(id="said")
        )
        chain: Any = guard.wrap(prompt | chat())
        assert chain.first is prompt


class TestWhatCannotBeGuarded:
    """Chains with a model that would answer unguarded."""

    def test_a_model_that_completes_texts(self, guard: Guard) -> None:
        """Alone, and as a fallback."""
        text: Any = FakeListLLM(responses=[BAD])
        for target in (text, Broken(responses=[""]).with_fallbacks([text])):
            with pytest.raises(InputError, match="use a chat model"):
                guard.wrap(target)

    def test_a_model_that_is_named_at_the_call(self, guard: Guard) -> None:
        """The error says how to name it before."""
        model: Any = init_chat_model(configurable_fields="any")
        for target in (model, chat() | model, chat().with_fallbacks([model])):
            with pytest.raises(InputError, match="configurable_alternatives"):
                guard.wrap(target)

    def test_a_graph(self, guard: Guard) -> None:
        """Its nodes are out of sight."""
        agent: Any = create_agent(chat())
        with pytest.raises(InputError, match="GuardMiddleware"):
            guard.wrap(chat() | agent)

    @pytest.mark.parametrize(
        "hidden",
        [
            Holder(chat()),
            Holder({"deep": [{chat().invoke}, chat()]}),
            Fields(held=Plain(held=chat())),
            RunnableLambda(chat().invoke),
            RunnableLambda(partial(print, chat())),
            Holder(Holder(FakeListLLM(responses=[BAD]))),
        ],
    )
    def test_a_model_that_is_held(self, hidden: Any, guard: Guard) -> None:
        """In an object or by a method."""
        with pytest.raises(InputError, match=r"cannot be guarded"):
            guard.wrap(chat() | hidden)

    def test_a_model_in_a_private_place(self, guard: Guard) -> None:
        """Where no field shows it."""
        hidden = Private()
        hidden._held = chat()
        with pytest.raises(InputError, match="cannot be guarded"):
            guard.wrap(chat() | hidden)

    def test_a_model_that_a_function_names(self, guard: Guard) -> None:
        """As far as the framework can tell."""
        inner = chat()

        def ask(asked: Any) -> Any:
            return inner.invoke(asked)

        def asks(asked: Any) -> Any:
            yield from inner.stream(asked)

        for hidden in (RunnableLambda(ask), RunnableGenerator(asks)):
            with pytest.raises(InputError, match="cannot be guarded"):
                guard.wrap(chat() | hidden)

    def test_what_is_guarded_may_be_held(self, guard: Guard) -> None:
        """In any place, and so may what holds itself."""
        ready, text = guard.wrap(chat()), GuardRunnable(guard, chat() | StrOutputParser())
        ring = Holder([ready, text])
        ring.held.append(ring)

        def ask(asked: Any) -> Any:
            return [ready.invoke(asked), text, ring]

        assert guard.wrap(chat() | ring | RunnableLambda(ask))
        assert guard.wrap(chat() | text)

    def test_tuples_keep_their_kind(self, guard: Guard) -> None:
        """Named ones, too."""
        chain: Any = guard.wrap(Fields(held=Pair(chat(), 1)))
        assert isinstance(chain.held, Pair)
        assert isinstance(chain.held.one, GuardedChatModel)
