"""All names of a new plugin, from the one that its author gives."""

import keyword
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from polyvex.errors import PluginError
from polyvex.hooks.manager import Registries
from polyvex.scaffold import Kind

NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")
"""A valid name of a distribution that also makes a valid module and class: small letters first, single separators."""

LONGEST = 24
"""Characters of a name, so that no line of the new files is longer than 120."""

PREFIX = "polyvex-"


@dataclass(frozen=True, kw_only=True)
class KindFacts:
    """What templates and checks need to know of a kind.

    ``word`` is its name in sentences, ``base`` the class of ``package`` to derive from, ``field`` its registry,
    ``suffix`` ends its class's name, ``table`` is where recipes name it, by ``key``.
    """

    word: str
    base: str
    package: str
    field: str
    suffix: str
    table: str
    key: str = "use"
    separator: str = "-"


KINDS: dict[Kind, KindFacts] = {
    "encoder": KindFacts(
        word="an encoder",
        base="VisionEncoder",
        package="polyvex.encoders",
        field="encoders",
        suffix="Encoder",
        table="[[encoders]]",
    ),
    "fusion": KindFacts(
        word="a fusion",
        base="Fusion",
        package="polyvex.fusion",
        field="fusions",
        suffix="Fusion",
        table="[fusion]",
        separator="_",
    ),
    "positions": KindFacts(
        word="a position scheme",
        base="PositionScheme",
        package="polyvex.positions",
        field="position_schemes",
        suffix="Positions",
        table="[positions]",
        separator="_",
    ),
    "router": KindFacts(
        word="a router",
        base="Router",
        package="polyvex.moe",
        field="routers",
        suffix="Router",
        table="[moe.router]",
        separator="_",
    ),
    "dataset": KindFacts(
        word="a data set",
        base="Dataset",
        package="polyvex.data",
        field="datasets",
        suffix="Dataset",
        table="[data]",
    ),
    "metric": KindFacts(
        word="a metric",
        base="Metric",
        package="polyvex.evaluation",
        field="metrics",
        suffix="Metric",
        table="[evaluation]",
        key="metric",
        separator="_",
    ),
}
"""The kinds; components of the core are separated by the same signs, as in ``share_row`` and ``easy-vqa``."""


@dataclass(frozen=True, kw_only=True)
class NewPlugin:
    """Names of a new plugin: entry point, distribution, module, component in recipes, and classes."""

    name: str
    distribution: str
    module: str
    component: str
    cls: str
    options: str

    @classmethod
    def of(cls, given: str, kind: Kind) -> "NewPlugin":
        """Derive all names from ``given``, with or without ``polyvex-`` in front.

        Raises:
            PluginError: if no valid names can be made of it. Says what a name may have.
        """
        name = given.removeprefix(PREFIX)
        if not NAME.fullmatch(name):
            raise PluginError(
                f"'{given}' is no name for a plugin. It begins with a small letter, and goes on with small letters and "
                "digits; single dashes, dots and underscores may stand between"
            )
        if len(name) > LONGEST:
            raise PluginError(f"'{name}' has {len(name)} characters; expected at most {LONGEST}")
        if keyword.iskeyword(name):
            raise PluginError(f"'{name}' is a word of Python itself. Choose another name, such as '{name}-{kind}'")
        words = re.split(r"[-_.]", name)
        title = "".join(word.capitalize() for word in words)
        suffix = KINDS[kind].suffix
        return cls(
            name=name,
            distribution=f"{PREFIX}{name}",
            module="_".join(["polyvex", *words]),
            component=KINDS[kind].separator.join(words),
            cls=title if title.endswith(suffix) else f"{title}{suffix}",
            options=f"{title}Options",
        )

    def check_free(self, kind: Kind, registries: Registries) -> None:
        """Refuse names that something on this machine has already.

        Raises:
            PluginError: names what has it.
        """
        for status in registries.plugins:
            if status.plugin.name == self.name and status.state != "unknown":
                raise PluginError(f"a plugin '{self.name}' is installed: {status.plugin}. Choose another name")
        registry = getattr(registries, KINDS[kind].field)
        if self.component in registry.entries:
            owner = registry.entries[self.component].plugin
            raise PluginError(f"the {registry.kind} '{self.component}' is taken by {owner}. Choose another name")
        try:
            raise PluginError(f"{self.distribution} {version(self.distribution)} is installed. Choose another name")
        except PackageNotFoundError:
            pass
        if find_spec(self.module) is not None:
            raise PluginError(f"a module {self.module} can be imported already. Choose another name")
