#!/bin/sh
# Runs the tests of the LangChain adapter with the lowest versions of its range, in a new venv.
#
#     sh tests/adapters/langchain/versions.sh [DIRECTORY] [PYTEST OPTIONS]
#
# The newest versions are what CI installs. `LOWEST` may name other versions to try.
set -eu
cd "$(dirname "$0")/../../.."
venv=${1:-/tmp/clearance-langchain-lowest}
[ $# -gt 0 ] && shift
lowest=${LOWEST:-"langchain-core==1.6.0 langchain==1.4.0"}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# shellcheck disable=SC2086  # several requirements
"$venv/bin/pip" install -q -e ".[test]" $lowest langchain-openai langchain-tests \
    langgraph-checkpoint-sqlite openai anthropic httpx2
"$venv/bin/pip" list 2>/dev/null | grep -i -E "^(langchain|langgraph|openai)"
# The page and the snapshots are those of the newest versions.
exec "$venv/bin/python" -m pytest tests/adapters/langchain -q \
    --deselect tests/adapters/langchain/test_leaks.py::test_the_page_is_current "$@"
