"""Judges deliveries by standardwebhooks, as a handler of a web framework would call it: one JSON line in, one word out.

In: {"secret": text, "headers": [[name, hex], ...], "body": hex}. Out: accepted, refused, or the name of an exception that
is no verdict of the library, which a web framework answers with 500.
"""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def judge(delivery):
    # Frameworks decode headers as Latin-1 and strip the white space round them; a dict keeps the last of several.
    headers = {name: bytes.fromhex(value).decode("latin-1").strip(" \t") for name, value in delivery["headers"]}
    try:
        Webhook(delivery["secret"]).verify(bytes.fromhex(delivery["body"]), headers, json_parse=False)
    except WebhookVerificationError:
        return "refused"
    except Exception as error:
        return type(error).__name__
    return "accepted"


for line in sys.stdin:
    print(judge(json.loads(line)))
