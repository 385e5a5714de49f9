"""A FastAPI application with a guarded chat endpoint that streams plain text."""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

from guard import Guard
from guard.adapters.asgi import GuardASGI, Text


class Question(BaseModel):
    """What the endpoint is asked."""

    message: str


app = FastAPI()


@app.post("/chat")
async def chat(question: Question) -> StreamingResponse:
    """Answer as the model says it."""

    async def pieces() -> AsyncIterator[str]:
        async with AsyncOpenAI() as client:
            events = await client.chat.completions.create(
                model="gpt-5.5",
                messages=[{"role": "user", "content": question.message}],
                stream=True,
            )
            async for event in events:
                yield (event.choices[0].delta.content or "") if event.choices else ""

    return StreamingResponse(pieces(), media_type="text/plain")


routes = {"POST /chat": Text(prompt="message")}
app.add_middleware(GuardASGI, guard=Guard.load("public"), routes=routes)
