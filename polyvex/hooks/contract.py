"""Whether a plugin was written for this polyvex: by what its package requires, and by what its module says."""

from importlib.metadata import Distribution, version
from typing import Any

from polyvex.errors import PluginError
from polyvex.hooks.specs import CONTRACT

DECLARED = "POLYVEX_CONTRACT"
"""Name that a plugin's module may give the number of the contract that it was written for."""


def unmet_requirement(distribution: Distribution | None) -> str:
    """Why a plugin's package does not go with the installed polyvex; empty if it does, or does not say.

    This is read from the package's metadata before the plugin is imported: a plugin for another polyvex may fail at
    import, by an error that tells nobody why.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    ours = version("polyvex")
    for text in (distribution.requires or []) if distribution else []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return f"its package requires {text!r}, which cannot be read. Install a repaired release of it"
        if requirement.name.lower() != "polyvex" or not _applies(requirement):
            continue
        if not requirement.specifier.contains(ours, prereleases=True):
            return (
                f"it needs polyvex {requirement.specifier}; installed is {ours}. "
                f"Install that polyvex, or a release of the plugin that goes with {ours}"
            )
    return ""


def _applies(requirement: Any) -> bool:
    """Whether a requirement holds here: not only for an extra, nor for another Python."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def check_contract(namespace: Any) -> None:
    """A module that declares a contract must declare this one.

    Raises:
        PluginError: says both numbers, and which of the two packages is the older one.
    """
    declared = getattr(namespace, DECLARED, CONTRACT)
    if declared == CONTRACT and type(declared) is int:
        return
    ours = f"polyvex {version('polyvex')} has contract {CONTRACT}"
    if type(declared) is not int:
        raise PluginError(f"{DECLARED} is {declared!r}; expected a whole number. {ours}")
    older = "polyvex" if declared > CONTRACT else "the plugin"
    raise PluginError(f"it was written for contract {declared}; {ours}. Upgrade {older}")
