import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = (ROOT / ".env.example").read_text()


def test_the_example_has_a_sentence_for_every_variable_the_settings_read():
    source = (ROOT / "newsroom" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|_secret|_publisher)\(\s*"([A-Z_]+)"', source))

    explained = set(re.findall(r"^# \S.*\n# ([A-Z_]+)=", EXAMPLE, re.MULTILINE))

    assert explained - {"ANYMAIL_MAILGUN_API_KEY"} == read
