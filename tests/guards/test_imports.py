"""What an import costs, and what it makes known. Each test asks a fresh interpreter."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("module", ["polyvex", "polyvex.cli", "polyvex.errors", "polyvex.hooks"])
def test_an_import_stays_light(module: str) -> None:
    heavy = ("torch", "transformers", "accelerate", "matplotlib", "pydantic")
    loaded = run(f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]"


AUTO = """
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForImageTextToText
from transformers.models.auto.processing_auto import AutoProcessor, PROCESSOR_MAPPING
"""
KNOWN = """
config = AutoConfig.for_model("polyvex")
print(AutoModelForImageTextToText._model_mapping[type(config)].__name__, PROCESSOR_MAPPING[type(config)].__name__)
"""


@pytest.mark.parametrize("code", [f"import polyvex{AUTO}", f"{AUTO}import polyvex"], ids=["polyvex", "transformers"])
def test_the_auto_classes_know_the_model_whichever_is_imported_first(code: str) -> None:
    # Warnings of transformers' own imports are not ours to judge.
    silent = "import warnings; warnings.simplefilter('ignore')\n"
    assert run(f"{silent}{code}\n{KNOWN}").splitlines()[-1] == "PolyvexForConditionalGeneration PolyvexProcessor"


def test_every_name_of_the_package_can_be_imported() -> None:
    import polyvex

    assert [name for name in polyvex.__all__ if getattr(polyvex, name, None) is None] == []
    assert dir(polyvex) == sorted(polyvex.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import polyvex

    with pytest.raises(AttributeError, match="module 'polyvex' has no attribute 'nothing'"):
        _ = polyvex.nothing
