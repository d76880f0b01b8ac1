"""No code comes out of data: nothing in the four packages unpickles, evaluates text, or hands text to a shell."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.dataset import read_dataset
from schemas.errors import InputError

PROJECT = Path(__file__).parents[1]
ROOMS = ("flows", "modeling", "preprocessing", "schemas")
MODULES = {
    "pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
    "commands",
    "telnetlib",
}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"}
YAML = {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.full_load_all"}
SAFE = ("SafeLoader", "CSafeLoader")


def problems(text: str) -> Iterator[str]:
    """What a file does that could run code from data, with its line."""
    tree = ast.parse(text)
    safe = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and _of_safe(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno}: {name}" for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            loader = given.get("Loader") or (ast.unparse(node.args[1]) if len(node.args) > 1 else "")
            bad = (
                name in CALLS
                or (name in ("torch.load", "load_state_dict_from_url") and given.get("weights_only") != "True")
                or (name in YAML and loader.rpartition(".")[2] not in {*SAFE, *safe})
                or given.get("allow_pickle") == "True"
                or given.get("shell") not in (None, "False")
                or given.get("trust_remote_code") not in (None, "False")
            )
            if bad:
                yield f"{node.lineno}: {ast.unparse(node)[:80]}"


def _of_safe(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2] in SAFE for base in node.bases)


def test_nothing_runs_code_from_data() -> None:
    found = []
    for room in ROOMS:
        for path in sorted((PROJECT / room).rglob("*.py")):
            found += [f"{path.relative_to(PROJECT)}:{problem}" for problem in problems(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_it_would_be_found(text: str) -> None:
    assert list(problems(text))


def test_what_is_safe_is_left_alone() -> None:
    text = "class Ours(yaml.SafeLoader): pass\nyaml.load(text, Loader=Ours)\ntorch.load(path, weights_only=True)\nmodel.eval()"
    assert not list(problems(text))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop:s3cret@files.example/events",
        "s3://KEY:s3cret@bucket/events",
        "https://files.example/events?X-Amz-Signature=s3cret",
        "https://files.example/events?a=b&sig=s3cret",
        "https://files.example/events?access_token=s3cret",
    ],
)
def test_a_source_with_a_password_is_refused_without_saying_it(url: str) -> None:
    with pytest.raises(InputError, match="holds a password or a key") as refused:
        read_dataset("demo").at(url)
    assert "s3cret" not in str(refused.value) and "environment" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/events",
        "abfss://events@account.dfs.example/2024",
        "https://files.example/events?day=3&keyword=a&design=b",
    ],
)
def test_other_urls_are_taken(url: str) -> None:
    assert read_dataset("demo").at(url).source == url


def test_an_audit_tells_vulnerabilities_from_what_no_database_knows() -> None:
    path = PROJECT / ".ci" / "audit.py"
    audit = (
        importlib.util.module_from_spec(spec)
        if (spec := importlib.util.spec_from_file_location("audit", path))
        else None
    )
    assert spec and spec.loader and audit
    spec.loader.exec_module(audit)
    faulty = {"name": "shelf", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
    unknown = {"name": "own", "version": "2", "skip_reason": "not found"}
    assert audit.audited(json.dumps({"dependencies": [faulty, unknown]})) == (1, ["shelf 1.0: CVE-1, mended in 1.1"])
    assert audit.audited(json.dumps({"dependencies": [unknown]})) == (0, [])
