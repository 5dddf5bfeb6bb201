from typing import Any

from django import template
from django.template import Context
from django.urls import reverse
from django.utils import timezone

from subscriptions import wording
from subscriptions.forms import SignUpForm
from subscriptions.reader_forms import Stamp

register = template.Library()


@register.inclusion_tag(wording.FORM_TEMPLATE, takes_context=True)
def sign_up_form(context: Context, form: SignUpForm | None = None) -> dict[str, Any]:
    """Show the sign-up form, empty or as it was sent. Its stamp names the page on which the reader first met it."""
    form = form or SignUpForm(offer=wording.offer(wording.form_language()))
    request = context.get("request")
    page = (
        form.shown.page
        if form.is_bound and form.shown
        else request.path
        if request
        else reverse("subscriptions:sign_up")
    )
    is_own_page = context.get("is_sign_up_page", False)
    now = timezone.now()
    # A reading page is kept for a minute anyhow; with the same stamp for as long its ETag stays the same, too.
    made_at = now if is_own_page else now.replace(second=0, microsecond=0)
    stamp = Stamp(made_at=made_at, page=page, fingerprint=form.offer.fingerprint)
    return {"form": form, "stamp": stamp.signed(), "is_own_page": is_own_page}
