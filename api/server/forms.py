"""Forms with photos of one person: their OpenAPI description, their fields, and the aligned faces."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.server.errors import InvalidFields, MalformedRequest, invalid_fields
from api.server.uploads import MAX_PHOTOS, Form
from core import errors
from hyperdreambooth import schemas

FieldsT = TypeVar("FieldsT", bound=BaseModel)

PHOTO_ERRORS = (
    MalformedRequest,
    errors.UploadTooLarge,
    errors.UploadRefused,
    errors.ImageTooManyPixels,
    errors.UnsupportedMediaType,
    errors.ImageBroken,
    errors.ImageAnimated,
    errors.NoFace,
    errors.SeveralFaces,
    errors.FaceTooSmall,
    errors.FaceTooBlurred,
    errors.FaceTurnedAway,
    errors.FaceTooDark,
    errors.FaceTooBright,
    errors.FaceCutOff,
    errors.DifferentPeople,
    errors.InvalidInput,
    errors.QueueFull,
    errors.Unavailable,
    errors.BrokerUnavailable,
    errors.StoreUnavailable,
)
"""The errors that sending photos can end in."""


def photo_form(example: dict[str, Any], **fields: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of an operation that takes photos, consent and options, and these `fields` besides."""
    properties = {
        "photo": {
            "description": "1 to 8 photos with one face each: JPEG, PNG, WebP or AVIF, and HEIC where its decoder is "
            "installed; at most 10 MB and 25 megapixels each, 20 MB in all.",
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_PHOTOS,
            "items": {"type": "string", "format": "binary"},
        },
        "consent": {"description": "The person in the photo has agreed.", "enum": ["true"]},
        "keep_photos": {
            "description": "Keep the aligned photos, to learn from them again when more come; otherwise they go when "
            "personalizing ends.",
            "enum": ["true", "false"],
        },
        "face": {
            "description": "Which face is meant, where several are in a photo: its number in `errors[].faces` of the "
            "refusal, or a box around it, `left,top,right,bottom` as fractions of the upright photo. Of several "
            "photos: one for each, separated by semicolons, empty where none is needed.",
            "type": "string",
            "maxLength": 500,
            "pattern": "^[0-9., ;]*$",
        },
        **fields,
        "options": {"$ref": "#/components/schemas/PersonalizeOptions"},
    }
    media = {
        "schema": {
            "type": "object",
            "required": ["photo", "consent"],
            "additionalProperties": False,
            "properties": properties,
        },
        "example": {"photo": ["me.jpg"], "consent": "true", **example},
        "encoding": {
            "photo": {"contentType": "image/jpeg, image/png, image/webp, image/avif, image/heic"},
            "options": {"contentType": "application/json"},
        },
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": media}}}


def read_fields(form: Form, model: type[FieldsT]) -> tuple[FieldsT, schemas.PersonalizeOptions]:
    """The fields beside the photos, of which there must be one, and the options. Raises InvalidFields."""
    try:
        fields = model.model_validate(form.fields)
    except ValidationError as error:
        raise invalid_fields(error.errors()) from None
    try:
        options = schemas.PersonalizeOptions.model_validate_json(form.fields.get("options", "{}"))
    except ValidationError as error:
        raise invalid_fields(error.errors(), within="options") from None
    if not form.photos:
        raise InvalidFields([schemas.FieldProblem(field="photo", message="Send at least one photo.")])
    return fields, options
