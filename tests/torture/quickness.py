"""Periods of the site under torture."""

# Shorter than in production, so that minutes do what hours do there.
QUICK = {
    "TICK_SECONDS": "1",
    "SWEEP_SECONDS": "1",
    "OUTBOX_SECONDS": "0.5",
    "DELIVERY_LEASE_SECONDS": "4",
    "REQUESTS_PER_NETWORK_PER_HOUR": "1000000",
    "LOG_LEVEL": "WARNING",
}
