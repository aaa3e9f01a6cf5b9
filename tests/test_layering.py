"""The import rule of the architecture: parts never import each other, ray and torch stay where they belong."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "serve_app"
PARTS = ("api", "preprocess", "synthesis", "loadtest")
RAY_ALLOWED = {
    "app.py",
    "cli.py",
    "api/ingress.py",
    "preprocess/deployment.py",
    "synthesis/deployment.py",
    "synthesis/router.py",
}
FILES = sorted(ROOT.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything `path` imports, at any depth of its code."""
    package = ("serve_app", *path.relative_to(ROOT).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def imports_package(names: set[str], package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_keeps_the_import_rule(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    part = relative.split("/")[0] if "/" in relative else None
    names = imported_modules(path)

    if relative not in RAY_ALLOWED:
        assert not imports_package(names, "ray"), f"{relative} must not import ray"
    torch_allowed = part in ("model", "synthesis", "evaluate") or relative == "preprocess/features.py"
    if not torch_allowed or relative == "synthesis/scheduler.py":
        assert not imports_package(names, "torch"), f"{relative} must not import torch"

    if part == "model":
        foreign = {n for n in names if n.startswith("serve_app") and not n.startswith("serve_app.model")}
        assert not foreign, f"model/ imports nothing of ours, but {relative} imports {foreign}"
    elif part in PARTS:
        for other in PARTS:
            if other != part:
                assert not imports_package(names, f"serve_app.{other}"), f"{relative} imports serve_app.{other}"
        if part != "synthesis":
            assert not imports_package(names, "serve_app.model"), f"{relative} imports serve_app.model"
    elif relative in ("messages.py", "errors.py", "config.py"):
        assert not imports_package(names, "serve_app"), f"{relative} is a leaf"
    if part is not None:
        for top in ("app", "cli"):
            assert not imports_package(names, f"serve_app.{top}"), f"{relative} imports serve_app.{top}"


def test_the_rule_sees_files() -> None:
    assert len(FILES) > 5
