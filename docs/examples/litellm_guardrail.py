"""LiteLLM's `completion`, guarded, for any provider; `litellm_proxy.yaml` guards its proxy."""

import litellm

from guard import Guard

llm = Guard.load("public").wrap(litellm)
asked = [{"role": "user", "content": "What grows in the shade?"}]
answer = llm.completion(model="openai/gpt-5.5", messages=asked).choices[0].message.content
print(answer)
