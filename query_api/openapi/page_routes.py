"""The routes that tell of the others, as the API page tells them. Pure data."""

from typing import Final

from ingest.contract.openapi import Example, Operation, Part, answer

DOCUMENT: Final = "/openapi.json"
PAGE: Final = "/docs"

DESCRIPTIONS: Final = Part(
    tag="This page",
    tag_description="No key; nothing in them comes from elsewhere, so they work without internet.",
    operations=(
        Operation(
            method="GET",
            path=DOCUMENT,
            name="getOpenApi",
            tag="This page",
            summary="This API as OpenAPI 3.1",
            description="For generators of clients, importers and tests.",
            answers={200: answer("The document.", {"type": "object", "required": ["openapi", "info", "paths"]})},
            key=None,
            examples=(Example(title="The document"),),
        ),
        Operation(
            method="GET",
            path=PAGE,
            name="getDocs",
            tag="This page",
            summary="This page",
            description="",
            answers={200: answer("The page.", {"type": "string"}, media="text/html")},
            key=None,
            examples=(Example(title="The page"),),
        ),
    ),
)
