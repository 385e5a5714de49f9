"""A chat model whose answers are judged before anybody sees them."""

from langchain_openai import ChatOpenAI

from guard import Guard

model = Guard.load("public").wrap(ChatOpenAI(model="gpt-5.5"))

for chunk in model.stream("Which plants like the shade?"):
    print(chunk.text, end="", flush=True)
