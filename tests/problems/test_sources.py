"""Which files a problem is written in, and that no number of its data can change unnoticed."""

import importlib
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from steelyard.problems import Data, Split, load_problem, problem_names
from steelyard.problems.sources import code_digest, data_digests, libraries, sources_of

PROBLEM = """
from torch import nn
from steelyard.problems import Problem, regression
{imports}
problem = Problem("mine", [regression("a")], None, nn.Identity, nn.Identity)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of modules that import each other in every way; they are forgotten afterwards."""
    before = set(sys.modules)
    files = {
        "src_plain.py": "LABEL = 1\n",
        "src_from.py": "from src_deep import VALUE\n",
        "src_deep.py": "VALUE = 1\n",
        "src_lazy.py": "WIDTH = 1\n",
        "src_named.py": "NAME = 1\n",
        "src_unused.py": "NOTHING = 1\n",
        "src_package/__init__.py": "from . import first\n",
        "src_package/first.py": "from .inner.second import X\n",
        "src_package/inner/__init__.py": "",
        "src_package/inner/second.py": "from ..third import X\n",
        "src_package/third.py": "X = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("src_"):
            del sys.modules[name]
    importlib.invalidate_caches()


def write(folder, imports="import src_plain"):
    path = folder / "mine.py"
    path.write_text(PROBLEM.format(imports=imports))
    return str(path)


IMPORTS = {
    "import src_plain": ["src_plain.py"],
    "from src_plain import LABEL": ["src_plain.py"],
    "from src_from import VALUE": ["src_from.py", "src_deep.py"],
    "def load():\n    import src_lazy": ["src_lazy.py"],
    "import importlib\nimportlib.import_module('src_' + 'named')": ["src_named.py"],
    "import src_package.first as first": [
        *("src_package/__init__.py", "src_package/first.py", "src_package/third.py"),
        *("src_package/inner/__init__.py", "src_package/inner/second.py"),
    ],
}


@pytest.mark.parametrize("imports", IMPORTS)
def test_every_edit_of_what_is_imported_makes_another_problem_and_undone_the_same(folder, imports):
    path = write(folder, imports)
    first = load_problem(path)
    assert {file.relative_to(folder).as_posix() for file in first.sources.values()} == {"mine.py", *IMPORTS[imports]}
    assert load_problem(path) is first
    for name in ["mine.py", *IMPORTS[imports]]:
        text = (folder / name).read_text()
        (folder / name).write_text(text + "# edited\n")
        edited = load_problem(path)
        assert edited.fingerprint != first.fingerprint
        (folder / name).write_text(text)
        assert load_problem(path).fingerprint == first.fingerprint
    (folder / "src_unused.py").write_text("NOTHING = 2\n")
    assert load_problem(path).fingerprint == first.fingerprint


def test_an_edited_neighbour_is_imported_anew_in_the_same_process(folder):
    path = write(folder, "from src_from import VALUE\nlabel = VALUE")
    load_problem(path)
    (folder / "src_deep.py").write_text("VALUE = 2\n")
    load_problem(path)
    module = next(m for n, m in sys.modules.items() if n.startswith("steelyard_problem_") and m.__file__ == path)
    assert module.label == 2


def test_neither_pythons_nor_installed_nor_own_modules_are_followed(folder):
    path = write(folder, "import json, numpy, sklearn.datasets, torch, steelyard.problems.builtin.digits")
    assert set(load_problem(path).sources) == {""}


def test_a_moved_folder_is_the_same_code(folder, tmp_path_factory):
    path = write(folder)
    other = tmp_path_factory.mktemp("other") / "mine.py"
    other.write_text(Path(path).read_text())
    assert code_digest({"": other}) == code_digest({"": folder / "mine.py"})
    assert code_digest({"a": other}) != code_digest({"": other})


@pytest.mark.parametrize("name", problem_names())
def test_every_registered_problem_knows_its_file(name):
    (file,) = load_problem(name).sources.values()
    assert file.is_file()
    assert "Problem(" in file.read_text() or "problem(" in file.read_text()


def test_a_file_that_cannot_be_parsed_has_no_imports(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert sources_of(tmp_path / "broken.py") == {"": tmp_path / "broken.py"}


def data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def split(rows):
        x = torch.randn(rows, 3, generator=generator).to(dtype)
        return Split((x, x[:, 0].contiguous()), {"a": torch.arange(rows), "b": torch.zeros(rows, dtype=torch.bool)})

    return Data(split(5), split(4), split(3))


def data_digest(found):
    return tuple(data_digests(found).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_every_number_of_every_split_counts(dtype):
    right = data_digest(data(dtype))
    assert data_digest(data(dtype)) == right
    found = {right}
    places = 0
    for name in ("train", "validation", "test"):
        for key in (0, 1, "a", "b"):
            changed = data(dtype)
            split = changed.splits()[name]
            tensor = split.targets[key] if isinstance(key, str) else split.inputs[key]
            flat = tensor.view(-1)
            for at in range(len(flat)):
                before = flat[at].clone()
                flat[at] = ~before if tensor.dtype == torch.bool else before + 1
                found.add(data_digest(changed))
                (differs,) = set(data_digest(changed)) - set(right)  # and is named
                assert differs[0] == f"{key!r} of {name}" if isinstance(key, str) else f"inputs {key} of {name}"
                flat[at] = before
                places += 1
    assert len(found) == places + 1


def test_type_shape_and_name_count():
    found = {data_digest(data(dtype)) for dtype in (torch.float32, torch.float64)}
    reshaped, renamed = data(), data()
    reshaped.test.inputs = (reshaped.test.inputs[0].reshape(1, 3, 3), reshaped.test.inputs[1])
    renamed.test.targets["c"] = renamed.test.targets.pop("a")
    assert len(found | {data_digest(reshaped), data_digest(renamed)}) == 4
    empty = data()
    empty.test.targets["a"] = torch.zeros(0)
    data_digest(empty)


def test_versions_are_those_of_the_installed_packages_that_are_imported(folder):
    (folder / "src_plain.py").write_text(
        "import json, numpy.linalg\nfrom sklearn import svm\nimport src_from, nowhere\n"
    )
    found = libraries(sources_of(folder / "src_plain.py"))
    assert found == {
        name: metadata.version(package) for name, package in (("numpy", "numpy"), ("sklearn", "scikit-learn"))
    }


def installed_into(folder, module, *, editable=False):
    """What an installer leaves of a package: its module (or, of an editable one, nothing) and a record."""
    package, record = folder / module, folder / f"{module}-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    listed = [f"{record.name}/METADATA,,"]
    if not editable:
        package.mkdir()
        (package / "__init__.py").write_text("from . import inner")
        (package / "inner.py").write_text("")
        listed += [f"{module}/__init__.py,,", f"{module}/inner.py,,"]
    (record / "RECORD").write_text("\n".join(listed) + "\n")
    return folder


@pytest.mark.parametrize(
    "where", ["other/lib/python3/site-packages", "usr/lib/python3/dist-packages", "a target", "linked to"]
)
def test_what_is_installed_is_not_the_users_wherever_it_lies(tmp_path, monkeypatch, where):
    folder = installed_into(tmp_path / where, "a_library")
    if where == "linked to":
        (tmp_path / "site-packages").mkdir()
        (tmp_path / "site-packages" / "a_library").symlink_to(folder / "a_library")
        monkeypatch.syspath_prepend(tmp_path / "site-packages")
    else:
        monkeypatch.syspath_prepend(folder)
    problem = tmp_path / "problem.py"
    problem.write_text("import a_library.inner")
    assert set(sources_of(problem)) == {""}


def test_what_is_installed_to_be_edited_is_the_users(tmp_path, monkeypatch):
    """By a record in one folder and a path to another, which may hold a record of how it was built."""
    monkeypatch.syspath_prepend(installed_into(tmp_path / "site-packages", "our_library", editable=True))
    source = tmp_path / "checkout" / "src"
    (source / "our_library").mkdir(parents=True)
    (source / "our_library" / "__init__.py").write_text("")
    (source / "our_library.egg-info").mkdir()
    (source / "our_library.egg-info" / "top_level.txt").write_text("our_library\n")
    monkeypatch.syspath_prepend(source)
    problem = tmp_path / "problem.py"
    problem.write_text("import our_library")
    assert set(sources_of(problem)) == {"", "our_library"}


def test_a_module_of_the_users_beside_what_is_installed_is_the_users(tmp_path, monkeypatch):
    folder = installed_into(tmp_path / "everything", "a_library")
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("import a_library")
    monkeypatch.syspath_prepend(folder)
    problem = folder / "problem.py"
    problem.write_text("import mine")
    assert set(sources_of(problem)) == {"", "mine"}
