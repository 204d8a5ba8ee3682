"""What every rule must have, read from the files of the workflow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tiny_project import ROOT

from vasculome.stages.catalog import CATALOG

RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
PART = re.compile(r"^    (\w+):(.*?)(?=^    \S|\Z)", re.MULTILINE | re.DOTALL)
TARGETS = {"all", "folds", "maps", "models", "report"}
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))


def _rules() -> dict[str, tuple[str, dict[str, str]]]:
    """Return the text of every rule and its parts by their names."""
    files = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]
    return {
        name: (body, dict(PART.findall(body)))
        for file in files
        for name, body in RULE.findall(file.read_text())
    }


RULES = _rules()
WORK = sorted(set(RULES) - TARGETS)


def test_every_stage_has_a_rule_and_a_script():
    assert set(CATALOG) <= set(WORK)
    assert {path.stem for path in SCRIPTS} == set(WORK)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_docstring_is_one_line(rule):
    first = RULES[rule][0].strip().splitlines()[0]
    assert re.fullmatch(r'""".+\."""', first)


@pytest.mark.parametrize("rule", WORK)
def test_rule_is_complete(rule):
    _, parts = RULES[rule]
    needed = {"input", "output", "log", "benchmark", "threads", "resources", "script"}
    assert needed <= set(parts)
    assert "run" not in parts and "shell" not in parts
    for part in ("input", "output"):
        entries = [line for line in parts[part].splitlines() if re.match(r" {8}\S", line)]
        assert all(re.match(r" {8}(\w+=|[])],?)", line) for line in entries), f"{part} unnamed"
    assert "mem_mb=" in parts["resources"] and "runtime=" in parts["resources"]
    assert parts["script"].strip() == f'"../scripts/{rule}.py"'


@pytest.mark.parametrize("stage", CATALOG)
def test_stage_is_known_by_its_own_name(stage):
    _, parts = RULES[stage]
    assert f'mem_mb("{stage}")' in parts["resources"]
    assert f'identity("{stage}")' in parts["params"]
    assert f"manifests/{stage}.json" in parts["output"]
    # What a rule waits for, and what its digest depends on, are told twice; but for a stage that
    # not every sample has.
    if f'inputs_of_stage("{stage}")' not in parts["input"]:
        read = re.findall(r"rules\.(\w+)\.output\.manifest", parts["input"])
        assert sorted(read) == sorted(CATALOG[stage].inputs)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_calls_one_function(script: Path):
    text = script.read_text()
    assert len(text.splitlines()) <= 20
    _, *statements = ast.parse(text).body
    *imports, call = statements
    assert all(isinstance(statement, ast.ImportFrom) for statement in imports)
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)


def test_snakefile_is_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 60
