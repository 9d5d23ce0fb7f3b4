#!/usr/bin/env python3
"""Stands in for every service that the agents contact: mock.py CERTIFICATE KEY COMMAND LOG

Listens on 443 (TLS, one certificate for all) and 80 of every address. Speaks as much of four APIs (Anthropic's
Messages, OpenAI's Responses and Chat Completions, Gemini's generateContent) as it takes for an agent to run one shell
COMMAND and then to end. Everything else gets an empty JSON object. LOG gets a line a request: its host and its path.
"""
import gzip
import json
import ssl
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from urllib.parse import urlsplit

CERTIFICATE, KEY, COMMAND, LOG = sys.argv[1:5]
SHELLS = ("bash", "shell", "exec_command", "shell_command", "local_shell", "run_shell_command", "execute_command",
          "terminal", "exec")
DONE = "Done."


def arguments(name, schema):
    """What a shell tool of this schema is called with."""
    schema = schema or {}
    properties = schema.get("properties") or {}
    given = {}
    for key in schema.get("required") or []:
        kind = (properties.get(key) or {}).get("type")
        given[key] = {"number": 30, "integer": 30, "boolean": False, "array": []}.get(kind, "run a command")
        choices = (properties.get(key) or {}).get("enum")
        if choices:
            given[key] = choices[0]
    for key in ("command", "cmd", "script"):
        if key in properties:
            is_list = properties[key].get("type") == "array"
            given[key] = ["bash", "-lc", COMMAND] if is_list else COMMAND
            return given
    given["command"] = COMMAND
    return given


def call(tools, is_done):
    """Name and arguments of the call to be made: of the first tool that is a shell."""
    if is_done:
        return None
    by_name = {name.lower(): (name, schema) for name, schema in tools}
    for shell in SHELLS:
        if shell in by_name:
            name, schema = by_name[shell]
            return name, arguments(name, schema)
    return None


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, value, code=200):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, events, named=False, end=None):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
        if end:
            self.wfile.write(f"data: {end}\n\n".encode())
        self.close_connection = True

    def asked(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        coding = self.headers.get("Content-Encoding")
        if coding == "gzip":
            body = gzip.decompress(body)
        elif coding == "deflate":
            body = zlib.decompress(body)
        try:
            value = json.loads(body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def answer(self):
        asked = self.asked()
        path = urlsplit(self.path).path
        with open(LOG, "a") as log:
            print(self.headers.get("Host", ""), path, file=log)
        if self.headers.get("Upgrade"):
            self.reply({}, 426)
        elif path.endswith("/messages"):
            self.speak_messages(asked)
        elif path.endswith("/responses"):
            self.speak_responses(asked)
        elif path.endswith("/chat/completions"):
            self.speak_completions(asked)
        elif "enerateContent" in path:
            self.speak_gemini(asked, "stream" in path)
        elif path.endswith("/models"):
            self.reply({"object": "list", "data": [], "models": []})
        else:
            self.reply({})

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_PATCH = do_DELETE = answer

    def speak_messages(self, asked):
        tools = [(tool.get("name", ""), tool.get("input_schema")) for tool in asked.get("tools") or []]
        made = call(tools, '"tool_result"' in json.dumps(asked.get("messages", [])))
        usage = {"input_tokens": 1, "output_tokens": 1}
        if made:
            block = {"type": "tool_use", "id": "toolu_1", "name": made[0], "input": made[1]}
        else:
            block = {"type": "text", "text": DONE}
        why = "tool_use" if made else "end_turn"
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked.get("model", ""),
                   "content": [block], "stop_reason": why, "stop_sequence": None, "usage": usage}
        if not asked.get("stream"):
            self.reply(message)
            return
        if made:
            begun = dict(block, input={})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(made[1])}
        else:
            begun = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": DONE}
        self.stream([
            {"type": "message_start", "message": dict(message, content=[], stop_reason=None)},
            {"type": "content_block_start", "index": 0, "content_block": begun},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": why, "stop_sequence": None}, "usage": usage},
            {"type": "message_stop"},
        ], named=True)

    def speak_responses(self, asked):
        given = asked.get("input")
        given = given if isinstance(given, list) else []
        offered = list(asked.get("tools") or [])
        for item in given:
            offered += item.get("tools") or []
        for tool in list(offered):
            offered += tool.get("tools") or []
        is_done = any(str(item.get("type")).endswith("_call_output") for item in given)
        tools = [(tool.get("name") or tool.get("type") or "", tool.get("parameters")) for tool in offered]
        made = call(tools, is_done)
        custom = made and any(tool.get("type") == "custom" and tool.get("name") == made[0] for tool in offered)
        if custom:
            script = "text(JSON.stringify(await tools.exec_command({cmd: %s, yield_time_ms: 20000})))" % json.dumps(COMMAND)
            item = {"type": "custom_tool_call", "id": "c_1", "call_id": "call_1", "name": made[0], "input": script,
                    "status": "completed"}
        elif made:
            item = {"type": "function_call", "id": "f_1", "call_id": "call_1", "name": made[0],
                    "arguments": json.dumps(made[1]), "status": "completed"}
        else:
            item = {"type": "message", "id": "m_1", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": DONE, "annotations": []}]}
        usage = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}
        begun = {"id": "resp_1", "object": "response", "created_at": 1, "status": "in_progress",
                 "model": asked.get("model", ""), "output": [], "usage": None}
        ended = dict(begun, status="completed", output=[item], usage=usage)
        if not asked.get("stream"):
            self.reply(ended)
            return
        events = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": ended},
        ]
        self.stream([dict(event, sequence_number=number) for number, event in enumerate(events)], named=True)

    def speak_completions(self, asked):
        functions = [tool.get("function") or {} for tool in asked.get("tools") or []]
        tools = [(function.get("name", ""), function.get("parameters")) for function in functions]
        made = call(tools, any(message.get("role") == "tool" for message in asked.get("messages") or []))
        message = {"role": "assistant", "content": None if made else DONE}
        if made:
            message["tool_calls"] = [{"index": 0, "id": "call_1", "type": "function",
                                      "function": {"name": made[0], "arguments": json.dumps(made[1])}}]
        why = "tool_calls" if made else "stop"
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        base = {"id": "chat_1", "created": 1, "model": asked.get("model", "")}
        if not asked.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": why}
            self.reply(dict(base, object="chat.completion", choices=[choice], usage=usage))
            return
        chunk = dict(base, object="chat.completion.chunk")
        self.stream([
            dict(chunk, choices=[{"index": 0, "delta": message, "finish_reason": None}]),
            dict(chunk, choices=[{"index": 0, "delta": {}, "finish_reason": why}]),
            dict(chunk, choices=[], usage=usage),
        ], end="[DONE]")

    def speak_gemini(self, asked, is_stream):
        request = asked.get("request", asked)
        declared = [one for tool in request.get("tools") or [] for one in tool.get("functionDeclarations") or []]
        tools = [(one.get("name", ""), one.get("parametersJsonSchema") or one.get("parameters")) for one in declared]
        made = call(tools, "functionResponse" in json.dumps(request.get("contents", [])))
        if made:
            part = {"functionCall": {"name": made[0], "args": made[1]}}
        elif (request.get("generationConfig") or {}).get("responseMimeType") == "application/json":
            part = {"text": json.dumps({"reasoning": "", "model_choice": "flash", "complexity_score": 1})}
        else:
            part = {"text": DONE}
        answer = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
                  "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}}
        if request is not asked:
            answer = {"response": answer}
        if is_stream:
            self.stream([answer])
        else:
            self.reply(answer)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = AF_INET6
    request_queue_size = 128
    context = None

    def finish_request(self, request, client):
        # In the thread of the connection: a client that says nothing holds nobody up.
        if self.context:
            request.settimeout(60)
            request = self.context.wrap_socket(request, server_side=True)
        self.RequestHandlerClass(request, client, self)

    def handle_error(self, request, client):
        pass


secure = Server(("::", 443), Service)
secure.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
secure.context.load_cert_chain(CERTIFICATE, KEY)
threading.Thread(target=secure.serve_forever, daemon=True).start()
plain = Server(("::", 80), Service)
print("ready", flush=True)
plain.serve_forever()
