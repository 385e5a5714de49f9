"""A guarded model in an agent of pydantic-ai: runs, streams and events show what may be shown."""

from pydantic_ai import Agent
from pydantic_ai.models import infer_model

from guard import Guard

model = Guard.load("public").wrap(infer_model("openai-chat:gpt-5.5"))
agent = Agent(model, instructions="You answer questions about gardens.")
answer = agent.run_sync("What grows in the shade?").output
print(answer)
