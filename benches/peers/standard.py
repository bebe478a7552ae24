"""What one would write with FastAPI and the library of Standard Webhooks: verify, and answer."""

import os

from fastapi import FastAPI, Request, Response
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

app = FastAPI()
webhook = Webhook(os.environ["PEER_SECRET"])


@app.post("/v1/h/{token}")
async def receive(token: str, request: Request) -> Response:
    body = await request.body()
    try:
        webhook.verify(body, dict(request.headers))
    except WebhookVerificationError:
        return Response(status_code=401)
    return Response(status_code=204)
