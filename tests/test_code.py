"""What no file of the project may contain."""

import ast
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FORBIDDEN = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "load_module"}
STARTS_PROCESSES = {
    "cradl_jax/storage/manifest.py",  # git rev-parse
    "cradl_jax/cli/tuning.py",  # Python, to time a sort
    "cradl_jax/preparation/extraction.py",  # the tool that the user names
}


def test_no_code_unpickles_or_executes_what_it_reads():
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    ours = [name for name in tracked if not name.startswith("tests/")]
    assert len(ours) > 80
    for name in ours:
        for node in ast.walk(ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert not any(module.startswith("jax._src") for module in modules), name
            tops = {module.split(".")[0] for module in modules}
            assert not tops & FORBIDDEN, f"{name} imports {tops}"
            assert "subprocess" not in tops or name in STARTS_PROCESSES, name
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", None)
                assert called not in CALLS, f"{name}, line {node.lineno}: {called}"
                assert getattr(node.func, "attr", None) not in {"system", "popen"}, name
                for keyword in node.keywords:
                    unsafe = keyword.arg in ("allow_pickle", "shell")
                    assert not unsafe or ast.literal_eval(keyword.value) is False, name
