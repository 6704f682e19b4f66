"""The house itself: imports go down, files stay short, and what is public says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cierzo

SOURCE = Path(cierzo.__file__).parent
ROOT = SOURCE.parent.parent

# A module, or a folder with all below it, and the floor that it stands on. The longest name that fits counts.
FLOORS = {
    "errors": -1,
    "schemas": 0,
    "messages": 1,
    "settings": 1,
    "telemetry": 2,
    "gguf_header": 1,
    "gguf_kind": 2,
    "machine": 0,
    "downloads": 1,
    "offered": 2,
    "settings_file": 1,
    "templates": 1,
    "model_names": 1,
    "formulas": 1,
    "rendering": 2,
    "pieces": 2,
    "prompt": 3,
    "catalog": 3,
    "estimates": 4,
    "pulling": 4,
    "engines.base": 2,
    "engines": 4,
    "store": 2,
    "listening": 2,
    "admission": 4,
    "underway": 3,
    "orphans": 4,
    "elsewhere": 4,
    "paths": 4,
    "replies": 5,
    "holding": 4,
    "chat": 5,
    "switching": 6,
    "titles": 4,
    "continuing": 4,
    "transfer": 6,
    "conversations": 7,
    "api": 8,
    "page": 8,
    "terminal": 8,
    "app": 9,
    "client": 10,
    "cli": 10,
    "": 11,
    "__main__": 11,
}

# Our own imports inside functions: only of optional, heavy parts that most runs never need.
LATE_IMPORTS = {
    ("app", "cierzo.page"): "the page stands before the API, whose libraries most commands do not need",
    ("app", "cierzo.page.drawn"): "the same",
    ("app", "cierzo.api"): "the API needs fastapi, and most commands do not",
    ("app", "cierzo.conversations"): "conversations that are kept need sqlalchemy, and one answer does not",
    ("app", "cierzo.replies"): "the same",
    ("app", "cierzo.store"): "the same",
    (
        "engines.hub",
        "cierzo.engines.providers",
    ): "Hugging Face's client takes a fifth of a second, and few engines need it",
}

LONGEST_FILE = 400


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        yield name, ast.parse(path.read_text("utf-8"))


def floor(module: str) -> int:
    fits = [name for name in FLOORS if module == name or (name and module.startswith(f"{name}."))]
    assert fits, f"{module} stands on no floor: give it one in this test"
    return FLOORS[max(fits, key=len)]


def imported(node: ast.AST) -> Iterator[str]:
    """Names of our own modules that an import statement asks for."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        parts = name.split(".")
        while parts and not _is_module(parts):
            parts.pop()
        if parts and parts[0] == "cierzo":
            yield ".".join(parts[1:])


def _is_module(parts: list[str]) -> bool:
    path = SOURCE.parent.joinpath(*parts)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_imports_go_down() -> None:
    wrong = [
        f"{module} (floor {floor(module)}) imports {target or 'cierzo'} (floor {floor(target)})"
        for module, tree in modules()
        for node in ast.walk(tree)
        for target in imported(node)
        if module and not _same_room(module, target) and floor(target) >= floor(module)
    ]
    assert not wrong, "\n".join(wrong)


def _same_room(module: str, target: str) -> bool:
    """A folder's files may use each other; only not in a circle, which the next test sees to."""
    return module.partition(".")[0] == target.partition(".")[0]


def test_no_import_in_a_circle() -> None:
    graph = {
        module: {
            target
            for node in ast.walk(tree)
            for target in imported(node)
            if target != module and not _only_for_types(tree, node)
        }
        for module, tree in modules()
        if module
    }

    def reach(start: str, seen: set[str]) -> set[str]:
        for following in graph.get(start, ()):
            if following not in seen:
                seen.add(following)
                reach(following, seen)
        return seen

    circles = [module for module in graph if module in reach(module, set())]
    assert not circles


def _only_for_types(tree: ast.Module, node: ast.AST) -> bool:
    return any(
        node in ast.walk(block)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
    )


def test_own_imports_stand_at_the_top() -> None:
    late = [
        f"{module} imports cierzo.{target} inside {function.name}"
        for module, tree in modules()
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        for target in imported(node)
        if (module, f"cierzo.{target}") not in LATE_IMPORTS
    ]
    assert not late, "\n".join(late)


def test_no_file_is_long() -> None:
    files = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".js", ".css")]
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


WEB = SOURCE / "page" / "web"
SVG = "http://www.w3.org/2000/svg"


def scripts() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(WEB.rglob("*.js"))}


def test_html_is_placed_in_one_place() -> None:
    """Text is text everywhere but where the server's own HTML is placed."""
    places = r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|srcdoc|createContextualFragment|DOMParser|document\.write"
    found = {name: re.findall(places, text) for name, text in scripts().items()}
    assert {name: places for name, places in found.items() if places} == {"message.js": ["innerHTML"]}


def test_no_text_is_run_as_a_program() -> None:
    forms = r"\beval\s*\(|\bFunction\s*\(|\bset(?:Timeout|Interval)\s*\(\s*[\"'`]|javascript:|importScripts"
    assert {name: found for name, text in scripts().items() if (found := re.findall(forms, text))} == {}


def test_scripts_name_no_other_host() -> None:
    """Only the name of a namespace looks like an address; the page's own parts have addresses without a host."""
    address = re.compile(r"(?:https?|wss?)://[^\s\"'`]*|[\"'`(]//[\w.-]+\.\w+")
    found = {name: {place for place in address.findall(text) if place != SVG} for name, text in scripts().items()}
    assert {name: places for name, places in found.items() if places} == {}
    for path in [*WEB.glob("*.css"), *WEB.glob("*.html"), *WEB.glob("*.webmanifest"), *WEB.glob("*.svg")]:
        text = path.read_text("utf-8")
        assert set(address.findall(text)) <= {SVG}, path.name
        assert "@import" not in text


def test_no_id_leads_to_another_address_of_the_api() -> None:
    """An id may come from a file that somebody made: what is put into an address goes through ``at``."""
    loose = {name: re.findall(r"(?<!\bat)`/api/[^`]*`", text) for name, text in scripts().items()}
    assert {name: found for name, found in loose.items() if found} == {}
    assert sum(text.count("at`/api/") for text in scripts().values()) > 8


def test_only_the_api_module_asks_the_server() -> None:
    forms = r"\bfetch\s*\(|XMLHttpRequest|new\s+EventSource|new\s+WebSocket|sendBeacon|new\s+Worker|serviceWorker"
    assert {name for name, text in scripts().items() if re.search(forms, text)} == {"api.js"}


def test_environment_is_read_in_one_place() -> None:
    readers = {
        module
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    allowed = {
        "settings": "our own settings",
        "engines.child": "gives the engine's process a clean environment",
        "engines.supervisor": "gives the engine's process a clean environment",
        "page.drawn": "gives the process that draws an environment in which Gradio has no say",
        "terminal.language": "LANG and NO_COLOR belong to the terminal",
        "terminal.render": "LANG and NO_COLOR belong to the terminal",
    }
    assert readers <= set(allowed), readers - set(allowed)


def public() -> Iterator[tuple[str, object]]:
    for module, _ in modules():
        loaded = importlib.import_module(f"cierzo.{module}".rstrip("."))
        for name, value in vars(loaded).items():
            own = getattr(value, "__module__", None) == loaded.__name__
            if not name.startswith("_") and own and (inspect.isclass(value) or inspect.isfunction(value)):
                yield f"{loaded.__name__}.{name}", value


def test_what_is_public_has_a_docstring() -> None:
    assert [name for name, value in public() if not inspect.getdoc(value)] == []


def test_every_export_exists() -> None:
    assert [name for name in cierzo.__all__ if not hasattr(cierzo, name)] == []


def test_every_error_is_in_the_tree() -> None:
    drawn = re.findall(r"[A-Z]\w+", (importlib.import_module("cierzo.errors").__doc__ or "").split("\n\n")[1])
    defined = [name for name, value in public() if inspect.isclass(value) and issubclass(value, cierzo.CierzoError)]
    missing = {name.rsplit(".", 1)[1] for name in defined} - set(drawn)
    assert not missing, f"not drawn in the docstring of cierzo.errors: {missing}"
    assert all(name.startswith("cierzo.errors.") for name in defined)


def test_version_is_the_newest_in_the_change_log() -> None:
    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[?(\d+\.\d+\.\d+)", log, re.MULTILINE)[0] == cierzo.__version__


@pytest.mark.parametrize("readme", ["README.md", "README.es.md"])
def test_links_in_the_readme_lead_somewhere(readme: str) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / readme).read_text("utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_importing_cierzo_is_cheap() -> None:
    """Neither the page's nor the engine's libraries, nor the tokenizers, come with the package itself."""
    heavy = ("gradio", "xllamacpp", "mistral_common", "huggingface_hub", "numpy")
    code = f"import sys, cierzo; print([name for name in {heavy!r} if name in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
