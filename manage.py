#!/usr/bin/env python3
"""Django's command line for Newsroom."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newsroom.settings")
    if sys.argv[1:2] == ["demo"]:
        # Settings are read before the command runs, so the demo has to be announced to them here. It is a site of its
        # own: what `.env` says about another one is none of its business, and its mail goes nowhere but its mailbox.
        os.environ.update(DEMO="true", ENV_FILE=os.devnull)
        for name in ("SITE_URL", "EMAIL_BACKEND"):
            os.environ.pop(name, None)

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
