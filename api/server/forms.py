"""Forms with photos of one person: their OpenAPI description, their fields, and the aligned faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.server.errors import InvalidFields, MalformedRequest, invalid_fields
from api.server.uploads import MAX_PHOTOS, Form
from core import errors
from hyperdreambooth import schemas

FieldsT = TypeVar("FieldsT", bound=BaseModel)
_OPTION = "options."

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
    errors.ServiceBusy,
    errors.Unavailable,
    errors.BrokerUnavailable,
    errors.StoreUnavailable,
)
"""The errors that sending photos can end in."""


CHECK_ERRORS = (
    MalformedRequest,
    errors.UploadTooLarge,
    errors.UnsupportedMediaType,
    errors.InvalidInput,
    errors.Unavailable,
)
"""The errors that a mere check of photos can end in: what speaks against them is its answer."""

_PHOTO = {
    "description": "1 to 8 photos with one face each: JPEG, PNG, WebP or AVIF, and HEIC where its decoder is "
    "installed; at most 10 MB and 25 megapixels each, 20 MB in all.",
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_PHOTOS,
    "items": {"type": "string", "format": "binary"},
}
_FACE = {
    "description": "Which face is meant, where several are in a photo: its number in `errors[].faces` of the "
    "refusal, or a box around it, `left,top,right,bottom` as fractions of the upright photo. Of several "
    "photos: one for each, separated by semicolons, empty where none is needed.",
    "type": "string",
    "maxLength": 500,
    "pattern": "^[0-9., ;]*$",
}


def photo_form(example: dict[str, Any], **fields: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of an operation that takes photos, consent and options, and these `fields` besides."""
    properties = {
        "photo": _PHOTO,
        "consent": {"description": "The person in the photo has agreed.", "type": "boolean", "const": True},
        "keep_photos": {
            "description": "Keep the aligned photos, to learn from them again when more come; otherwise they go when "
            "personalizing ends.",
            "type": "boolean",
        },
        "face": _FACE,
        **fields,
        "options": {
            "description": "As JSON, or each as a field of its own: `options.steps=20`.",
            "$ref": "#/components/schemas/PersonalizeOptions",
        },
    }
    return _form(properties, ["photo", "consent"], {"consent": True, **example})


def _form(properties: dict[str, Any], required: list[str], example: dict[str, Any]) -> dict[str, Any]:
    kinds = {"photo": "image/jpeg, image/png, image/webp, image/avif, image/heic", "options": "application/json"}
    media = {
        "schema": {
            "type": "object",
            "required": required,
            "additionalProperties": False,
            "properties": properties,
        },
        "example": {"photo": ["me.jpg"], **example},
        "encoding": {name: {"contentType": kind} for name, kind in kinds.items() if name in properties},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": media}}}


CHECK_FORM = _form({"photo": _PHOTO, "face": _FACE}, ["photo"], {})
"""The `openapi_extra` of the operation that only checks photos."""


def read_fields(form: Form, model: type[FieldsT]) -> tuple[FieldsT, schemas.PersonalizeOptions]:
    """The fields beside the photos, of which there must be one, and the options. Raises InvalidFields."""
    fields = dict(form.fields)
    options = _read_options(fields)
    return validated(replace(form, fields=fields), model), options


def validated(form: Form, model: type[FieldsT]) -> FieldsT:
    """The fields beside the photos, of which there must be one. Raises InvalidFields.

    A yes or no is written as forms and programs write it: `true`, `True`, `1`, `on`.
    """
    fields = _checked(partial(model.model_validate, form.fields, strict=False))
    if not form.photos:
        raise InvalidFields([schemas.FieldProblem(field="photo", message="Send at least one photo.")])
    return fields


def _read_options(fields: dict[str, str]) -> schemas.PersonalizeOptions:
    """The field `options` as JSON and those called `options.NAME`, which are taken out of `fields`."""
    text = fields.pop("options", "{}")
    each = {name.removeprefix(_OPTION): fields.pop(name) for name in list(fields) if name.startswith(_OPTION)}
    whole = _checked(partial(schemas.PersonalizeOptions.model_validate_json, text), within="options")
    single = _checked(partial(schemas.PersonalizeOptions.model_validate, each, strict=False), within="options")
    if twice := sorted(whole.model_fields_set & single.model_fields_set):
        raise InvalidFields([schemas.FieldProblem(field=_OPTION + twice[0], message="Send this field once.")])
    return whole.model_copy(update={name: getattr(single, name) for name in single.model_fields_set})


def _checked(read: Callable[[], FieldsT], *, within: str = "") -> FieldsT:
    try:
        return read()
    except ValidationError as error:
        raise invalid_fields(error.errors(), within=within) from None
