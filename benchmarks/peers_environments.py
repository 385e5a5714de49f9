"""The environments of `benchmarks/peers.py`: made, filled from PyPI, weighed.

An environment that is there is used again; what was found when it was made is kept beside it.
What the probes themselves need lies in a folder of its own (`extras`), behind an environment's
packages, so that nothing is weighed that the package did not bring.

This module does not know what is measured inside an environment.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
PROBES: Final = Path(__file__).parent / "peers_probes"

TORCH: Final = "torch==2.13.0"
"""Installed first where a package pulls it, without CUDA's libraries where pip is set up so."""

EXTRAS: Final = ("onnxruntime", "tokenizers", "numpy", "openai")
"""What the probes need: the classifier's runtime, and a client."""

OFFLINE: Final = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
}
"""Nothing is fetched or reported at runtime, so that no package waits for a network."""

GUARDRAILS_AI: Final = "id=benchmark\nenable_metrics=false\nuse_remote_inferencing=false\n"
"""That package's own file against telemetry."""

FACTS: Final = """
import importlib.metadata, json
names = {each.name for each in importlib.metadata.distributions()}
print(json.dumps([importlib.metadata.version(%r), len(names - {"pip", "setuptools", "wheel"})]))
"""

TIMED: Final = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
"""Prints CPU seconds: on a shared machine they say more than what a clock shows."""


@dataclass(frozen=True)
class Peer:
    """A package.

    Attributes:
        name: on PyPI.
        module: whose import is timed.
        probe: the module of `peers_probes` that measures it.
        wanted: what pip installs, the name by default.
        first: what pip installs before it.
    """

    name: str
    module: str
    probe: str
    wanted: str = ""
    first: tuple[str, ...] = ()


PEERS: Final = (
    Peer("clearance-guard", "guard", "for_clearance", f"{ROOT}[openai]"),
    Peer("openai-guardrails", "guardrails", "for_openai_guardrails"),
    Peer("nemoguardrails", "nemoguardrails", "for_nemo"),
    Peer("guardrails-ai", "guardrails", "for_guardrails_ai"),
    Peer("litellm", "litellm", "for_litellm", "litellm[proxy]"),
    Peer("llm-guard", "llm_guard", "for_llm_guard", "llm-guard[onnxruntime]", (TORCH,)),
)


def python(place: Path) -> str:
    """Return an environment's interpreter."""
    return str(place / ("Scripts" if os.name == "nt" else "bin") / "python")


def pip(place: Path, *wanted: str) -> str:
    """Install into an environment; return why it could not be done, `""` where it was."""
    done = subprocess.run(
        [python(place), "-m", "pip", "install", "-q", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    return reason(done.stderr) if done.returncode else ""


def reason(stderr: str) -> str:
    """Return the last thing that a failed process called an error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["no message"]
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])[:200]


def ready(peer: Peer, work: Path) -> str:
    """Make a package's environment, unless it is there; return why it could not be done."""
    place = work / peer.name
    if (place / "made.json").exists():
        return str(json.loads((place / "made.json").read_text("utf-8"))["failed"])
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    failed = pip(place, *peer.first) if peer.first else ""
    failed = failed or pip(place, *peer.first, peer.wanted or peer.name)
    (place / "made.json").write_text(json.dumps({"failed": failed}), "utf-8")
    return failed


def shared(work: Path) -> None:
    """Lay out what all probes share: their code, their packages, a home of their own."""
    shutil.copytree(PROBES, work / "probes" / PROBES.name, dirs_exist_ok=True)
    home = work / "home"
    home.mkdir(exist_ok=True)
    (home / ".guardrailsrc").write_text(GUARDRAILS_AI, "utf-8")
    if not (work / "extras").exists():
        target = ["--target", str(work / "extras"), *EXTRAS]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *target], check=True)


def environment(work: Path) -> dict[str, str]:
    """Return the variables of a process in an environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    paths = {"HOME": str(work / "home"), "PYTHONPATH": str(work / "probes")}
    return kept | OFFLINE | paths


def evaluate(peer: Peer, work: Path, script: str) -> Any:
    """Run a script in a package's environment and return the JSON of its last line."""
    done = subprocess.run(
        [python(work / peer.name), "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment(work),
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def megabytes(place: Path, *, bytecode: bool) -> float:
    """Return the size of the installed packages without pip, with or without `__pycache__`."""
    (packages,) = place.glob("lib/*/site-packages")
    own = ("pip", "setuptools", "wheel")
    files = (f for f in packages.rglob("*") if f.is_file() and not f.is_symlink())
    counted = (f for f in files if not f.relative_to(packages).parts[0].startswith(own))
    return sum(f.stat().st_size for f in counted if bytecode or f.suffix != ".pyc") / 1e6


def weighed(peer: Peer, work: Path, imports: int) -> dict[str, Any]:
    """Return a package's version, size, number of packages and CPU seconds of import."""
    place = work / peer.name
    version, packages = evaluate(peer, work, FACTS % peer.name)
    times = [evaluate(peer, work, TIMED.format(peer.module)) for _ in range(imports + 1)]
    return {
        "version": version,
        "packages": packages,
        "megabytes": megabytes(place, bytecode=False),
        "with_bytecode": megabytes(place, bytecode=True),
        "import": statistics.median(times[1:]),  # the first writes bytecode and fills caches
    }


def probe(peer: Peer, work: Path, url: str, model: Path, rounds: int) -> dict[str, Any]:
    """Run a package's probe; return the figures of its ways, or why there are none."""
    place = work / "places" / peer.name
    place.mkdir(parents=True, exist_ok=True)
    given = {"url": url, "model": model, "place": place, "extras": work / "extras"}
    options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    command = [python(work / peer.name), "-W", "ignore", "-m", f"{PROBES.name}.{peer.probe}"]
    done = subprocess.run(
        [*command, *options, "--rounds", str(rounds)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(work),
        cwd=place,
    )
    if done.returncode:
        return {"failed": reason(done.stderr), "ways": []}
    return {"failed": "", "ways": json.loads(done.stdout.strip().splitlines()[-1])}
