"""Beside peers: size, import time, and whether a streamed key reaches the reader.

    python benchmarks/peers.py --work /tmp/peers

Makes an environment per package, installs it from PyPI as its README says, and runs the same
probe in each: a local server streams an answer that contains a made-up credential, piece by
piece, in the chat-completions format; the probe counts how many of the credential's characters
the reader received before the guardrail reacted. Versions are printed. A package is left out
where it cannot judge without fetching something at runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent

SERVER: Final = '''
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-proj-" + "Zk3vQ9pLr7TtXw2B" + "m5Yc8NdHs4JfGa6E"
TEXT = f"Here is how to set it up. Put the key {KEY} into the file and restart the service."

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for at in range(0, len(TEXT), 5):
            delta = {"role": "assistant", "content": TEXT[at : at + 5]}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            chunk["choices"] = [choice]
            self.wfile.write(f"data: {json.dumps(chunk)}\\n\\n".encode())
        self.wfile.write(b"data: [DONE]\\n\\n")

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}/v1"

def leaked(text):
    """The longest beginning of the key, its public prefix apart, that the reader saw."""
    return max([0, *(n for n in range(len("sk-proj-") + 1, len(KEY) + 1) if KEY[:n] in text)])
'''

PROBES: Final = {
    "clearance-guard": """
from guard import Guard
guard = Guard.load("public", journal=None)
pieces = (TEXT[at : at + 5] for at in range(0, len(TEXT), 5))
read, reaction = "", "none"
stream = guard.stream(pieces, prompt="How do I set it up?")
read = "".join(stream)
reaction = stream.verdict.action
""",
    "openai-guardrails": """
from guardrails import GuardrailsOpenAI
rule = {"name": "Secret Keys", "config": {"threshold": "balanced"}}
config = {"version": 1, "output": {"version": 1, "guardrails": [rule]}}
client = GuardrailsOpenAI(config=config, base_url=url, api_key="x")
read, reaction = "", "none"
asked = [{"role": "user", "content": "How do I set it up?"}]
try:
    for chunk in client.chat.completions.create(model="m", messages=asked, stream=True):
        part = getattr(chunk, "llm_response", chunk)
        if part.choices and part.choices[0].delta.content:
            read += part.choices[0].delta.content
except Exception as error:
    reaction = f"raised {type(error).__name__}"
""",
}
"""How each package judges the stream, ending with `read` and `reaction`."""

MODULES: Final = {
    "clearance-guard": "guard",
    "openai-guardrails": "guardrails",
    "guardrails-ai": "guardrails",
}

TIMED: Final = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
COUNT: Final = """
import importlib.metadata
names = {each.name for each in importlib.metadata.distributions()}
print(len(names - {"pip", "setuptools"}))
"""


def python(place: Path) -> str:
    """Return the environment's interpreter."""
    return str(place / ("Scripts" if os.name == "nt" else "bin") / "python")


def prepare(name: str, place: Path) -> None:
    """Make the environment and install the package, unless it is there."""
    if place.exists():
        return
    venv.create(place, with_pip=True)
    source = str(ROOT) if name == "clearance-guard" else name
    subprocess.run([python(place), "-m", "pip", "install", "-q", source], check=True)


def megabytes(place: Path, *, bytecode: bool) -> float:
    """Return the size of the installed packages without pip, with or without `__pycache__`."""
    (packages,) = place.glob("lib/*/site-packages")
    own = ("pip", "setuptools", "wheel")
    files = (f for f in packages.rglob("*") if f.is_file() and not f.is_symlink())
    counted = (f for f in files if not f.relative_to(packages).parts[0].startswith(own))
    return sum(f.stat().st_size for f in counted if bytecode or f.suffix != ".pyc") / 1e6


def evaluate(place: Path, script: str) -> str:
    """Run a script in the environment and return its last line."""
    done = subprocess.run(
        [python(place), "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return json.dumps({"failed": done.stderr.strip().splitlines()[-1][:120]})
    return done.stdout.strip().splitlines()[-1]


def measure(name: str, work: Path) -> dict[str, object]:
    """Return one package's figures."""
    place = work / name
    prepare(name, place)
    version = f"from importlib.metadata import version; print(version({name!r}))"
    entry: dict[str, object] = {
        "package": name,
        "version": evaluate(place, version),
        "megabytes": megabytes(place, bytecode=False),
        "with_bytecode": megabytes(place, bytecode=True),
        "packages": evaluate(place, COUNT),
        "import": statistics.median(
            float(evaluate(place, TIMED.format(MODULES[name]))) for _ in range(5)
        ),
    }
    if name in PROBES:
        end = '\nprint(json.dumps({"leaked": leaked(read), "of": len(KEY), "reaction": reaction}))'
        entry |= json.loads(evaluate(place, SERVER + PROBES[name] + end))
    return entry


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where the environments go")
    work = parser.parse_args().work
    print("| package | MB (with bytecode) | packages | import s | leaked of a streamed key |")
    print("|---|---|---|---|---|")
    for name in MODULES:
        print(f"installing and measuring {name}", file=sys.stderr)
        entry = measure(name, work)
        leak = (
            f"{entry['leaked']} of {entry['of']} ({entry['reaction']})"
            if "leaked" in entry
            else "not run"
        )
        if "failed" in entry:
            leak = f"not run: {entry['failed']}"
        print(
            f"| {name} {entry['version']} | {entry['megabytes']:.0f} "
            f"({entry['with_bytecode']:.0f}) | {entry['packages']} "
            f"| {entry['import']:.2f} | {leak} |"
        )


if __name__ == "__main__":
    main()
