"""The README and the docs: their Python runs, their commands exist, their table is the code's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "_generated" not in p.parts),
]
SHELL = {"cd", "git", "make", "deeplegato", "python", "python3", "pip", ".venv/bin/python"}
"""The programs that a reader is told to run, besides those in .venv/bin."""


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language; ```python title ... and the like count too."""
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block as words, comments and prompts left out."""
    lines = block.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines]
    return [w for w in words if w]


def unknown_commands(text: str, targets: set[str]) -> list[str]:
    """The commands of a page's shell blocks that do not exist."""
    unknown = []
    for language in ("bash", "sh", "shell", "console"):
        for words in (w for block in blocks(text, language) for w in commands(block)):
            program = words[0].removeprefix(".venv/bin/")
            if program not in SHELL and words[0] not in SHELL:
                unknown.append(" ".join(words))
            elif program == "make":
                unknown += [f"make {t}" for t in words[1:] if "=" not in t and t not in targets]
    return unknown


def subcommands(text: str) -> set[str]:
    """The subcommands of `deeplegato` that a page's shell blocks use."""
    return {
        words[1]
        for block in blocks(text, "bash")
        for words in commands(block)
        if words[0].endswith("deeplegato") and len(words) > 1 and not words[1].startswith("-")
    }


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    code = blocks(page.read_text(encoding="utf-8"), "python")
    if not code:
        pytest.skip("no Python on this page")
    (tmp_path / "src").symlink_to(ROOT / "src")  # paths in the docs start at the repository
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for block in code:
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_shell_blocks_name_what_exists(page, targets):
    assert not unknown_commands(page.read_text(encoding="utf-8"), targets)


@pytest.mark.parametrize(
    "name", sorted(set().union(*(subcommands(p.read_text(encoding="utf-8")) for p in PAGES)))
)
def test_subcommands_of_the_docs_exist(name):
    code = "import sys; from deeplegato_pp.cli.app import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, name, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr


def test_the_check_of_shell_blocks_can_fail():
    page = "```bash\nmake demo\nmake nothing X=1\nfrobnicate now # a comment\n```\n"
    assert unknown_commands(page, {"demo"}) == ["make nothing", "frobnicate now"]


def test_links_between_pages_lead_somewhere():
    lost = [
        f"{page.name}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not link.startswith(("http:", "https:", "mailto:")) and not (page.parent / link).exists()
    ]
    assert not lost


def test_files_that_are_pages_of_the_site_link_to_pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import reference

    for source in reference.COPIES:
        text = reference.copy_of(ROOT / source)
        assert text.startswith("#")
        assert "](docs/" not in text
    with pytest.raises(ValueError, match="no page of the site"):
        reference._links("[x](nowhere.md)", ROOT)


def test_the_parameter_table_of_the_conventions_is_the_codes():
    from deeplegato_pp import PARAMETERS

    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w*) \| ([-\d.]+) to ([-\d.]+) \| (\w+) \|", text, re.M)
    expected = [(p.name, p.unit, p.lower, p.upper, p.scale) for p in PARAMETERS]
    assert [(n, u, float(lo), float(hi), s) for n, u, lo, hi, s in rows] == expected


def test_versions_agree():
    import deeplegato_pp

    version = deeplegato_pp.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]


def test_the_oldest_versions_of_the_docs_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [line for extra in ("survey", "train", "view") for line in extras[extra]]
    wanted += project["dependencies"]
    bounds = dict(re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups() for line in wanted)
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", text, re.MULTILINE))
    assert table == bounds


def test_the_badges_are_true():
    import deeplegato_pp

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [c.rsplit(" ", 1)[1] for c in project["classifiers"] if "Python :: 3." in c]
    badges = dict(re.findall(r"img\.shields\.io/badge/(\w+)-(.+?)-\w{6}\)", text))
    assert badges == {
        "python": f"{named[0]}%20to%20{named[-1]}",
        "version": deeplegato_pp.__version__,
        "licence": project["license"],
    }
    assert project["requires-python"] == f">={named[0]}"
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert all(f'"{version}"' in workflow for version in named)


def test_the_table_of_original_keys_is_the_codes():
    from deeplegato_pp.config.spelling import MOVED

    text = (ROOT / "docs" / "original_design.md").read_text(encoding="utf-8")
    section = text.split("## Configuration keys")[1]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", section, re.MULTILINE))
    special = {"model.num_params", "data.priors.center_offset"}
    assert {k: v.strip("`") for k, v in rows.items() if k not in special} == MOVED
    assert special <= rows.keys()


def test_a_readers_own_npe_stands_in_forty_lines():
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    lines = [line for line in blocks(text, "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 40
    assert "config" not in "\n".join(lines)


def test_llms_txt_names_every_page():
    text = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
    known = {"index.md", "original_design.md", "releasing.md"}  # a list, history, for developers
    missing = [
        page.name
        for page in PAGES
        if "docs" in page.parts and page.name not in known and f"{page.stem}.html" not in text
    ]
    assert not missing
    assert all((ROOT / "docs" / f"{n}.md").is_file() or n.startswith("_generated/")
               for n in re.findall(r"\(([\w/]+)\.html\)", text))  # fmt: skip


FOREIGN = {"array", "branch", "check-shapes", "cpus-per-task", "onnx-model", "requeue", "strict"}
"""Options of other programs (sbatch, coverage, pytest, SourceXtractor++, twine)."""


def test_options_of_the_docs_exist(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import reference

    scripts = "\n".join(p.read_text() for p in sorted((ROOT / "benchmarks").rglob("*.py")))
    known = set(re.findall(r"--([a-z][a-z-]+)", reference.command_line()))
    known |= set(re.findall(r'"--([a-z][a-z-]+)"', scripts)) | FOREIGN
    changelog = ROOT / "CHANGELOG.md"  # names what is gone, too
    unknown = [
        f"{page.name}: --{name}"
        for page in PAGES
        if page != changelog
        for name in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", page.read_text(encoding="utf-8"))
        if name not in known
    ]
    assert not unknown


def test_the_columns_of_the_docs_are_the_codes():
    from deeplegato_pp.catalog.columns import descriptions

    texts = {n: (ROOT / "docs" / f"{n}.md").read_text() for n in ("usage", "catalogue", "scenes")}
    columns = {
        name
        for scene in ("auto", "sersic+sersic")
        for name in descriptions(scene)
        if not re.search(r"_(std|noise|q\d+|error|tempered)$", name)
    }
    section = texts["usage"].split("## The columns")[1].split("\n## ")[0]
    first = "".join(re.findall(r"^\|([^|]+)\|", section, re.MULTILINE))
    named = set(re.findall(r"`(\w+)`", first))
    assert named <= {*descriptions(), "file"}
    parts = r"^(prior|host|point|bulge|disc|inner|outer)_"
    told = set(re.findall(r"`(\w+)`", "".join(texts.values())))
    assert {c for c in columns if not re.match(parts, c)} <= told
