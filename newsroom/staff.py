"""Sessions, log-ins and notices are staff's: other pages pass them by, to which the session's cookie is never sent."""

from collections.abc import Awaitable

from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin


class _ForStaff(MiddlewareMixin):
    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if request.path.startswith(settings.SESSION_COOKIE_PATH):
            return super().__call__(request)
        return self.get_response(request)


class SessionMiddleware(_ForStaff, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(_ForStaff, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(_ForStaff, messages.MessageMiddleware):
    pass
