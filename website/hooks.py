"""Hooks of MkDocs: pages that are generated at build time, and links that work both on GitHub and on the site."""

import fnmatch
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
sys.path.insert(0, str(Path(__file__).parent))
import reference
from studies import age_of

REPOSITORY = Path(__file__).parents[1]
# Files outside of docs/ that are pages of the site.
RENAMED = {
    "README.md": "index.md",
    "README.ja.md": "ja/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
FOLDERS = ("experiments", "benchmarks")  # their README.md files and pictures
# The generated pages by their path, for the functions below, which MkDocs calls one after another.
GENERATED: dict[str, str] = {}
LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\])\(([^)\s]+)\)")
# A line break between two Japanese characters, which a browser would show as a space.
BREAK = re.compile(r"(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def copied_files() -> dict[str, Path]:
    """Return the path on the site of each file of the repository that lies outside of docs/."""
    found = {RENAMED[name]: REPOSITORY / name for name in RENAMED}
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.name == "README.md" or path.suffix == ".png":
                found[path.relative_to(REPOSITORY).as_posix()] = path
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Generate the reference, and replace the items of `nav` that end with * by the pages that they stand for."""
    GENERATED.clear()
    GENERATED.update(reference.generate())
    docs = Path(config.docs_dir)
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    pages |= {path for path in (*copied_files(), *GENERATED) if path.endswith(".md")}
    named = _named(config.nav)
    config.nav = _expand(config.nav, sorted(pages - named))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files outside of docs/."""
    for uri, text in GENERATED.items():
        files.append(File.generated(config, uri, content=text))
    for uri, path in copied_files().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite links between files of the repository as links between pages. Others become plain text."""
    uri = page.file.src_uri
    if page.parent is None:  # it has no neighbours to list beside it
        page.meta.setdefault("hide", ["navigation"])
    if uri in GENERATED:
        return markdown
    if uri.startswith("experiments/") and uri.count("/") == 2 and (age := age_of(REPOSITORY / uri)):
        title, _, text = markdown.partition("\n")
        markdown = f'{title}\n\n!!! note "Older than the code"\n    {age}\n{text}'
    own = next((old for old, new in RENAMED.items() if new == uri), uri if uri in copied_files() else f"docs/{uri}")
    pieces, end = [], 0
    for fence in FENCE.finditer(markdown):  # code is left as it is
        pieces += [_relink(markdown[end : fence.start()], own, uri), fence[0]]
        end = fence.end()
    return "".join([*pieces, _relink(markdown[end:], own, uri)])


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Mark the language of Japanese pages."""
    return output.replace('<html lang="en"', '<html lang="ja"', 1) if page.file.src_uri.startswith("ja/") else output


def _relink(text: str, own: str, uri: str) -> str:
    """Return a text of the file `own` of the repository with the links of the page `uri`."""

    def replace(match: re.Match[str]) -> str:
        path, sign, anchor = match[2].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = _on_site(posixpath.normpath(posixpath.join(posixpath.dirname(own), path)))
        if target is None:  # such as a file of src/: the site does not have it
            return match[1].removeprefix("!")[1:-1]
        text = f"[{_title(path, match[1][1:-1])}]" if match[1].endswith(".md]") else match[1]
        return f"{text}({posixpath.relpath(target, posixpath.dirname(uri) or '.')}{sign}{anchor})"

    return BREAK.sub("", LINK.sub(replace, text))


def _title(path: str, text: str) -> str:
    """Return the title of a page that a link names by its path, such as `docs/data.md`."""
    file = REPOSITORY / "docs" / posixpath.basename(path)
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") if file.exists() else text


def _on_site(path: str) -> str | None:
    """Return the path on the site of a file or folder of the repository; None if the site does not have it."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    candidates = (RENAMED.get(path, path), f"{path}/README.md")
    return next((each for each in candidates if each in copied_files()), None)


def _named(nav: Any) -> set[str]:
    if isinstance(nav, str):
        return {nav} - {"*"}
    items = nav.values() if isinstance(nav, dict) else nav
    return set().union(*map(_named, items))


def _expand(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [each for item in nav for each in _items(item, pages)]
    return {title: _expand(value, pages) for title, value in nav.items()} if isinstance(nav, dict) else nav


def _items(item: Any, pages: list[str]) -> list[Any]:
    """Return the items that one item of a list stands for."""
    if item == "*":  # pages of docs/ itself
        return [page for page in pages if "/" not in page]
    if isinstance(item, dict):
        ((title, value),) = item.items()
        if isinstance(value, str) and value.endswith("*"):
            return [{title: _matching(value, pages)}]
    return [_expand(item, pages)]


def _matching(pattern: str, pages: list[str]) -> list[str]:
    """Return the matching pages, the index of the folder first."""
    index = {f"{pattern[:-1]}README.md", f"{pattern[:-1]}index.md"}
    return sorted(fnmatch.filter(pages, pattern), key=lambda page: (page not in index, page))
