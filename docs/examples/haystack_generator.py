"""A guarded chat generator in a pipeline of Haystack; callbacks and replies show what may be."""

from haystack import Pipeline
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage

from guard import Guard

pipeline = Pipeline()
pipeline.add_component("llm", Guard.load("public").wrap(OpenAIChatGenerator(model="gpt-5.5")))
asked = [ChatMessage.from_user("What grows in the shade?")]
answer = pipeline.run({"llm": {"messages": asked}})["llm"]["replies"][0].text
print(answer)
