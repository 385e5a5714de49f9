"""An agent whose model and tools are guarded, with a memory."""

from langchain.agents import create_agent
from langgraph.checkpoint.memory import MemorySaver

from guard import Guard
from guard.adapters.langchain import GuardMiddleware

middleware = [GuardMiddleware(Guard.load("internal"))]
agent = create_agent("openai:gpt-5.5", middleware=middleware, checkpointer=MemorySaver())
asked = {"messages": [("user", "Which plants like the shade?")]}
thread = {"configurable": {"thread_id": "1"}}
for chunk, _ in agent.stream(asked, thread, stream_mode="messages"):
    print(chunk.text, end="", flush=True)
