"""A WSGI application with a guarded endpoint that answers in JSON; for Flask, `guard.wrap(app)`."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from openai import OpenAI

from guard import Guard
from guard.adapters.wsgi import Fields, GuardWSGI


def ask(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer `{"question": …}` with `{"answer": …}`."""
    asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    with OpenAI() as client:
        answer = client.chat.completions.create(
            model="gpt-5.5", messages=[{"role": "user", "content": asked["question"]}]
        )
    body = json.dumps({"answer": answer.choices[0].message.content}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


routes = {"/ask": Fields("answer", prompt="question")}
app = GuardWSGI(ask, Guard.load("public"), routes)
