"""`/docs`: the description of this interface as a page that needs no other host."""

import html

from serve_app.api.openapi_schemas import Json

STYLE = (
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}code{background:#8882;padding:.1em}"
)


def page_of(document: Json) -> str:
    """Every operation with its fields and answers, as plain HTML: no script, nothing from elsewhere."""
    info = document["info"]
    rows = [f"<h1>{html.escape(info['title'])}</h1>"]
    rows += [f"<p>{html.escape(paragraph)}</p>" for paragraph in info["description"].split("\n\n")]
    rows.append('<p>The same for machines: <a href="openapi.json">openapi.json</a></p>')
    for path, item in document["paths"].items():
        for method in ("get", "post", "delete"):
            if method in item:
                rows += operation_rows(f"{method.upper()} {path}", item[method], document["components"]["schemas"])
    head = f'<meta charset="utf-8"><title>{html.escape(info["title"])}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(rows)}</body></html>'


def operation_rows(title: str, described: Json, known: Json) -> list[str]:
    rows = [f"<h2><code>{html.escape(title)}</code></h2><p>{html.escape(described['summary'])}</p>"]
    for media_type, content in described.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        schema = known[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        rows.append(f"<p>Body: <code>{html.escape(media_type)}</code></p><ul>")
        for name, about in schema["properties"].items():
            needed = ", required" if name in schema.get("required", ()) else ""
            words = html.escape(str(about.get("description", "")))
            rows.append(f"<li><code>{html.escape(name)}</code>{needed} {words}</li>")
        rows.append("</ul>")
    answers = [
        f"<li>{status}: {html.escape(answer['description'])}</li>" for status, answer in described["responses"].items()
    ]
    return [*rows, "<ul>", *answers, "</ul>"]
