"""The evidence as a document to print: A4, with its fonts embedded."""

from collections.abc import Iterable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Table, TableStyle

from subscriptions import evidence
from subscriptions.evidence import Block, Evidence

# Latin, Greek and Cyrillic: readers' names for newsletters, and pages, are not German alone.
FONTS = {"Evidence": "DejaVuSans.ttf", "Evidence-Bold": "DejaVuSans-Bold.ttf"}
FONT_FOLDER = Path(__file__).parent / "fonts"
MARGIN = 20 * mm
STYLES = {
    "title": ParagraphStyle("title", fontName="Evidence-Bold", fontSize=15, leading=20, spaceAfter=8),
    "heading": ParagraphStyle(
        "heading", fontName="Evidence-Bold", fontSize=11, leading=15, spaceBefore=12, spaceAfter=4, keepWithNext=1
    ),
    "paragraph": ParagraphStyle("paragraph", fontName="Evidence", fontSize=9, leading=13, spaceBefore=4, spaceAfter=4),
    "quote": ParagraphStyle(
        "quote", fontName="Evidence", fontSize=8.5, leading=12, leftIndent=10, borderColor=HexColor("#888888"),
        borderWidth=0.5, borderPadding=5, spaceBefore=8, spaceAfter=10, splitLongWords=1,
    ),
    "name": ParagraphStyle("name", fontName="Evidence", fontSize=8, leading=11, textColor=HexColor("#444444")),
    # Hashes have no spaces to break at.
    "value": ParagraphStyle("value", fontName="Evidence", fontSize=8, leading=11, splitLongWords=1),
}  # fmt: skip


def as_pdf(document: Evidence) -> bytes:
    _load_fonts()
    file = BytesIO()
    template = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title="Nachweis der Einwilligung",
        lang="de-DE",
    )
    template.build(list(_flow(evidence.blocks(document))), onFirstPage=_number_page, onLaterPages=_number_page)
    return file.getvalue()


@cache
def _load_fonts() -> None:
    for name, file in FONTS.items():
        pdfmetrics.registerFont(TTFont(name, FONT_FOLDER / file))


def _flow(blocks: Iterable[Block]) -> Iterator[Flowable]:
    for block in blocks:
        yield _table(block.rows) if block.kind == "rows" else Paragraph(_marked_up(block.text), STYLES[block.kind])


def _table(rows: Iterable[tuple[str, str]]) -> Flowable:
    cells = [
        [Paragraph(_marked_up(name), STYLES["name"]), Paragraph(_marked_up(value), STYLES["value"])]
        for name, value in rows
    ]
    table = Table(cells, colWidths=[38 * mm, A4[0] - 2 * MARGIN - 38 * mm], hAlign="LEFT", spaceAfter=6)
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LINEBELOW", (0, 0), (-1, -1), 0.25, "#bbbbbb")]))
    return table


def _marked_up(text: str) -> str:
    return escape("".join(_printable(sign) for sign in text)).replace("\n", "<br/>")


def _printable(sign: str) -> str:
    """Return the sign, or its number where the font has none: a hole in the paper would prove something else."""
    if sign == "\n" or ord(sign) in pdfmetrics.getFont("Evidence").face.charToGlyph:
        return sign
    return f"[U+{ord(sign):04X}]"


def _number_page(canvas: Canvas, template: SimpleDocTemplate) -> None:
    canvas.setFont("Evidence", 8)
    canvas.drawRightString(A4[0] - MARGIN, 10 * mm, f"Seite {template.page}")
