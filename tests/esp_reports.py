"""Providers' reports in the shapes their documentation shows, signed as they sign them."""

import base64
import hashlib
import hmac
import json
from abc import abstractmethod
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from django.conf import settings as django_settings
from django.test import Client

from tests.amazon import TOPIC, Amazon, as_post

PASSWORD = "newsroom:a-long-and-random-password"
KEY = "a-key-of-the-provider-0123456789"

Json = dict[str, Any]


class Esp:
    """One provider: what it calls things, and how it posts them."""

    slug = ""
    # What it says of a mail that arrived, came back for good or for now, and of a reader's act.
    delivered: Json = {}
    hard: Json = {}
    soft: Json = {}
    complaint: Json = {}
    unsubscribe: Json = {}

    def configure(self, settings: Any) -> None:
        settings.EMAIL_BACKEND = f"anymail.backends.{self.slug}.EmailBackend"
        settings.ANYMAIL = self.anymail()

    def anymail(self) -> Json:
        return {"WEBHOOK_SECRET": PASSWORD}

    @property
    def path(self) -> str:
        return f"/webhooks/{self.slug}/tracking/"

    @abstractmethod
    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Any:
        """Return one report about the mail of a row."""

    def body(self, reports: list[Any]) -> bytes:
        return json.dumps(reports[0]).encode()

    def signed(self, body: bytes, *, at: datetime) -> Json:
        """Return what the test client posts."""
        return {
            "data": body,
            "content_type": "application/json",
            "headers": {"Authorization": "Basic " + base64.b64encode(PASSWORD.encode()).decode()},
        }

    def post(
        self, said: Json, *, row: UUID, to: str = "leserin@leser.example", at: datetime | None = None, **signed: Any
    ) -> Any:
        at = at or datetime.now(UTC)
        body = self.body([self.report(said, row=row, to=to, at=at)])
        return self.send(self.signed(body, **{"at": at, **signed}))

    def send(self, posted: Json) -> Any:
        content = posted["data"] if isinstance(posted["data"], bytes) else posted["data"].encode()
        return Client().generic("POST", self.path, **{**posted, "data": content})

    def forged(self, posted: Json) -> Json:
        """Return a post whose proof is not the provider's."""
        return {**posted, "headers": {"Authorization": "Basic " + base64.b64encode(b"newsroom:guessed").decode()}}


class Brevo(Esp):
    slug = "brevo"
    delivered = {"event": "delivered"}
    hard = {"event": "hard_bounce", "reason": "550 5.1.1 no such user"}
    soft = {"event": "soft_bounce", "reason": "452 4.2.2 mailbox full"}
    complaint = {"event": "spam"}
    unsubscribe = {"event": "unsubscribe"}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        return {
            "id": 26224,
            "email": to,
            "message-id": "<202611220500.63543781462@smtp-relay.mailin.fr>",
            "date": f"{at:%Y-%m-%d %H:%M:%S}",
            "ts": int(at.timestamp()),
            "ts_event": int(at.timestamp()),
            "ts_epoch": int(at.timestamp() * 1000),
            "subject": "Der Tag",
            "X-Mailin-custom": json.dumps({"delivery": str(row)}),
            "sending_ip": "185.41.28.109",
            "template_id": 0,
            **said,
        }


class MailerSend(Esp):
    slug = "mailersend"
    delivered = {"type": "delivered"}
    hard = {"type": "hard_bounced", "morph": {"object": "recipient_bounce", "reason": "550 5.1.1 no such user"}}
    soft = {"type": "soft_bounced", "morph": {"object": "recipient_bounce", "reason": "452 4.2.2 mailbox full"}}
    complaint = {"type": "spam_complaint", "morph": {"object": "spam_complaint", "reason": None}}
    unsubscribe = {"type": "unsubscribed", "morph": {"object": "recipient_unsubscribe", "reason": "other"}}

    def anymail(self) -> Json:
        return {"MAILERSEND_SIGNING_SECRET": KEY}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        created = at.isoformat()
        email = {
            "object": "email",
            "id": "62f114f8165fe0d8db0288e5",
            "created_at": created,
            "from": "newsletter@wochenblitz.example",
            "subject": "Der Tag",
            "status": "sent",
            "tags": [str(row)],
            "message": {"object": "message", "id": "62fb66bef54a112e920b5493", "created_at": created},
            "recipient": {"object": "recipient", "id": "62c69be104270ee9c6074d32", "email": to, "created_at": created},
        }
        data = {"object": "activity", "id": f"{at.timestamp()}", "created_at": created, "email": email, "morph": None}
        return {
            "type": f"activity.{said['type']}",
            "domain_id": "z3m5jgr0emm4dpyo",
            "created_at": created,
            "webhook_id": "2351ndgwr4zqx8ko",
            "url": "https://wochenblitz.example/webhooks/mailersend/tracking/",
            "data": {**data, **said},
        }

    def signed(self, body: bytes, *, at: datetime) -> Json:
        signature = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
        return {"data": body, "content_type": "application/json", "headers": {"Signature": signature}}

    def forged(self, posted: Json) -> Json:
        return {**posted, "headers": {"Signature": "0" * 64}}


class Mailgun(Esp):
    slug = "mailgun"
    delivered = {"event": "delivered"}
    hard = {
        "event": "failed",
        "severity": "permanent",
        "reason": "bounce",
        "delivery-status": {"code": 550, "message": "550 5.1.1 no such user", "description": ""},
    }
    soft = {
        "event": "failed",
        "severity": "permanent",
        "reason": "old",
        "delivery-status": {"code": 602, "message": "452 4.2.2 mailbox full"},
    }
    complaint = {"event": "complained"}
    unsubscribe = {"event": "unsubscribed"}

    def anymail(self) -> Json:
        return {"MAILGUN_API_KEY": "another-key", "MAILGUN_WEBHOOK_SIGNING_KEY": KEY}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        return {
            "id": "CPgfbmQMTCKtHW6uIWtuVe",
            "timestamp": at.timestamp(),
            "log-level": "info",
            "recipient": to,
            "recipient-domain": to.partition("@")[2],
            "flags": {"is-routed": False, "is-authenticated": True, "is-system-test": False, "is-test-mode": False},
            "message": {"headers": {"to": to, "message-id": f"{row}@wochenblitz.example", "subject": "Der Tag"}},
            "user-variables": {"delivery": str(row)},
            "tags": [],
            **said,
        }

    def body(self, reports: list[Any]) -> bytes:
        return json.dumps({"event-data": reports[0]}).encode()

    def signed(self, body: bytes, *, at: datetime, token: str | None = None) -> Json:
        token = token or hashlib.sha256(body).hexdigest()[:50]
        time = str(int(at.timestamp()))
        signature = hmac.new(KEY.encode(), f"{time}{token}".encode(), hashlib.sha256).hexdigest()
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            content["signature"] = {"timestamp": time, "token": token, "signature": signature}
            body = json.dumps(content).encode()
        return {"data": body, "content_type": "application/json"}

    def forged(self, posted: Json) -> Json:
        content = json.loads(posted["data"])
        content["signature"]["signature"] = "0" * 64
        return {**posted, "data": json.dumps(content)}


class Mailjet(Esp):
    slug = "mailjet"
    delivered = {"event": "sent", "smtp_reply": "sent (250 2.0.0 OK)"}
    hard = {"event": "bounce", "hard_bounce": True, "error_related_to": "recipient", "error": "user unknown"}
    soft = {"event": "bounce", "hard_bounce": False, "error_related_to": "recipient", "error": "quota exceeded"}
    complaint = {"event": "spam", "source": "JMRPP"}
    unsubscribe = {"event": "unsub", "mj_list_id": 1}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        return {
            "time": int(at.timestamp()),
            "MessageID": 19421777835146490,
            "Message_GUID": "1ab23cd4-e567-8901-2345-6789f0gh1i2j",
            "email": to,
            "mj_campaign_id": 7173,
            "mj_contact_id": 4,
            "customcampaign": "",
            "CustomID": "",
            "Payload": json.dumps({"delivery": str(row)}),
            **said,
        }

    def body(self, reports: list[Any]) -> bytes:
        return json.dumps(reports).encode()


class Mailtrap(Esp):
    slug = "mailtrap"
    delivered = {"event": "delivery"}
    hard = {"event": "bounce", "response": "550 5.1.1 no such user", "bounce_category": "badmailbox"}
    soft = {"event": "soft bounce", "response": "452 4.2.2 mailbox full", "bounce_category": "mailboxfull"}
    complaint = {"event": "spam"}
    unsubscribe = {"event": "unsubscribe", "ip": "192.0.2.1"}

    def anymail(self) -> Json:
        return {"MAILTRAP_TRACKING_SECRET": KEY}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        return {
            "message_id": "1df37d17-0286-4d8b-8edf-bc4ec5be86e6",
            "event_id": "bede7236-2284-43d6-a953-1fdcafd0fdbc",
            "sending_stream": "bulk",
            "email": to,
            "timestamp": int(at.timestamp()),
            "custom_variables": {"delivery": str(row)},
            **said,
        }

    def body(self, reports: list[Any]) -> bytes:
        return json.dumps({"events": reports}).encode()

    def signed(self, body: bytes, *, at: datetime) -> Json:
        signature = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
        return {"data": body, "content_type": "application/json", "headers": {"Mailtrap-Signature": signature}}

    def forged(self, posted: Json) -> Json:
        return {**posted, "headers": {"Mailtrap-Signature": "0" * 64}}


class Mandrill(Esp):
    slug = "mandrill"
    delivered = {"event": "send"}
    hard = {"event": "hard_bounce", "diag": "smtp;550 5.1.1 no such user", "bounce_description": "bad_mailbox"}
    soft = {"event": "soft_bounce", "diag": "smtp;452 4.2.2 mailbox full", "bounce_description": "mailbox_full"}
    complaint = {"event": "spam"}
    unsubscribe = {"event": "unsub"}

    def anymail(self) -> Json:
        return {"MANDRILL_WEBHOOK_KEY": KEY}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        message = {
            "ts": int(at.timestamp()),
            "subject": "Der Tag",
            "email": to,
            "tags": [],
            "metadata": {"delivery": str(row)},
            "_id": "exampleaaaaaaaaaaaaaaaaaaaaaaaaa",
            "_version": "exampleaaaaaaaaaaaaaaa",
            "state": "bounced",
        }
        known = {"event": said["event"], "_id": message["_id"], "ts": int(at.timestamp())}
        return {**known, "msg": {**message, **{name: value for name, value in said.items() if name != "event"}}}

    def body(self, reports: list[Any]) -> bytes:
        return urlencode({"mandrill_events": json.dumps(reports)}).encode()

    def signed(self, body: bytes, *, at: datetime) -> Json:
        from urllib.parse import parse_qsl

        fields = "".join(name + value for name, value in sorted(parse_qsl(body.decode("utf-8", "replace"))))
        text = django_settings.SITE_URL + self.path + fields
        signature = base64.b64encode(hmac.new(KEY.encode(), text.encode(), hashlib.sha1).digest()).decode()
        return {
            "data": body,
            "content_type": "application/x-www-form-urlencoded",
            "headers": {"X-Mandrill-Signature": signature},
        }

    def forged(self, posted: Json) -> Json:
        return {**posted, "headers": {"X-Mandrill-Signature": base64.b64encode(b"0" * 20).decode()}}


class Postal(Esp):
    slug = "postal"
    delivered = {"event": "MessageSent", "status": "Sent", "output": "250 2.0.0 OK"}
    hard = {"event": "MessageDeliveryFailed", "status": "HardFail", "output": "550 5.1.1 no such user"}
    soft = {"event": "MessageBounced", "bounce": {"id": 12347, "direction": "incoming"}}

    def __init__(self) -> None:
        self.key, self.stranger = (rsa.generate_private_key(public_exponent=65_537, key_size=2048) for _ in range(2))

    def anymail(self) -> Json:
        return {"POSTAL_WEBHOOK_KEY": _middle_of(self.key.public_key())}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        message = {
            "id": 233843,
            "token": "McC2tuqg7mhx",
            "direction": "outgoing",
            "message_id": f"{row}@wochenblitz.example",
            "to": to,
            "from": "newsletter@wochenblitz.example",
            "subject": "Der Tag",
            "timestamp": at.timestamp(),
            "spam_status": "NotChecked",
            "tag": str(row),
        }
        payload = {name: value for name, value in said.items() if name != "event"}
        payload["original_message" if "bounce" in said else "message"] = message
        return {
            "event": said["event"],
            "timestamp": at.timestamp(),
            "uuid": "0fcc8dc0-6c23-4d84-98c3-cbdbd2e22a2a",
            "payload": payload,
        }

    def signed(self, body: bytes, *, at: datetime) -> Json:
        signature = self.key.sign(body, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        header = {"X-Postal-Signature": base64.b64encode(signature).decode()}
        return {"data": body, "content_type": "application/json", "headers": header}

    def forged(self, posted: Json) -> Json:
        signature = self.stranger.sign(posted["data"], padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        return {**posted, "headers": {"X-Postal-Signature": base64.b64encode(signature).decode()}}


class Postmark(Esp):
    slug = "postmark"
    delivered = {"RecordType": "Delivery", "Details": "smtp;250 2.0.0 OK"}
    hard = {"RecordType": "Bounce", "Type": "HardBounce", "TypeCode": 1, "Details": "smtp;550 5.1.1 no such user"}
    soft = {"RecordType": "Bounce", "Type": "SoftBounce", "TypeCode": 4096, "Details": "smtp;452 4.2.2 mailbox full"}
    complaint = {"RecordType": "SpamComplaint", "Type": "SpamComplaint", "TypeCode": 100001}
    unsubscribe = {
        "RecordType": "SubscriptionChange",
        "SuppressSending": True,
        "SuppressionReason": "ManualSuppression",
        "Origin": "Recipient",
    }

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        times = {"Delivery": "DeliveredAt", "SubscriptionChange": "ChangedAt"}
        return {
            "ID": int(at.timestamp()),
            "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
            "ServerID": 23,
            "MessageStream": "broadcast",
            "Tag": "",
            "Email": to,
            "Recipient": to,
            "Metadata": {"delivery": str(row)},
            times.get(said["RecordType"], "BouncedAt"): at.isoformat(),
            **said,
        }


class Resend(Esp):
    slug = "resend"
    delivered = {"type": "email.delivered"}
    hard = {
        "type": "email.bounced",
        "bounce": {"type": "Permanent", "subType": "General", "message": "sent a hard bounce message, 5.1.1"},
    }
    soft = {"type": "email.bounced", "bounce": {"type": "Transient", "subType": "MailboxFull", "message": "was full"}}
    complaint = {"type": "email.complained"}

    secret = base64.b64encode(b"twenty-four octets, here").decode()

    def anymail(self) -> Json:
        return {"RESEND_SIGNING_SECRET": f"whsec_{self.secret}"}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        data = {
            "created_at": at.isoformat(),
            "email_id": "56761188-7520-42d8-8898-ff6fc54ce618",
            "from": "Wochenblitz <newsletter@wochenblitz.example>",
            "to": [to],
            "subject": "Der Tag",
            "headers": [{"name": "X-Metadata", "value": json.dumps({"delivery": str(row)})}],
        }
        more = {name: value for name, value in said.items() if name != "type"}
        return {"type": said["type"], "created_at": at.isoformat(), "data": {**data, **more}}

    def signed(self, body: bytes, *, at: datetime) -> Json:
        time = str(int(at.timestamp()))
        text = f"msg_p5jXN8AQM9LWM0D4loKWxJek.{time}.".encode() + body
        mac = hmac.new(base64.b64decode(self.secret), text, hashlib.sha256).digest()
        headers = {
            "Svix-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "Svix-Timestamp": time,
            "Svix-Signature": "v1,c3Vja2VyIHB1bmNo v1," + base64.b64encode(mac).decode(),
        }
        return {"data": body, "content_type": "application/json", "headers": headers}

    def forged(self, posted: Json) -> Json:
        return {**posted, "headers": {**posted["headers"], "Svix-Signature": "v1,c3Vja2VyIHB1bmNo"}}


class SendGrid(Esp):
    slug = "sendgrid"
    delivered = {"event": "delivered", "response": "250 2.0.0 OK"}
    hard = {"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 no such user"}
    soft = {"event": "bounce", "type": "expired", "status": "4.2.2", "reason": "452 4.2.2 mailbox full"}
    complaint = {"event": "spamreport"}
    unsubscribe = {"event": "unsubscribe"}

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def anymail(self) -> Json:
        return {"SENDGRID_TRACKING_WEBHOOK_VERIFICATION_KEY": _middle_of(self.key.public_key())}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        return {
            "email": to,
            "timestamp": int(at.timestamp()),
            "smtp-id": "<wrfRRvF7Q0GgwUo2CvDmEA@ismtpd0049p1iad2.sendgrid.net>",
            "sg_event_id": hashlib.sha256(f"{said}{at}".encode()).hexdigest()[:22],
            "sg_message_id": "wrfRRvF7Q0GgwUo2CvDmEA.filter0425p1mdw1.13037.57B9C4EEC.0",
            "anymail_id": "5c17b4b6-d6e8-4b0a-bc4d-c2a0d0d0f1a1",
            "delivery": str(row),
            **said,
        }

    def body(self, reports: list[Any]) -> bytes:
        return json.dumps(reports).encode()

    def signed(self, body: bytes, *, at: datetime) -> Json:
        time = str(int(at.timestamp()))
        signature = self.key.sign(time.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": time,
        }
        return {"data": body, "content_type": "application/json", "headers": headers}

    def forged(self, posted: Json) -> Json:
        name = "X-Twilio-Email-Event-Webhook-Timestamp"
        return {**posted, "headers": {**posted["headers"], name: str(int(posted["headers"][name]) + 1)}}


class SparkPost(Esp):
    slug = "sparkpost"
    delivered = {"type": "delivery"}
    hard = {"type": "bounce", "bounce_class": "10", "error_code": "550", "raw_reason": "550 5.1.1 no such user"}
    soft = {"type": "bounce", "bounce_class": "22", "error_code": "452", "raw_reason": "452 4.2.2 mailbox full"}
    complaint = {"type": "spam_complaint", "fbtype": "abuse"}
    unsubscribe = {"type": "list_unsubscribe"}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        family = "unsubscribe_event" if "unsubscribe" in said["type"] else "message_event"
        event = {
            "event_id": "92356927693813856",
            "message_id": "000443ee14578172be22",
            "transmission_id": "65832150921904138",
            "timestamp": str(int(at.timestamp())),
            "raw_rcpt_to": to,
            "rcpt_to": to,
            "rcpt_meta": {"delivery": str(row)},
            "rcpt_tags": [],
        }
        return {"msys": {family: {**event, **said}}}

    def body(self, reports: list[Any]) -> bytes:
        return json.dumps([*reports, {"msys": {}}]).encode()


class UnisenderGo(Esp):
    slug = "unisender_go"
    delivered = {"status": "delivered"}
    hard = {
        "status": "hard_bounced",
        "delivery_info": {"delivery_status": "err_user_unknown", "destination_response": "550 5.1.1 no such user"},
    }
    soft = {
        "status": "hard_bounced",
        "delivery_info": {"delivery_status": "err_mailbox_full", "destination_response": "452 4.2.2 full"},
    }
    complaint = {"status": "spam"}
    unsubscribe = {"status": "unsubscribed"}

    def anymail(self) -> Json:
        return {"UNISENDER_GO_API_KEY": KEY}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        return {
            "job_id": "1a3Q2V-0000OZ-S0",
            "metadata": {"delivery": str(row)},
            "email": to,
            "event_time": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "delivery_info": {"delivery_status": "ok"},
            **said,
        }

    def body(self, reports: list[Any]) -> bytes:
        events = [{"event_name": "transactional_email_status", "event_data": report} for report in reports]
        return json.dumps({"events_by_user": [{"user_id": 456, "events": events}], "auth": "0" * 32}).encode()

    def signed(self, body: bytes, *, at: datetime) -> Json:
        shown = hashlib.md5(body.replace(b"0" * 32, KEY.encode())).hexdigest()  # noqa: S324
        return {"data": body.replace(b"0" * 32, shown.encode()), "content_type": "application/json"}

    def forged(self, posted: Json) -> Json:
        return {**posted, "data": posted["data"].replace(b"transactional", b"transactionaI")}


class AmazonSes(Esp):
    slug = "amazon_ses"
    delivered = {"eventType": "Delivery", "delivery": {"smtpResponse": "250 2.0.0 OK", "recipients": []}}
    hard = {
        "eventType": "Bounce",
        "bounce": {"bounceType": "Permanent", "bounceSubType": "General", "diagnosticCode": "smtp; 550 5.1.1 unknown"},
    }
    soft = {"eventType": "Bounce", "bounce": {"bounceType": "Transient", "bounceSubType": "MailboxFull"}}
    complaint = {"eventType": "Complaint", "complaint": {"complaintFeedbackType": "abuse"}}
    unsubscribe = {"eventType": "Subscription", "subscription": {"source": "UnsubscribeHeader"}}

    def __init__(self, amazon: Amazon) -> None:
        self.amazon = amazon

    def anymail(self) -> Json:
        return {"AMAZON_SES_SNS_TOPICS": [TOPIC]}

    def report(self, said: Json, *, row: UUID, to: str, at: datetime) -> Json:
        kind = said["eventType"]
        event = {"timestamp": at.isoformat(), "feedbackId": f"{at.timestamp()}", **said.get(kind.lower(), {})}
        bounced = {"emailAddress": to, "action": "failed", "status": "5.0.0"}
        if "diagnosticCode" in event:
            bounced["diagnosticCode"] = event.pop("diagnosticCode")
        named: Json = {
            "Bounce": {"bouncedRecipients": [bounced]},
            "Complaint": {"complainedRecipients": [{"emailAddress": to}]},
            "Delivery": {"recipients": [to]},
        }
        return {
            "eventType": kind,
            "mail": {
                "timestamp": at.isoformat(),
                "source": "newsletter@wochenblitz.example",
                "sendingAccountId": "123456789012",
                "messageId": "0000014644fe5ef6-9a483358-9170-4cb4-a269-f5dcdf415321-000000",
                "destination": [to],
                "headersTruncated": False,
                "headers": [{"name": "X-Metadata", "value": json.dumps({"delivery": str(row)})}],
                "tags": {"ses:configuration-set": ["news"]},
            },
            kind.lower(): {**event, **named.get(kind, {})},
        }

    def signed(self, body: bytes, *, at: datetime) -> Json:
        time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message_id = hashlib.sha256(body).hexdigest()[:36]
        return as_post(self.amazon.message(body.decode("utf-8", "replace"), Timestamp=time, MessageId=message_id))

    def forged(self, posted: Json) -> Json:
        message = json.loads(posted["data"])
        return {**posted, "data": json.dumps({**message, "Subject": "added later"})}


def all_esps(amazon: Amazon) -> list[Esp]:
    simple = (Brevo, MailerSend, Mailgun, Mailjet, Mailtrap, Mandrill, Postmark, Resend, SparkPost, UnisenderGo)
    return [AmazonSes(amazon), *(esp() for esp in simple), Postal(), SendGrid()]


def _middle_of(key: Any) -> str:
    """Return a public key as providers show it: without the first and last line of its file."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "".join(pem.decode().splitlines()[1:-1])
