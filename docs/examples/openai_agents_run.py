"""A guarded model in an agent of OpenAI's Agents SDK; results and streams show what may be."""

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI

from guard import Guard

set_tracing_disabled(True)
model = Guard.load("public").wrap(OpenAIChatCompletionsModel("gpt-5.5", AsyncOpenAI()))
agent = Agent(name="Gardener", instructions="You answer questions about gardens.", model=model)
answer = Runner.run_sync(agent, "What grows in the shade?").final_output
print(answer)
