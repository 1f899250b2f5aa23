"""A stand-in for a vLLM server: the part of its API that soft tokens take, computed by Hugging Face's own class."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jinja2
import torch

PLACEHOLDER = "<prompt_embeds>"


class FakeVllm:
    """What the server computes, and how it fails.

    Attributes:
        model: Hugging Face's own class.
        tokenizer: in which the placeholder is one token.
        faults: callables from a handler to whether they answered in place of the server; each is used once.
        bodies: of the requests for completions.
    """

    def __init__(self, model, tokenizer, root="the-model", key=None):
        self.model, self.tokenizer, self.root, self.key = model, tokenizer, str(root), key
        self.placeholder = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        self.faults, self.bodies, self.lock = [], [], threading.Lock()
        self.most, self.now = 0, 0

    def answer(self, body):
        parts = body["messages"][0]["content"]
        texts = [PLACEHOLDER if part["type"] == "prompt_embeds" else part["text"] for part in parts]
        # A template sees the parts, and nothing else decides what is read.
        shown = [dict(role="user", content=[dict(type="text", text=text) for text in texts])]
        prompt = jinja2.Template(body["chat_template"]).render(messages=shown)
        ids = self.tokenizer(prompt, add_special_tokens=body["add_special_tokens"])["input_ids"]
        rows = self.model.get_input_embeddings()(torch.tensor(ids))
        soft = [self._tensor(part["data"]) for part in parts if part["type"] == "prompt_embeds"]
        where = [i for i, token in enumerate(ids) if token == self.placeholder]
        rows[where] = torch.cat(soft)
        choices = [self._choice(body, rows, i) for i in range(body.get("n", 1))]
        out = dict(choices=choices, prompt_token_ids=ids)
        if "prompt_logprobs" in body:
            log_probs = self.model(inputs_embeds=rows[None]).logits[0].float().log_softmax(-1)
            at = [{str(token): dict(logprob=log_probs[i, token].item())} for i, token in enumerate(ids[1:])]
            out["prompt_logprobs"] = [None, *at]
        return out

    def _choice(self, body, rows, index):
        generator = torch.Generator().manual_seed(body.get("seed", 0) + index)
        ids, log_probs = [], []
        while len(ids) < body["max_tokens"]:
            said = self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long))
            logits = self.model(inputs_embeds=torch.cat([rows, said])[None]).logits[0, -1].float()
            if body["temperature"]:
                token = int((logits / body["temperature"]).softmax(-1).multinomial(1, generator=generator))
            else:
                token = int(logits.argmax())
            ids.append(token)
            log_probs.append(logits.log_softmax(-1)[token].item())
            text = self.tokenizer.decode(ids)
            if token in body.get("stop_token_ids", []) or any(stop in text for stop in body.get("stop") or []):
                break
        content = [dict(token="", logprob=value) for value in log_probs]
        return dict(index=index, token_ids=ids, logprobs=dict(content=content) if body.get("logprobs") else None)

    @staticmethod
    def _tensor(data):
        return torch.load(io.BytesIO(base64.b64decode(data)), weights_only=True)


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            models = dict(data=[dict(id="served", root=server.root, max_model_len=256)])
            self.reply(models if self.path == "/v1/models" else dict(version="0.32.0"))

        @torch.no_grad()
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with server.lock:
                server.bodies.append(body)
                server.now += 1
                server.most = max(server.most, server.now)
                fault = server.faults.pop(0) if server.faults else None
            try:
                if server.key and self.headers.get("authorization") != f"Bearer {server.key}":
                    self.reply(dict(error="Unauthorized"), 401)
                elif not (fault and fault(self)):
                    self.reply(server.answer(body))
            finally:
                with server.lock:
                    server.now -= 1

        def reply(self, data, status=200):
            text = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    return Handler


def status(code, text="a fault"):
    """A fault: an answer with this status."""
    return lambda handler: handler.reply(dict(error=text), code) or True


def garbage(text=b"not json"):
    """A fault: an answer that is none."""
    return lambda handler: handler.reply(text) or True


def hangs(seconds):
    """A fault: nothing for so long, and then the answer."""
    return lambda _: time.sleep(seconds)


def dies(handler):
    """A fault: the connection ends."""
    handler.close_connection = True
    handler.connection.close()
    return True


@contextmanager
def running(server):
    """The address of the server, while it runs."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
