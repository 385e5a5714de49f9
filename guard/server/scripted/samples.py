"""One answer per format with every kind of thing that carries text, for systematic tests.

Each text is made by the caller's function from its channel's name, so that a test can tell which
channel let a text through.

This module does not know what the texts are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from guard.exchange import ToolCall
from guard.server.scripted import chat, messages, responses

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.server.scripted.formats import Json

    Say = Callable[[str], str]
    """From a channel's name to the text that stands there."""


def every_chat_choice(say: Say) -> Json:
    """Return `choices` of a chat completion with every channel of a message, vendors' included."""
    call = ToolCall("look_up", _object("query", say("tool_calls.arguments")))
    custom = {"name": "run", "input": say("tool_calls.input")}
    cited = {"start_index": 0, "end_index": 1, "url": "https://example.org/page"}
    said = chat.message(
        content=say("content"),
        refusal=say("refusal"),
        reasoning_content=say("reasoning_content"),
        reasoning=say("reasoning"),
        annotations=[
            {"type": "url_citation", "url_citation": cited | {"title": say("annotations.title")}}
        ],
        tool_calls=[
            chat.tool_call(call, "call_1"),
            {"id": "call_2", "type": "custom", "custom": custom},
        ],
    )
    legacy = chat.message(
        function_call={"name": "old", "arguments": _object("query", say("function_call"))}
    )
    spoken = chat.message(
        audio={"id": "audio_1", "data": "", "expires_at": 0, "transcript": say("audio.transcript")}
    )
    return {
        "choices": [
            chat.choice(0, said, "tool_calls"),
            chat.choice(1, legacy, "function_call"),
            chat.choice(2, spoken),
        ]
    }


def every_response_item(say: Say) -> Json:
    """Return `output` of a response with every item that carries text."""
    output = [*_said_items(say), *_called_items(say), *_server_items(say), *_result_items(say)]
    return {"output": output}


def _said_items(say: Say) -> list[Json]:
    citation = {"type": "url_citation", "start_index": 0, "end_index": 1}
    citation |= {"url": "https://example.org/page", "title": say("annotation.title")}
    return [
        responses.reasoning("rs_1", say("reasoning.content"), summary=[say("reasoning.summary")]),
        responses.message(
            "msg_1",
            responses.output_text(say("output_text"), annotations=[citation]),
            responses.refusal(say("refusal")),
        ),
    ]


def _called_items(say: Say) -> list[Json]:
    item = responses.item
    query = _object("query", say("function_call"))
    action = {"type": "exec", "command": [say("local_shell_call")], "env": {}}
    commands = {"commands": [say("shell_call.first"), say("shell_call.second")]}
    patch = {"type": "update_file", "path": "notes.txt", "diff": say("apply_patch_call")}
    asked = _object("query", say("mcp_approval_request"))
    return [
        item("function_call", "fc_1", call_id="call_1", name="look_up", arguments=query),
        # A custom tool call has no status.
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "run"}
        | {"input": say("custom_tool_call")},
        item("local_shell_call", "lsh_1", call_id="call_3", action=action),
        item("shell_call", "sh_1", call_id="call_4", action=commands),
        item("apply_patch_call", "ap_1", call_id="call_5", operation=patch),
        item("computer_call", "cu_1", call_id="call_6", pending_safety_checks=[])
        | {"action": {"type": "type", "text": say("computer_call")}},
        {"type": "program", "id": "prog_1", "call_id": "call_7", "fingerprint": "f1"}
        | {"code": say("program")},
        item("tool_search_call", "ts_1", execution="client")
        | {"arguments": {"query": say("tool_search_call")}},
        {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "notes", "name": "find"}
        | {"arguments": asked},
    ]


def _server_items(say: Say) -> list[Json]:
    item = responses.item
    printed = {"stdout": say("shell_call_output.stdout"), "stderr": say("shell_call_output.stderr")}
    tool = {"name": "find", "description": say("mcp_list_tools"), "input_schema": {}}
    hit = {"file_id": "file_1", "filename": "notes.txt", "score": 0.5, "attributes": {}}
    return [
        item(
            "mcp_call",
            "mcp_1",
            server_label="notes",
            name="find",
            arguments=_object("query", say("mcp_call.arguments")),
            output=say("mcp_call.output"),
        ),
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "notes", "tools": [tool]},
        item(
            "code_interpreter_call",
            "ci_1",
            container_id="cntr_1",
            code=say("code_interpreter_call.code"),
            outputs=[{"type": "logs", "logs": say("code_interpreter_call.logs")}],
        ),
        item(
            "shell_call_output",
            "sho_1",
            call_id="call_4",
            output=[printed | {"outcome": {"type": "exit", "exit_code": 0}}],
        ),
        item("web_search_call", "ws_1", action={"type": "search", "query": say("web_search_call")}),
        item(
            "file_search_call",
            "fs_1",
            queries=[say("file_search_call.query")],
            results=[hit | {"text": say("file_search_call.result")}],
        ),
        item(
            "image_generation_call",
            "ig_1",
            result="aW1hZ2U=",
            revised_prompt=say("image_generation_call"),
        ),
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "c2VhbGVk"},
    ]


def _result_items(say: Say) -> list[Json]:
    """Return what tools gave back, where the server ran them."""
    item = responses.item
    part = {"type": "input_text", "text": say("custom_tool_call_output")}
    return [
        item("function_call_output", "fco_1", call_id="call_1", output=say("function_call_output")),
        item("custom_tool_call_output", "cto_1", call_id="call_2", output=[part]),
        item("local_shell_call_output", "lso_1", output=say("local_shell_call_output")),
        item("program_output", "po_1", call_id="call_7", result=say("program_output")),
        item("apply_patch_call_output", "apo_1", call_id="call_5")
        | {"output": say("apply_patch_call_output")},
    ]


def every_message_block(say: Say) -> Json:
    """Return `content` of an Anthropic message with every block that carries text."""
    cited = {"type": "char_location", "document_index": 0, "document_title": say("citation.title")}
    cited |= {"start_char_index": 0, "end_char_index": 1, "cited_text": say("citation.text")}
    hit = {"type": "web_search_result", "url": "https://example.org/page", "page_age": None}
    hit |= {"title": say("web_search_tool_result"), "encrypted_content": "c2VhbGVk"}
    searched = {"query": say("server_tool_use")}
    return {
        "content": [
            messages.thinking(say("thinking")),
            {"type": "redacted_thinking", "data": "c2VhbGVk"},
            messages.text(say("text")),
            messages.tool_use("srvtoolu_1", "web_search", searched, "server_tool_use"),
            _result("web_search", [hit]),
            _result("web_fetch", _fetched(say("web_fetch_tool_result"))),
            _result("code_execution", _printed("code_execution", say)),
            _result("bash_code_execution", _printed("bash_code_execution", say)),
            _result("text_editor_code_execution", _viewed(say("text_editor_tool_result"))),
            messages.text(say("text with citations"), citations=[cited]),
            messages.tool_use("toolu_1", "look_up", {"query": say("tool_use")}),
        ],
        "stop_reason": "tool_use",
    }


def _result(tool: str, content: object) -> Json:
    kind = f"{tool}_tool_result"
    return {"type": kind, "tool_use_id": "srvtoolu_1", "content": content}


def _fetched(text: str) -> Json:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    document = {"type": "document", "source": source, "title": None, "citations": None}
    found = {"url": "https://example.org/page", "retrieved_at": None}
    return {"type": "web_fetch_result", "content": document} | found


def _printed(tool: str, say: Say) -> Json:
    printed = {"stdout": say(f"{tool}.stdout"), "stderr": say(f"{tool}.stderr")}
    return {"type": f"{tool}_result", "content": [], "return_code": 0} | printed


def _viewed(text: str) -> Json:
    seen = {"type": "text_editor_code_execution_view_result", "file_type": "text"}
    return seen | {"content": text, "start_line": 1, "num_lines": 1, "total_lines": 1}


def _object(key: str, value: str) -> str:
    """Return the JSON text of an object of one string."""
    return json.dumps({key: value}, ensure_ascii=False)
