"""Mails that come back, as mail servers write them."""

from email.message import EmailMessage

ADDRESS = "leserin@leser.example"


def delivery_report(
    to: str,
    *,
    action: str = "failed",
    status: str = "5.1.1",
    diagnosis: str = "smtp; 550 5.1.1 User unknown",
    recipient: str = ADDRESS,
) -> bytes:
    """Return what Postfix writes of a mail it could not deliver (RFC 3464)."""
    return f"""\
Return-Path: <>
Delivered-To: {to}
From: MAILER-DAEMON@mx.leser.example (Mail Delivery System)
To: {to}
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="A64A4C4/mx"
Message-Id: <20261122050000.1@mx.leser.example>

--A64A4C4/mx
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

<{recipient}>: host mx.leser.example said: 550 5.1.1 User unknown

--A64A4C4/mx
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.leser.example
X-Postfix-Queue-ID: A64A4C4
Arrival-Date: Sun, 22 Nov 2026 06:00:00 +0100 (CET)

Final-Recipient: rfc822; {recipient}
Original-Recipient: rfc822;{recipient}
Action: {action}
Status: {status}
Remote-MTA: dns; mx.leser.example
Diagnostic-Code: {diagnosis}

--A64A4C4/mx
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers

From: Wochenblitz <newsletter@wochenblitz.example>
To: {recipient}
Subject: Der Tag

--A64A4C4/mx--
""".encode()


def complaint(original_mail_from: str, *, kind: str = "abuse", quoted_return_path: str = "") -> bytes:
    """Return a report of a mailbox provider's feedback loop (RFC 5965)."""
    return f"""\
From: <feedback@isp.example>
To: <abuse@wochenblitz.example>
Subject: FW: Der Tag
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="part1_13d.2e68ed54"

--part1_13d.2e68ed54
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report for an email message received from IP 192.0.2.1.

--part1_13d.2e68ed54
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <{original_mail_from}>
Received-Date: Sun, 22 Nov 2026 05:00:00 GMT

--part1_13d.2e68ed54
Content-Type: message/rfc822
Content-Disposition: inline

Return-Path: <{quoted_return_path}>
From: Wochenblitz <newsletter@wochenblitz.example>
Subject: Der Tag

Redacted.
--part1_13d.2e68ed54--
""".encode()


def answering_machine(to: str) -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = ADDRESS, to
    message["Subject"], message["Auto-Submitted"] = "Abwesend", "auto-replied"
    message.set_content("Ich bin bis Montag im Urlaub. 550 5.1.1 Action: failed")
    return message.as_bytes()
