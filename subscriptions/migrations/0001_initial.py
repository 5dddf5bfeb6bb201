import uuid

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from subscriptions import guarding


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="ConsentRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                (
                    "type",
                    models.CharField(
                        choices=[
                            ("requested", "sign-up requested"),
                            ("mail_sent", "confirmation mail sent"),
                            ("confirmed", "confirmed"),
                            ("added", "newsletter added"),
                            ("changed", "changed"),
                            ("address_changed", "address changed"),
                            ("withdrawn", "withdrawn"),
                            ("erased", "erased"),
                        ],
                        max_length=20,
                        verbose_name="act",
                    ),
                ),
                ("at", models.DateTimeField(verbose_name="time")),
                (
                    "subject",
                    models.UUIDField(
                        db_index=True,
                        help_text="The sign-up (until confirmed) or the reader the act belongs to.",
                        verbose_name="belongs to",
                    ),
                ),
                ("commitment", models.CharField(max_length=64, verbose_name="commitment")),
            ],
            options={
                "verbose_name": "consent record",
                "verbose_name_plural": "consent records",
                "ordering": ["id"],
            },
        ),
        migrations.CreateModel(
            name="ConsentSeal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveBigIntegerField(unique=True, verbose_name="number")),
                ("previous_hash", models.CharField(max_length=64, verbose_name="previous hash")),
                ("hash", models.CharField(max_length=64, unique=True, verbose_name="hash")),
                ("entries", models.JSONField(verbose_name="record ids and commitments")),
                ("sealed_at", models.DateTimeField(verbose_name="sealed")),
            ],
            options={
                "verbose_name": "seal",
                "verbose_name_plural": "seals",
                "ordering": ["number"],
            },
        ),
        migrations.CreateModel(
            name="Newsletter",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80, unique=True, verbose_name="name")),
                (
                    "slug",
                    models.SlugField(
                        help_text="Part of the List-Id header; readers' filters rely on it, so keep it.",
                        unique=True,
                        verbose_name="short name",
                    ),
                ),
                (
                    "description",
                    models.CharField(
                        help_text="One or two sentences, shown beside the choice on the form.",
                        max_length=300,
                        verbose_name="what it brings",
                    ),
                ),
                (
                    "frequency",
                    models.CharField(
                        choices=[("daily", "daily"), ("weekdays", "Monday to Friday"), ("weekly", "once a week")],
                        default="daily",
                        help_text="Readers consent to this frequency; sending more often needs a new consent (KG Berlin 5 U 1043/20).",
                        max_length=10,
                        verbose_name="frequency",
                    ),
                ),
                ("position", models.PositiveSmallIntegerField(default=0, verbose_name="position")),
                (
                    "state",
                    models.CharField(
                        choices=[("open", "open for sign-up"), ("closed", "closed for sign-up")],
                        default="open",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
            ],
            options={
                "verbose_name": "newsletter",
                "verbose_name_plural": "newsletters",
                "ordering": ["position", "name"],
            },
        ),
        migrations.CreateModel(
            name="PrivacyRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("address", models.CharField(max_length=254, verbose_name="address")),
                ("address_key", models.CharField(db_index=True, editable=False, max_length=254)),
                ("nonce", models.CharField(editable=False, max_length=32)),
                ("token_hash", models.CharField(editable=False, max_length=64, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[("requested", "requested"), ("opened", "link used"), ("closed", "closed")],
                        default="requested",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("requested_at", models.DateTimeField(verbose_name="requested")),
                ("expires_at", models.DateTimeField(verbose_name="link valid until")),
                ("handed_over_at", models.DateTimeField(blank=True, null=True, verbose_name="link mailed")),
                ("opened_at", models.DateTimeField(blank=True, null=True, verbose_name="link used")),
            ],
            options={
                "verbose_name": "privacy request",
                "verbose_name_plural": "privacy requests",
                "ordering": ["-requested_at"],
            },
        ),
        migrations.CreateModel(
            name="Subscriber",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("address", models.CharField(max_length=254, verbose_name="address")),
                ("address_key", models.CharField(editable=False, max_length=254, unique=True)),
                (
                    "language",
                    models.CharField(
                        choices=[("de", "Deutsch"), ("en", "English")], max_length=5, verbose_name="language"
                    ),
                ),
                ("created_at", models.DateTimeField(verbose_name="since")),
                (
                    "restricted_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="While processing is restricted (GDPR Art. 18) nothing is mailed and nothing is deleted.",
                        null=True,
                        verbose_name="restricted since",
                    ),
                ),
            ],
            options={
                "verbose_name": "reader",
                "verbose_name_plural": "readers",
                "ordering": ["-created_at"],
            },
        ),
        migrations.CreateModel(
            name="ErasureReplay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("length", models.PositiveBigIntegerField(default=0)),
                ("digest", models.CharField(blank=True, max_length=64)),
                ("replayed_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="one_row_of_erasure_replay")
                ],
            },
        ),
        migrations.CreateModel(
            name="EvidenceView",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("address_hash", models.CharField(db_index=True, max_length=64, verbose_name="keyed hash")),
                ("actor", models.CharField(max_length=80, verbose_name="who")),
                (
                    "way",
                    models.CharField(
                        choices=[
                            ("page", "page"),
                            ("json", "JSON file"),
                            ("pdf", "PDF file"),
                            ("command", "command line"),
                            ("access", "answer to a wish for access"),
                        ],
                        max_length=10,
                        verbose_name="way",
                    ),
                ),
                ("viewed_at", models.DateTimeField(db_index=True, verbose_name="time")),
            ],
            options={
                "verbose_name": "view of evidence",
                "verbose_name_plural": "views of evidence",
                "ordering": ["-viewed_at"],
                "permissions": [("view_evidence", "Can see the evidence of an address")],
            },
        ),
        migrations.CreateModel(
            name="Suppression",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("address_hash", models.CharField(max_length=64, unique=True, verbose_name="keyed hash")),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("erasure", "erased"),
                            ("objection", "objection"),
                            ("complaint", "complaint"),
                            ("hard_bounce", "address does not exist"),
                        ],
                        max_length=20,
                        verbose_name="reason",
                    ),
                ),
                ("created_at", models.DateTimeField(verbose_name="since")),
            ],
            options={
                "verbose_name": "suppression",
                "verbose_name_plural": "suppressions",
                "ordering": ["-created_at"],
            },
        ),
        migrations.CreateModel(
            name="ConsentPayload",
            fields=[
                (
                    "record",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="payload",
                        serialize=False,
                        to="subscriptions.consentrecord",
                    ),
                ),
                ("address_key", models.CharField(editable=False, max_length=254)),
                ("salt", models.CharField(max_length=64)),
                ("body", models.JSONField(verbose_name="what was said and done")),
            ],
            options={
                "verbose_name": "payload of a consent record",
                "verbose_name_plural": "payloads of consent records",
                "indexes": [models.Index(fields=["address_key"], name="payload_by_address")],
            },
        ),
        migrations.CreateModel(
            name="ConsentText",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "language",
                    models.CharField(
                        choices=[("de", "Deutsch"), ("en", "English")],
                        default="de",
                        max_length=5,
                        verbose_name="language",
                    ),
                ),
                ("version", models.PositiveIntegerField(verbose_name="version")),
                ("wording", models.TextField(verbose_name="wording")),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="created"),
                ),
                (
                    "newsletter",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="consent_texts",
                        to="subscriptions.newsletter",
                        verbose_name="newsletter",
                    ),
                ),
            ],
            options={
                "verbose_name": "consent text",
                "verbose_name_plural": "consent texts",
                "ordering": ["newsletter", "language", "-version"],
            },
        ),
        migrations.CreateModel(
            name="ConsentTextUse",
            fields=[
                (
                    "text",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="use",
                        serialize=False,
                        to="subscriptions.consenttext",
                    ),
                ),
                ("first_at", models.DateTimeField(verbose_name="first agreed to")),
            ],
            options={
                "verbose_name": "first use of a consent text",
                "verbose_name_plural": "first uses of consent texts",
            },
        ),
        migrations.CreateModel(
            name="RequestCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("network", models.CharField(max_length=64)),
                ("window_start", models.DateTimeField()),
                ("count", models.PositiveIntegerField(default=0)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("network", "window_start"), name="one_count_per_network_and_window")
                ],
            },
        ),
        migrations.CreateModel(
            name="RightsCase",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("withdraw_all", "end all newsletters"),
                            ("withdraw", "end some newsletters"),
                            ("forget_sign_up", "take back a sign-up that is not confirmed yet"),
                            ("object", "objection: never write again (Art. 21)"),
                            ("restrict", "restrict the processing (Art. 18)"),
                            ("lift_restriction", "lift the restriction"),
                            ("rectify", "change the address (Art. 16)"),
                            ("access", "access to the data (Art. 15, 20)"),
                            ("erase", "erasure (Art. 17)"),
                            ("other", "something else"),
                        ],
                        max_length=20,
                        verbose_name="what is asked",
                    ),
                ),
                (
                    "way",
                    models.CharField(
                        choices=[
                            ("page", "page “My data”"),
                            ("letter", "letter"),
                            ("call", "call"),
                            ("mail", "e-mail"),
                            ("fax", "fax"),
                        ],
                        max_length=10,
                        verbose_name="way",
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("open", "open"), ("done", "done"), ("refused", "refused")],
                        default="open",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("address", models.CharField(blank=True, max_length=254, verbose_name="address")),
                ("address_key", models.CharField(blank=True, db_index=True, editable=False, max_length=254)),
                ("new_address", models.CharField(blank=True, max_length=254, verbose_name="new address")),
                ("received_on", models.DateField(verbose_name="received")),
                ("due_on", models.DateField(db_index=True, verbose_name="due")),
                ("entered_at", models.DateTimeField(verbose_name="entered")),
                ("entered_by", models.CharField(max_length=80, verbose_name="entered by")),
                ("extended_at", models.DateTimeField(blank=True, null=True, verbose_name="extended")),
                ("extension_reason", models.TextField(blank=True, verbose_name="why it takes longer")),
                ("closed_at", models.DateTimeField(blank=True, null=True, verbose_name="answered")),
                ("closed_by", models.CharField(blank=True, max_length=80, verbose_name="answered by")),
                (
                    "outcome",
                    models.TextField(blank=True, verbose_name="what was done, or why it was refused"),
                ),
                ("note", models.TextField(blank=True, verbose_name="internal note")),
                (
                    "warned",
                    models.CharField(
                        blank=True,
                        choices=[("", "none"), ("soon_due", "soon due"), ("overdue", "overdue")],
                        editable=False,
                        max_length=10,
                        verbose_name="the officer was warned",
                    ),
                ),
                (
                    "newsletters",
                    models.ManyToManyField(blank=True, to="subscriptions.newsletter", verbose_name="newsletters"),
                ),
                (
                    "request",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="cases",
                        to="subscriptions.privacyrequest",
                    ),
                ),
            ],
            options={
                "verbose_name": "reader's case",
                "verbose_name_plural": "readers' cases",
                "ordering": ["-received_on", "-id"],
                "permissions": [("handle_cases", "Can enter letters and calls")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("closed_at__isnull", True), ("state", "open")),
                            models.Q(models.Q(("state", "open"), _negated=True), ("closed_at__isnull", False)),
                            _connector="OR",
                        ),
                        name="case_closed_at_iff_closed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("due_on__gt", models.F("received_on"))), name="case_due_after_received"
                    ),
                    models.UniqueConstraint(fields=("request", "kind"), name="one_case_per_opened_link_and_kind"),
                ],
            },
        ),
        migrations.CreateModel(
            name="SignUp",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("address_typed", models.CharField(max_length=320, verbose_name="address as typed")),
                ("address", models.CharField(max_length=254, verbose_name="address")),
                ("address_key", models.CharField(editable=False, max_length=254)),
                (
                    "language",
                    models.CharField(
                        choices=[("de", "Deutsch"), ("en", "English")], max_length=5, verbose_name="language"
                    ),
                ),
                ("form_url", models.CharField(max_length=300, verbose_name="form")),
                ("ip", models.GenericIPAddressField(blank=True, null=True, verbose_name="IP address")),
                ("nonce", models.CharField(editable=False, max_length=32)),
                ("token_hash", models.CharField(editable=False, max_length=64)),
                ("requested_at", models.DateTimeField(verbose_name="requested")),
                ("expires_at", models.DateTimeField(verbose_name="link valid until")),
                ("confirmed_at", models.DateTimeField(blank=True, null=True, verbose_name="confirmed")),
            ],
            options={
                "verbose_name": "sign-up",
                "verbose_name_plural": "sign-ups",
                "ordering": ["-requested_at"],
            },
        ),
        migrations.CreateModel(
            name="AgreedText",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "sign_up", "text", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "sign_up",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="subscriptions.signup"
                    ),
                ),
                (
                    "text",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="subscriptions.consenttext",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="signup",
            name="consent_texts",
            field=models.ManyToManyField(
                through="subscriptions.AgreedText", to="subscriptions.consenttext", verbose_name="consent texts"
            ),
        ),
        migrations.CreateModel(
            name="Subscription",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[("active", "active"), ("paused", "paused"), ("ended", "ended")],
                        default="active",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("active_since", models.DateTimeField(verbose_name="active since")),
                (
                    "last_sent_at",
                    models.DateTimeField(
                        blank=True,
                        editable=False,
                        help_text="To the week; deliveries are purged long before a consent lapses.",
                        null=True,
                        verbose_name="last sent",
                    ),
                ),
                ("ended_at", models.DateTimeField(blank=True, null=True, verbose_name="ended")),
                (
                    "paused_until",
                    models.DateField(
                        blank=True,
                        help_text="On this day it goes on by itself.",
                        null=True,
                        verbose_name="paused until",
                    ),
                ),
                (
                    "consent_text",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        help_text="The words of the newsletter that the reader agreed to last.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="subscriptions",
                        to="subscriptions.consenttext",
                        verbose_name="consent text",
                    ),
                ),
                (
                    "declaration",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="declared_subscriptions",
                        to="subscriptions.consenttext",
                        verbose_name="Declaration",
                    ),
                ),
                (
                    "newsletter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="subscriptions",
                        to="subscriptions.newsletter",
                        verbose_name="newsletter",
                    ),
                ),
                (
                    "subscriber",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="subscriptions",
                        to="subscriptions.subscriber",
                        verbose_name="reader",
                    ),
                ),
            ],
            options={
                "verbose_name": "subscription",
                "verbose_name_plural": "subscriptions",
            },
        ),
        migrations.CreateModel(
            name="SealedRecord",
            fields=[
                (
                    "record",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="sealed",
                        serialize=False,
                        to="subscriptions.consentrecord",
                    ),
                ),
                (
                    "seal",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="sealed_records",
                        to="subscriptions.consentseal",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="AddressChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("old_address", models.CharField(max_length=254, verbose_name="old address")),
                ("old_address_key", models.CharField(db_index=True, editable=False, max_length=254)),
                ("new_address", models.CharField(max_length=254, verbose_name="new address")),
                ("new_address_key", models.CharField(db_index=True, editable=False, max_length=254)),
                ("nonce", models.CharField(editable=False, max_length=32)),
                ("token_hash", models.CharField(editable=False, max_length=64, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[("requested", "requested"), ("confirmed", "confirmed"), ("closed", "closed")],
                        default="requested",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("requested_at", models.DateTimeField(verbose_name="requested")),
                ("expires_at", models.DateTimeField(verbose_name="link valid until")),
                ("confirmed_at", models.DateTimeField(blank=True, null=True, verbose_name="confirmed")),
                (
                    "subscriber",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="address_changes",
                        to="subscriptions.subscriber",
                        verbose_name="reader",
                    ),
                ),
            ],
            options={
                "verbose_name": "change of address",
                "verbose_name_plural": "changes of address",
                "ordering": ["-requested_at"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("confirmed_at__isnull", False), ("state", "confirmed")),
                            models.Q(models.Q(("state", "confirmed"), _negated=True), ("confirmed_at__isnull", True)),
                            _connector="OR",
                        ),
                        name="address_change_confirmed_at_iff_confirmed",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="FormerLink",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uuid", models.UUIDField(editable=False, unique=True)),
                (
                    "subscription",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="former_links",
                        to="subscriptions.subscription",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="consenttext",
            constraint=models.UniqueConstraint(
                fields=("newsletter", "language", "version"), name="consent_text_version_is_unique_per_newsletter"
            ),
        ),
        migrations.AddConstraint(
            model_name="consenttext",
            constraint=models.UniqueConstraint(
                condition=models.Q(("newsletter", None)),
                fields=("language", "version"),
                name="declaration_version_is_unique_per_language",
            ),
        ),
        migrations.AddIndex(
            model_name="signup",
            index=models.Index(fields=["requested_at"], name="sign_up_by_time"),
        ),
        migrations.AddIndex(
            model_name="signup",
            index=models.Index(fields=["address_key"], name="sign_up_by_address"),
        ),
        migrations.AddConstraint(
            model_name="signup",
            constraint=models.UniqueConstraint(fields=("token_hash",), name="sign_up_token_is_unique"),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("state", "active")),
                fields=["newsletter", "active_since"],
                name="active_by_newsletter",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.UniqueConstraint(
                fields=("subscriber", "newsletter"), name="one_subscription_per_reader_and_newsletter"
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("ended_at__isnull", False), ("state", "ended")),
                    models.Q(models.Q(("state", "ended"), _negated=True), ("ended_at__isnull", True)),
                    _connector="OR",
                ),
                name="subscription_ended_at_iff_ended",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("paused_until__isnull", False), ("state", "paused")),
                    models.Q(models.Q(("state", "paused"), _negated=True), ("paused_until__isnull", True)),
                    _connector="OR",
                ),
                name="subscription_paused_until_iff_paused",
            ),
        ),
        # Last, for a table that is rebuilt loses its triggers on SQLite.
        migrations.RunPython(guarding.guard, migrations.RunPython.noop),
    ]
