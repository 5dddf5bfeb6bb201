"""What staff can do with a digest as a whole: which step, when it is offered, and what to ask before."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from digests import compilation, outcomes, release, steps
from digests.models import Digest

State = Digest.State

SEND = "digests.send_digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One button on a digest's page, and the page that asks before it acts."""

    name: str
    label: Promise
    question: Promise
    done: Promise
    states: tuple[Digest.State, ...]
    call: Callable[..., object]
    asks_reason: bool = False
    tells_readers: bool = False
    concerns: str = ""  # only offered where readers stand so, and told how many these are
    needs_time: bool = False
    is_usual: bool = False
    is_grave: bool = False

    def is_offered(self, digest: Digest, counts: dict[str, int], *, now: datetime) -> bool:
        return (
            digest.state in self.states
            and (not self.concerns or self.count(digest, counts) > 0)
            and (not self.needs_time or now < digest.not_after)
        )

    def count(self, digest: Digest, counts: dict[str, int]) -> int:
        """Return how many readers it concerns."""
        if self.concerns == "failed":  # those left by decision may have got it
            return outcomes.retriable(digest) if counts.get("failed") else 0
        return counts.get(self.concerns, 0)


ACTS = (
    Act(
        name="approve",
        label=_("Approve"),
        question=_("The digest goes out at its time, at once if that has come."),
        done=_("The digest is approved."),
        states=steps.APPROVE.before,
        call=release.approve,
        is_usual=True,
        tells_readers=True,
    ),
    Act(
        name="send-now",
        label=_("Send now"),
        question=_("The digest goes out at once. It cannot be called back."),
        done=_("The digest is being sent."),
        states=steps.START.before,
        call=release.send_now,
        tells_readers=True,
    ),
    Act(
        name="pause",
        label=_("Pause"),
        question=_("What has not been handed over yet is held back until someone resumes."),
        done=_("The digest is paused."),
        states=steps.PAUSE.before,
        call=release.pause,
        asks_reason=True,
    ),
    Act(
        name="resume",
        label=_("Resume"),
        question=_("The readers who have not got the digest yet will get it now."),
        done=_("The digest is being sent."),
        states=steps.RESUME.before,
        call=release.resume,
        is_usual=True,
    ),
    Act(
        name="reopen",
        label=_("Compile after all"),
        question=_("The digest is compiled from the articles that are there now."),
        done=_("The digest is compiled."),
        states=steps.REOPEN.before,
        call=compilation.reopen,
        is_usual=True,
    ),
    Act(
        name="resend-uncertain",
        label=_("Mail the uncertain ones again"),
        question=_("Some of these readers may then get the digest twice."),
        done=_("The uncertain ones are mailed again."),
        states=(State.SENDING,),
        call=outcomes.resend_uncertain,
        asks_reason=True,
        concerns="uncertain",
        needs_time=True,
    ),
    Act(
        name="wait-for-uncertain",
        label=_("Wait for the provider's word"),
        question=_(
            "Nothing is sent and nothing is closed. The provider may still tell what became of them; your colleagues"
            " see that you wait."
        ),
        done=_("It is noted that you wait."),
        states=(State.SENDING,),
        call=outcomes.wait_for_uncertain,
        asks_reason=True,
        concerns="uncertain",
    ),
    Act(
        name="give-up-uncertain",
        label=_("Leave the uncertain ones"),
        question=_("Some of these readers may not have got the digest; nobody gets it twice."),
        done=_("The uncertain ones are closed."),
        states=(State.SENDING,),
        call=outcomes.give_up_uncertain,
        asks_reason=True,
        concerns="uncertain",
    ),
    Act(
        name="retry-failed",
        label=_("Try the failed ones again"),
        question=_("These readers surely got nothing. They are mailed now, with as many attempts as at first."),
        done=_("The failed ones are mailed again."),
        states=(State.SENDING, State.PAUSED, State.FINISHED),
        call=outcomes.retry_failed,
        asks_reason=True,
        concerns="failed",
        needs_time=True,
    ),
    Act(
        name="retry-refused",
        label=_("Mail the refused ones again"),
        question=_(
            "The provider refused these readers' mails for good. Try again only if the fault was yours and is mended:"
            " mail to addresses that do not exist spoils your name with the mailboxes."
        ),
        done=_("The refused ones are mailed again."),
        states=(State.SENDING, State.PAUSED, State.FINISHED),
        call=outcomes.retry_refused,
        asks_reason=True,
        concerns="refused",
        needs_time=True,
    ),
    Act(
        name="cancel",
        label=_("Cancel the digest"),
        question=_(
            "The digest ends for good. Its articles wait for the next one, unless some reader has got them already."
        ),
        done=_("The digest is cancelled."),
        states=steps.CANCEL.before,
        call=release.cancel,
        asks_reason=True,
        is_grave=True,
    ),
)


def acts_for(digest: Digest, counts: dict[str, int], *, now: datetime) -> list[Act]:
    return [act for act in ACTS if act.is_offered(digest, counts, now=now)]


def act_named(name: str) -> Act | None:
    return next((act for act in ACTS if act.name == name), None)
