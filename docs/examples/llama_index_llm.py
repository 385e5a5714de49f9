"""A guarded LLM of LlamaIndex; answers, streams, callbacks and events show what may be shown."""

from llama_index.core.llms import ChatMessage, MockLLM

from guard import Guard

# `MockLLM` repeats what it is asked; any other LLM stands here as well.
llm = Guard.load("public").wrap(MockLLM())
asked = [ChatMessage(role="user", content="What grows in the shade?")]
answer = llm.chat(asked).message.content
print(answer, "".join(response.delta or "" for response in llm.stream_chat(asked)))
