"""The receiver of the tutorial, in our words: HMAC in hex over the raw body, answers in JSON.

Left out is what it does with an accepted event (a blocking call of the API, which it does for each): with it there is
nothing to compare.
"""

import hashlib
import hmac
import json
import os

from fastapi import FastAPI, HTTPException, Request

app = FastAPI()
secret = os.environ["PEER_SECRET"].encode()


@app.post("/v1/h/{token}")
async def receive(token: str, request: Request) -> dict:
    body = await request.body()
    expected = hmac.new(secret, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("X-Goog-Signature", "")):
        raise HTTPException(status_code=401, detail="Invalid signature")
    event = json.loads(body)
    return {"status": "received", "eventType": event.get("type")}
