"""Links of what people read, and the spelling of that and of the library; outputs of notebooks are left aside.

    make lint

Links are checked without a network: a file must exist, an anchor must be a heading of it, an http address must be well
formed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!\\)\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|(?:href|src)=\"([^\"]+)\"")
ABBREVIATIONS = "aand,fpr,oce,ot"  # a method, false-positive rate, one-class embedding, optimal transport: no slips
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def texts(root: Path) -> list[Path]:
    """The Markdown files and notebooks of the project."""
    folders = [root, *(root / name for name in ("data", "data/results", "notebooks", "tests/reference"))]
    return sorted(path for folder in folders for path in folder.glob("*") if path.suffix in (".md", ".ipynb"))


def cells(path: Path, *kinds: str) -> list[str]:
    """Sources of the cells of these kinds; a Markdown file is one cell."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")] if "markdown" in kinds else []
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type in kinds]


def anchors(path: Path) -> set[str]:
    """What may stand behind `#` in a link to this file: its headings, as GitHub and as JupyterLab write them."""
    found: set[str] = set()
    for text in cells(path, "markdown"):
        for heading in re.findall(r"^#+\s+(.+?)\s*$", CODE.sub("", text), re.MULTILINE):
            found |= {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"), heading.replace(" ", "-")}
    return found


def broken(path: Path) -> Iterator[str]:
    """What is wrong with the links of a file, a line each."""
    for text in cells(path, "markdown"):
        for match in LINK.finditer(CODE.sub("", text)):
            link = match[1] or match[2]
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                if "." not in parts.netloc:
                    yield f"{link}: no address; expected https://host.name/page"
                continue
            if parts.scheme:
                yield f"{link}: neither http(s) nor a file of the project"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{link}: no such file; links are relative to the file that they stand in"
            elif parts.fragment and unquote(parts.fragment) not in anchors(target):
                yield f"{link}: {target.name} has no such heading"


def misspelt(paths: list[Path], root: Path) -> list[str]:
    """What codespell finds in these texts and in the library, a line each."""
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", ABBREVIATIONS]
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            copy = Path(folder) / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("\n".join(cells(path, "markdown", "code")), encoding="utf-8")
        runs = [(folder, ["."])]
        runs += [(str(root), [name]) for name in ("kdlib", ".ci") if (root / name).exists()]
        found: list[str] = []
        for place, what in runs:
            result = subprocess.run([*command, *what], cwd=place, capture_output=True, text=True)
            if result.returncode and not result.stdout:
                raise SystemExit(f"codespell failed: {result.stderr}")
            found += result.stdout.splitlines()
    return found


def main(root: Path) -> int:
    """Prints what is wrong; 1 if something is."""
    paths = texts(root)
    wrong = [f"{path.relative_to(root)}: {fault}" for path in paths for fault in broken(path)]
    wrong += misspelt(paths, root)
    print("\n".join(wrong) or f"links and spelling of {len(paths)} texts are fine")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(ROOT))
