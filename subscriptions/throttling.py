"""Who may ask how often: a network is told so, an address never.

A network (an IPv4 /24, an IPv6 /64) is counted by keyed hash and hour. What an address asked for is counted when the
mail is to be sent (`mails.py`), so that the page answers the same, in the same time, for every address.
"""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest

from newsroom.mail.macs import mac_for
from subscriptions import statements
from subscriptions.statements import Visit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
NETWORK_PREFIX = {4: 24, 6: 64}  # what one household or one rented server has to itself
EVIDENCE_PREFIX = {4: 24, 6: 48}


def client_ip(request: HttpRequest) -> IPAddress | None:
    """Return the address of whoever asks: as many hops before us as we have trusted proxies, never further.

    What stands further left in X-Forwarded-For is the client's own claim.
    """
    proxies = settings.TRUSTED_PROXY_COUNT
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if proxies else []
    hops = [hop.strip() for hop in forwarded if hop.strip()]
    if len(hops) >= proxies > 0:
        return _parsed(hops[-proxies])
    return _parsed(request.META.get("REMOTE_ADDR", ""))


def evidence_ip(request: HttpRequest) -> str | None:
    """Return as much of the client's IP as the evidence may hold (EVIDENCE_IP, R-12)."""
    ip = client_ip(request)
    if ip is None or settings.EVIDENCE_IP == "none":
        return None
    return str(ip) if settings.EVIDENCE_IP == "full" else str(_network(ip, EVIDENCE_PREFIX).network_address)


def admit(request: HttpRequest, now: datetime) -> timedelta | None:
    """Count a request of the client's network. Return None if it may pass, else how long it has to wait."""
    visit = visit_of(request, now)
    return wait_after(statements.count_request(visit), visit, now)


def visit_of(request: HttpRequest, now: datetime) -> Visit:
    """Return as what a request is counted."""
    limit, window = settings.REQUESTS_PER_NETWORK
    return Visit(_network_hash(request), _window_start(now, window), limit)


def wait_after(count: int, visit: Visit, now: datetime) -> timedelta | None:
    """Return how long a network has to wait that has made so many requests; None if it need not."""
    _limit, window = settings.REQUESTS_PER_NETWORK
    return None if count <= visit.limit else visit.window_start + window - now


def exceeds(earlier: Iterable[datetime], at: datetime, limits: Iterable[tuple[int, timedelta]]) -> bool:
    """Say whether one more request at `at` would be too many, given when the earlier ones were."""
    earlier = list(earlier)
    return any(sum(at - window < moment for moment in earlier) >= limit for limit, window in limits)


def _window_start(now: datetime, window: timedelta) -> datetime:
    seconds = int(window.total_seconds())
    return datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, tz=UTC)


def _network_hash(request: HttpRequest) -> str:
    ip = client_ip(request)
    # Whole octets, three or eight of them; none is known behind a Unix socket without a trusted proxy.
    network = ip.packed[: NETWORK_PREFIX[ip.version] // 8] if ip else b"unknown"
    return mac_for("network", settings.SECRET_KEY)(network).hex()


def _network(ip: IPAddress, prefix: dict[int, int]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((ip, prefix[ip.version]), strict=False)


@lru_cache(maxsize=64)  # a form is asked twice where it comes from: for its limit and for its evidence
def _parsed(text: str) -> IPAddress | None:
    """Read an IP address as proxies write it: with a port or in brackets, an IPv4 one also mapped into IPv6."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
