"""Signs a body as the official library of a sender does: sign.py SCHEME SECRET BODY [TIME]

Prints the headers as JSON. TIME counts seconds since 1970-01-01 UTC; without it, it is now.
"""

import base64
import datetime
import hmac
import json
import sys
import time

scheme, secret, body = sys.argv[1:4]
seconds = int(sys.argv[4]) if len(sys.argv) > 4 else int(time.time())
moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)

if scheme == "standard_webhooks":
    from standardwebhooks.webhooks import Webhook

    signature = Webhook(secret).sign("msg_1", moment, body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature,
    }
elif scheme == "svix":
    from svix.webhooks import Webhook

    signature = Webhook(secret).sign("msg_2", moment, body)
    headers = {"svix-id": "msg_2", "svix-timestamp": str(seconds), "svix-signature": signature}
elif scheme == "stripe":
    from stripe import WebhookSignature

    signature = WebhookSignature._compute_signature(f"{seconds}.{body}", secret)
    headers = {"stripe-signature": f"t={seconds},v1={signature},v0=00"}
    # The library takes it for right, too.
    WebhookSignature.verify_header(body, headers["stripe-signature"], secret)
elif scheme == "slack":
    from slack_sdk.signature import SignatureVerifier

    signer = SignatureVerifier(secret)
    signature = signer.generate_signature(timestamp=str(seconds), body=body)
    headers = {"x-slack-request-timestamp": str(seconds), "x-slack-signature": signature}
elif scheme == "shopify":
    # As Shopify documents it; its libraries only verify.
    tag = hmac.digest(secret.encode(), body.encode(), "sha256")
    headers = {"x-shopify-hmac-sha256": base64.b64encode(tag).decode()}
elif scheme == "hmac":
    tag = hmac.digest(secret.encode(), body.encode(), "sha512")
    headers = {"x-tag": f"v=1;{tag.hex().upper()}"}
else:
    sys.exit(f"no such scheme: {scheme}")

print(json.dumps(headers))
