"""Names that recipes may use, and the component and plugin behind each."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from polyvex.errors import PluginError

T = TypeVar("T")

MANY = 24
"""More names than these are not listed in a message that has near ones."""

LISTED = {"encoder": "; list them with: polyvex encoders"}

CORE = "polyvex"
"""The distribution of polyvex itself."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin: its name, the distribution that brought it, and that distribution's version.

    A single file that serves as a plugin has its path as ``file``, its name as ``distribution``, and the SHA-256 of its
    content as ``version``.
    """

    name: str
    distribution: str
    version: str
    file: str = ""

    def __str__(self) -> str:
        return self.file or f"{self.name} ({f'{self.distribution} {self.version}'.strip()})"


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[T]):
    """One name of a registry."""

    name: str
    component: type[T]
    plugin: Plugin


@dataclass
class Registry(Generic[T]):
    """Exact names of one kind of component, each with the plugin that registered it.

    ``kind`` is the word for error messages: ``encoder``, ``fusion``, … ``clashes`` has the names that two plugins
    register, with the reason why they cannot be used.
    """

    kind: str
    entries: dict[str, Entry[T]] = field(default_factory=dict)
    clashes: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, component: type[T], plugin: Plugin) -> None:
        """Register ``component`` as ``name``.

        Raises:
            PluginError: if another plugin has that name already. Both are named. From then on the name cannot be used,
                since nobody could tell which of the two is meant; all other names can. The core's names stay its own.
        """
        if taken := self.entries.get(name):
            one = plugin.name if taken.plugin.distribution == CORE else "one"
            way = f"Uninstall {one}, or block it: POLYVEX_DISABLE_PLUGINS={plugin.name}"
            reason = (
                f"two plugins register the {self.kind} '{name}': {taken.plugin} and {plugin}. "
                f"{f'Rename it in {plugin.file}' if plugin.file else way}"
            )
            if taken.plugin.distribution != CORE:
                self.clashes[name] = reason
            raise PluginError(reason)
        self.entries[name] = Entry(name=name, component=component, plugin=plugin)

    def __getitem__(self, name: str) -> type[T]:
        return self.entry(name).component

    def __contains__(self, name: str) -> bool:
        return name in self.entries and name not in self.clashes

    def __iter__(self) -> Iterator[Entry[T]]:
        whole = [entry for entry in self.entries.values() if entry.name not in self.clashes]
        return iter(sorted(whole, key=lambda entry: entry.name))

    def __len__(self) -> int:
        return len(self.names())

    def clashes_of(self, plugins: Sequence[Plugin]) -> list[str]:
        """Why names of these plugins cannot be used, since another one has them too."""
        return [self.clashes[name] for name in sorted(self.clashes) if self.entries[name].plugin in plugins]

    def names(self) -> list[str]:
        """All names that can be used, sorted."""
        return [entry.name for entry in self]

    def entry(self, name: str) -> Entry[T]:
        """Return the entry of ``name``.

        Raises:
            PluginError: if no plugin registers it (the nearest names are shown), or two do.
        """
        if name in self.clashes:
            raise PluginError(self.clashes[name])
        if name not in self.entries:
            raise PluginError(unknown(self.kind, name, self.names()))
        return self.entries[name]


def near_names(name: str, known: list[str]) -> list[str]:
    """Up to three of the ``known`` names that resemble ``name``, the nearest first."""
    return difflib.get_close_matches(name, known, n=3, cutoff=0.5)


def unknown(kind: str, name: str, known: list[str]) -> str:
    """Say that ``name`` is not known, with the nearest names first."""
    near = near_names(name, known)
    hint = f" Did you mean {' or '.join(repr(item) for item in near)}?" if near else ""
    if len(known) > MANY and near:
        return f"unknown {kind} '{name}'.{hint} There are {len(known)}{LISTED.get(kind, '')}"
    listing = ", ".join(known) if known else "none; is a plugin missing? See: polyvex plugins doctor"
    return f"unknown {kind} '{name}'.{hint} Known: {listing}"
