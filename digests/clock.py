"""The clock that deliveries go by; it is that of all mail."""

from newsroom.mail.clock import database_clock, database_now, let_others_write

__all__ = ["database_clock", "database_now", "let_others_write"]
