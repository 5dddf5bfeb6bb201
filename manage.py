#!/usr/bin/env python3
"""Django's command line for Newsroom."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newsroom.settings")
    if sys.argv[1:2] == ["demo"]:
        # Settings are read before the command runs, so the demo has to be announced to them here.
        os.environ.setdefault("DEMO", "true")

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
