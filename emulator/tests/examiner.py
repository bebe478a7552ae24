"""Google's own SDK (google-genai==3.4.0, unmodified) and standardwebhooks as judges of the emulator.

Usage: examiner.py URL. Every method that the recorded traces cover is called on v1 and on v1beta.
The emulator needs: --api-key TEST_API_KEY=one --api-key EMPTY=two --allow-http-webhooks, a job time above zero.
"""

import base64
import hashlib
import http.server
import importlib.metadata
import io
import json
import sys
import threading
import time
import urllib.request

from google import genai
from google.genai import errors, types
from google.genai._gaos.lib import compat_errors as webhook_errors
from standardwebhooks import Webhook

URL = sys.argv[1]
MODEL = "gemini-3.8-flash"
EVENTS = ["batch.succeeded", "batch.failed", "batch.expired"]


def admin(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/_emulator/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def until(what, look, seconds=30):
    """Looks again and again until there is something."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def raises(wanted, status, call):
    try:
        call()
    except wanted as error:
        code = getattr(error, "code", None) or getattr(error, "status_code", None)
        assert code == status, f"{code} instead of {status}: {error}"
        return error
    raise AssertionError(f"{wanted} with {status} did not come")


class Receiver(http.server.BaseHTTPRequestHandler):
    """An endpoint that keeps every delivery."""

    got = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Receiver.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def delivered(path, kind, name=None):
    """The delivery of one kind (and one job) to a path, once it is there."""

    def look():
        for at, headers, body in list(Receiver.got):
            event = json.loads(body)
            if at == path and event["type"] == kind and (name is None or event["data"]["id"] == name):
                return headers, body
        return None

    return until(f"{kind} at {path}", look)


def answer_text(request):
    """The emulator's answer function, written a second time from its description."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    prompt = "\n".join(part["text"] for content in request["contents"] for part in content["parts"])
    return f"echo {digest}: {prompt[:60]}"


def ask(prompt):
    return {"contents": [{"parts": [{"text": prompt}]}]}


def jsonl(prompts):
    rows = [{"key": f"k{index}", "request": ask(prompt)} for index, prompt in enumerate(prompts)]
    return "\n".join(json.dumps(row) for row in rows).encode()


class Examiner:
    def __init__(self, version):
        self.version = version
        self.options = {"base_url": URL}
        # Kept: a client that is forgotten closes its connections under the pagers that it made.
        self.clients = {}
        self.client = self.client_for("TEST_API_KEY")

    def client_for(self, key):
        if key not in self.clients:
            http_options = types.HttpOptions(base_url=URL, api_version=self.version)
            self.clients[key] = genai.Client(api_key=key, http_options=http_options)
        return self.clients[key]

    def upload(self, content, **config):
        config = {"mime_type": "application/jsonl", "http_options": self.options, **config}
        return self.client.files.upload(file=io.BytesIO(content), config=config)

    def ended(self, job):
        return until(f"{job.name} ends", lambda: (j := self.client.batches.get(name=job.name)).done and j)

    def files(self):
        files = self.client.files
        small = self.upload(jsonl(["Capital of France?"]), display_name="input.jsonl")
        assert small.name.startswith("files/") and small.display_name == "input.jsonl"
        assert small.state == types.FileState.ACTIVE and small.source == types.FileSource.UPLOADED
        assert small.expiration_time - small.create_time > small.expiration_time.resolution
        assert self.upload(b"").size_bytes == 0
        for size in (8 * 1024 * 1024, 19 * 1024 * 1024 + 5):
            content = b"x" * size
            big = self.upload(content)
            assert big.size_bytes == size
            assert base64.b64decode(big.sha256_hash).decode() == hashlib.sha256(content).hexdigest()
            files.delete(name=big.name)
        name = f"files/my-batch-input-{self.version}"
        named = self.upload(jsonl(["a"]), name=name, mime_type="jsonl")
        assert (named.name, named.mime_type) == (name, "jsonl")
        raises(errors.ClientError, 409, lambda: self.upload(jsonl(["a"]), name=name))
        assert files.get(name=name) == named
        timed = files.get(name=name, config={"http_options": {"timeout": 5000}})
        assert timed.name == name
        listed = [file.name for file in files.list(config={"page_size": 1})]
        assert name in listed and len(listed) == len(set(listed)) >= 3
        assert not list(self.client_for("EMPTY").files.list())
        files.delete(name=name)
        error = raises(errors.ClientError, 403, lambda: files.get(name="none"))
        assert error.status == "PERMISSION_DENIED"
        # A chunk whose answer says nothing is sent again by the SDK.
        rule = {"match": {"call": "files.upload_chunk"}, "do": {"status": 503}, "times": 1}
        admin("PUT", "faults", {"rules": [rule]})
        assert self.upload(b"{}").size_bytes == 2
        admin("DELETE", "faults")

    def models(self):
        model = self.client.models.get(model=MODEL)
        assert "batchGenerateContent" in model.supported_actions and model.input_token_limit > 0
        assert MODEL in {model.name.removeprefix("models/") for model in self.client.models.list()}
        assert self.client.models.count_tokens(model=MODEL, contents="hello").total_tokens > 0
        raises(errors.ClientError, 404, lambda: self.client.models.get(model="gemini-none"))

    def file_batches(self):
        batches = self.client.batches
        prompts = ["Capital of France?", "ünï", "[[emulate:error:13]]"]
        file = self.upload(jsonl(prompts))
        job = batches.create(model=MODEL, src=file.name, config={"display_name": "file-1"})
        assert job.state == types.JobState.JOB_STATE_PENDING and not job.done
        assert job.model == f"models/{MODEL}" and job.display_name == "file-1"
        until("it runs", lambda: batches.get(name=job.name).state != types.JobState.JOB_STATE_PENDING)
        done = self.ended(job)
        assert done.state == types.JobState.JOB_STATE_SUCCEEDED and done.end_time > done.create_time
        generated = self.client.files.get(name=done.dest.file_name)
        assert generated.source == types.FileSource.GENERATED and generated.download_uri
        rows = [json.loads(line) for line in self.client.files.download(file=done.dest.file_name).splitlines()]
        assert [row["key"] for row in rows] == ["k0", "k1", "k2"]
        for row, prompt in zip(rows[:2], prompts):
            response = types.GenerateContentResponse.model_validate(row["response"])
            assert response.text == answer_text(ask(prompt)), response.text
        assert rows[2]["error"] == {"code": 13, "message": "Internal error encountered."}
        extra = types.HttpOptions(extra_body={"batch": {"priority": "5"}})
        config = types.CreateBatchJobConfig(display_name="p", http_options=extra)
        assert self.ended(batches.create(model=MODEL, src=file.name, config=config)).done
        raises(errors.ClientError, 403, lambda: batches.create(model=MODEL, src="files/none"))

    def inline_batches(self):
        batches = self.client.batches
        full = types.InlinedRequest(
            contents=[{"parts": [{"text": "Tell a joke"}]}],
            metadata={"key": "request-2"},
            config=types.GenerateContentConfig(
                system_instruction="You are a cat.", temperature=0.2, tools=[{"google_search": {}}]
            ),
        )
        model = types.InlinedRequest(model=MODEL, contents="hi")
        src = [{"contents": [{"parts": [{"text": "a"}], "role": "user"}], "metadata": {"key": "r1"}}, full, model]
        done = self.ended(batches.create(model=MODEL, src=src))
        responses = done.dest.inlined_responses
        assert [row.metadata for row in responses] == [{"key": "r1"}, {"key": "request-2"}, None]
        assert all(row.response.text.startswith("echo ") for row in responses)
        assert responses[0].response.usage_metadata.total_token_count > 0
        config = types.EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT", output_dimensionality=256)
        texts = types.EmbedContentBatch(contents=["hello", "world"], config=config)
        embedding = batches.create_embeddings(
            model="gemini-embedding-2", src={"inlined_requests": texts}, config={"display_name": "emb-1"}
        )
        rows = self.ended(embedding).dest.inlined_embed_content_responses
        assert [len(row.response.embedding.values) for row in rows] == [256, 256]
        row = {"key": "e", "request": {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 4}}
        file = self.upload(json.dumps(row).encode())
        job = batches.create_embeddings(model="gemini-embedding-2", src={"file_name": file.name})
        line = json.loads(self.client.files.download(file=self.ended(job).dest.file_name))
        assert line["key"] == "e" and len(line["response"]["embedding"]["values"]) == 4

    def ends(self):
        batches = self.client.batches
        plan = [
            {"match": {"display_name_contains": "held"}, "do": {"hold": "pending"}},
            {"match": {"display_name_contains": "fail"}, "do": {"state": "FAILED", "error": {"code": 3}}},
            {"match": {"display_name_contains": "expire"}, "do": {"state": "EXPIRED"}},
        ]
        admin("PUT", "faults", {"jobs": plan})
        src = [{"contents": "hi"}]
        make = lambda name: batches.create(model=MODEL, src=src, config={"display_name": name})
        held = make("held")
        assert batches.cancel(name=held.name) is None
        assert self.ended(held).state == types.JobState.JOB_STATE_CANCELLED
        raises(errors.ClientError, 400, lambda: batches.cancel(name=held.name))
        assert self.ended(make("fail")).state == types.JobState.JOB_STATE_FAILED
        assert self.ended(make("expire")).state == types.JobState.JOB_STATE_EXPIRED
        pages = [job.name for job in batches.list(config={"page_size": 1})]
        assert held.name in pages and len(pages) == len(set(pages)) >= 3
        assert not list(self.client_for("EMPTY").batches.list())
        batches.delete(name=held.name)
        raises(errors.ClientError, 404, lambda: batches.get(name=held.name))
        for status, kind in ((429, errors.ClientError), (503, errors.ServerError)):
            rule = {"match": {"call": "batches.create"}, "do": {"status": status}, "times": 1}
            admin("PUT", "faults", {"rules": [rule]})
            raises(kind, status, lambda: make("fault"))
        admin("DELETE", "faults")

    def webhooks(self, endpoint):
        hooks = self.client.webhooks
        path = f"/{self.version}/static"
        hook = hooks.create(uri=endpoint + path, subscribed_events=EVENTS, name="my-hook")
        assert hook.new_signing_secret.startswith("whsec_") and hook.state == "enabled"
        got = hooks.get(hook.id)
        assert got.new_signing_secret is None and got.name == "my-hook" and got.subscribed_events == EVENTS
        minimal = hooks.create(uri="https://hooks.example.com/gemini", subscribed_events=["batch.succeeded"])
        first = hooks.list(page_size=1)
        assert len(first.webhooks) == 1 and first.next_page_token
        second = hooks.list(page_size=1, page_token=first.next_page_token)
        assert second.webhooks[0].id != first.webhooks[0].id
        assert not self.client_for("EMPTY").webhooks.list().webhooks
        changed = hooks.update(
            minimal.id,
            uri="https://hooks.example.com/new",
            subscribed_events=["batch.succeeded"],
            name="renamed",
            state="enabled",
            update_mask="uri,subscribed_events,name,state",
        )
        assert (changed.name, changed.uri) == ("renamed", "https://hooks.example.com/new")
        assert hooks.update(minimal.id, state="disabled").state == "disabled"

        hooks.ping(hook.id)
        headers, body = delivered(path, "ping")
        assert Webhook(hook.new_signing_secret).verify(body, headers)["type"] == "ping"
        later = hooks.rotate_signing_secret(hook.id, revocation_behavior="revoke_previous_secrets_after_h24")
        assert hooks.rotate_signing_secret(minimal.id).secret != later.secret
        job = self.client.batches.create(model=MODEL, src=[{"contents": "hi"}])
        headers, body = delivered(path, "batch.succeeded", job.name)
        for secret in (hook.new_signing_secret, later.secret):
            assert Webhook(secret).verify(body, headers)["data"]["id"] == job.name
        hooks.rotate_signing_secret(hook.id, revocation_behavior="revoke_previous_secrets_immediately")
        self.refused_webhooks()
        for one in (hook, minimal):
            hooks.delete(one.id)
            raises(webhook_errors.NotFoundError, 404, lambda: hooks.get(one.id))

    def refused_webhooks(self):
        hooks = self.client.webhooks
        uri = "https://h.example.com"
        for event in ("batch.cancelled", "batch.completed"):
            raises(
                webhook_errors.BadRequestError, 400, lambda: hooks.create(uri=uri, subscribed_events=[event])
            )
        raises(webhook_errors.NotFoundError, 404, lambda: hooks.get("webhooks/prefixed"))
        raises(webhook_errors.BadRequestError, 400, lambda: self.client_for("wrong").webhooks.get("nope"))
        error = raises(errors.ClientError, 400, lambda: self.client_for("wrong").files.get(name="none"))
        assert error.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
        # The SDK sends a create again after a 5xx that was executed: two webhooks, one secret lost.
        before = len(hooks.list().webhooks or [])
        rule = {"match": {"call": "webhooks.create"}, "do": {"status": 503, "executed": True}, "times": 1}
        admin("PUT", "faults", {"rules": [rule]})
        hooks.create(uri=uri, subscribed_events=["batch.failed"])
        admin("DELETE", "faults")
        twins = hooks.list().webhooks
        assert len(twins) == before + 2
        for twin in twins:
            if twin.uri == uri:
                hooks.delete(twin.id)

    def dynamic(self, endpoint):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        path = f"/{self.version}/dynamic"
        file = self.upload(jsonl(["a"]))
        hook = types.WebhookConfig(uris=[endpoint + path], user_metadata={"crd_uid": "8d2f", "nested": {"a": 1}})
        config = types.CreateBatchJobConfig(display_name="wh-1", webhook_config=hook)
        job = self.client.batches.create(model=MODEL, src=file.name, config=config)
        headers, body = delivered(path, "batch.succeeded", job.name)
        assert json.loads(body)["user_metadata"] == {"crd_uid": "8d2f", "nested": {"a": 1}}
        with urllib.request.urlopen(f"{URL}/.well-known/jwks.json", timeout=30) as answer:
            keys = json.load(answer)["keys"]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1a,"), validate=True)
        good = 0
        for key in keys:
            public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
            try:
                public.verify(signature, signed)
                good += 1
            except Exception:
                pass
        assert good == 1, f"{good} of {len(keys)} keys made the signature"


def main():
    assert importlib.metadata.version("google-genai") == "3.4.0"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for version in ("v1", "v1beta"):
        examiner = Examiner(version)
        examiner.files()
        examiner.models()
        examiner.file_batches()
        examiner.inline_batches()
        examiner.ends()
        examiner.webhooks(endpoint)
        examiner.dynamic(endpoint)
    print("examiner: all good")


main()
