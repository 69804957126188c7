"""Print the OpenAPI document of the HTTP interface (the content of openapi.json).

Exit codes: 0 success, 2 for wrong arguments.
"""

from app.cli import OK, say_json, typed

app = typed.application(None)


@app.command(help=__doc__)
def openapi() -> int:
    from app.api import openapi_document

    say_json(openapi_document())
    return OK
