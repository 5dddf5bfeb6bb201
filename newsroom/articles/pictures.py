"""A picture as it is published: of a size that loads fast, and without what the camera wrote into it."""

from io import BytesIO
from pathlib import PurePath

from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.utils.text import slugify
from PIL import Image, ImageOps

# The widest column is 60rem; twice that on a dense screen gains nothing anyone sees.
MAXIMUM_SIZE = (1600, 1600)


def as_published(upload: UploadedFile) -> ContentFile:
    """Return the picture as JPEG: upright, at most 1600 pixels wide or high, without place, time or device."""
    upload.seek(0)
    with Image.open(upload) as original:
        picture = _on_white(ImageOps.exif_transpose(original))
    picture.thumbnail(MAXIMUM_SIZE, Image.Resampling.LANCZOS)
    jpeg = BytesIO()
    picture.save(jpeg, "JPEG", quality=82, optimize=True, progressive=True)
    # In a URL a letter beyond ASCII takes up to twelve characters, and mails hold only so many.
    return ContentFile(jpeg.getvalue(), name=f"{slugify(PurePath(upload.name or '').stem)[:60] or 'picture'}.jpg")


def _on_white(picture: Image.Image) -> Image.Image:
    """Mail programs in dark mode would show through transparency."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    with_alpha = picture.convert("RGBA")
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(with_alpha, mask=with_alpha)
    return ground
