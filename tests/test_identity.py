"""Identity: prose moves nothing, a constant moves one name, and every file of a model that can change a number counts."""
import textwrap

import pytest

from lib import artifacts, identity
from lib.identity import ROOT
from tests import tiny

CODE = '''
"""Head."""
import math as m

LIMIT = 3        # why


class A:
    """What A is."""
    x: int = 1


def f(a, b=2):
    """What f does."""
    return a + b * m.pi  # reason
'''


def meaning(tmp_path, text, name="x.py"):
    identity._tree.cache_clear()
    (tmp_path / name).write_text(textwrap.dedent(text))
    return identity.meaning(tmp_path / name)


@pytest.mark.parametrize("old, new", [
    ('"""Head."""', '"""Another head."""'), ("# why", "# because"), ('    """What f does."""\n', ""), ("  # reason", ""),
    ("a + b * m.pi", "(a\n            + b * m.pi)"), ('"""What A is."""', "'''What A is, at length.'''"), ("\n\n\n", "\n")])
def test_prose_and_layout_are_no_meaning(tmp_path, old, new):
    assert old in CODE and meaning(tmp_path, CODE.replace(old, new)) == meaning(tmp_path, CODE)


@pytest.mark.parametrize("old, new, name", [
    ("LIMIT = 3", "LIMIT = 4", "LIMIT"), ("LIMIT = 3", "LIMIT = 3.0", "LIMIT"), ("b=2", "b=3", "f"), ("a + b", "a - b", "f"),
    ("x: int = 1", "x: int = 2", "A"), ("import math as m", "import cmath as m", "(module)")])
def test_a_change_is_named(tmp_path, old, new, name):
    before, after = meaning(tmp_path, CODE), meaning(tmp_path, CODE.replace(old, new))
    assert identity.moved({"x.py": before}, {"x.py": after}) == [f"x.py {name}"]


def test_new_and_gone_definitions_and_files_are_named(tmp_path):
    before, after = meaning(tmp_path, CODE), meaning(tmp_path, CODE + "\n\ndef g():\n    return 1\n")
    assert identity.moved({"x.py": before}, {"x.py": after}) == ["x.py g"]
    assert identity.moved({"x.py": before}, {}) == ["x.py is gone"] and identity.moved({}, {"x.py": before}) == ["x.py is new"]


def test_order_of_definitions_is_no_meaning(tmp_path):
    first, second = "def f():\n    return 1\n\n\n", "def g():\n    return 2\n\n\n"
    assert meaning(tmp_path, first + second) == meaning(tmp_path, second + first)


def test_sources_are_followed_through_imports():
    found = identity.sources([ROOT / "02_tune.py"])
    assert {"02_tune.py", "lib/studies/tuning.py", "lib/metrics.py", "lib/hooks.py", "lib/judging/scorers.py"} <= set(found)
    assert not [name for name in found if name.startswith(("report", "data", "tests")) or name == "lib/studies/transfer.py"]
    assert {"bootstrap", "LEVEL", "(module)"} <= set(found["lib/metrics.py"])
    assert identity.closure([ROOT / "lib/artifacts.py"]) == [ROOT / "lib/artifacts.py", ROOT / "lib/identity.py"]


def test_every_file_that_can_change_a_number_belongs_to_a_model(tmp_path):
    folder = tiny.save(tmp_path / "m", "llama")
    before = identity.model_files(folder)
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(before)
    (folder / "README.md").write_text("a card")
    (folder / "training.json").write_text("{}")
    assert identity.model_files(folder) == before
    for name in before:
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept + b" ")
        assert identity.model_files(folder)[name] != before[name]
        (folder / name).write_bytes(kept)


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "tokenizer.model.v3", "added_tokens.json", "qwen.tiktoken", "merges.txt",
                                  "additional_chat_templates/tool_use.jinja", "adapter_config.json", "chat_template.json",
                                  "model-00002-of-00002.safetensors", "model.safetensors.index.json", "unheard.of"])
def test_files_nobody_thought_of_count(tmp_path, name):
    folder = tiny.save(tmp_path / "m", "llama")
    before = identity.model_files(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    after = identity.model_files(folder)
    assert set(after) - set(before) == {name}
    part = "weights" if ".safetensors" in name else "tokenizer"
    parts = identity.model_parts(after)
    assert name in parts[part] and sum(map(len, parts.values())) == len(after)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "LICENSE.txt", "USE_POLICY.md", "Notice.txt", "plot.PNG", "pytorch_model.bin",
                                  "training_args.bin", "model.gguf", "flax_model.msgpack", "trainer_state.json", "SOURCE.json",
                                  ".gitattributes", ".cache/huggingface/a.metadata", "original/params.json", "runs/log.json",
                                  "modeling_x.py"])
def test_what_changes_no_number_does_not(tmp_path, name):
    folder = tiny.save(tmp_path / "m", "llama")
    before = identity.model_files(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")
    assert identity.model_files(folder) == before


@pytest.mark.parametrize("name", ["pico-llama", "pico-gpt2"])
def test_the_embedded_models_are_those_of_the_committed_results(name):
    parts = identity.model_parts(identity.model_files(ROOT / "data/models" / name))
    made = artifacts.load(ROOT / "outputs/committed" / name / "testbed/01_extract").config["model"]
    assert {**parts, "tokenizer": artifacts.digest_of(parts["tokenizer"])} == {key: made[key] for key in parts}
    assert set(parts["tokenizer"]) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_folder_of_a_model_without_asking_the_hub(tmp_path):
    assert identity.model_folder(str(tmp_path)) == tmp_path
    assert identity.model_folder("nobody/nothing-of-the-kind") is None and identity.model_folder("not a/ hub id!") is None
