"""Why tokens are encoded again although similar ones are in the cache."""

from pathlib import Path
from typing import Any

from polyvex.cache.index import Index
from polyvex.cache.place import Place
from polyvex.cache.store import INDEX, read_index
from polyvex.cache.upkeep import read_about
from polyvex.errors import CacheError
from polyvex.recipe.differences import differences

CHOSEN = ("encoder", "options", "dtype", "computed_in")
"""What a recipe decides of a store; whoever changes that expects other tokens."""

SHOWN = 4


def notes_on(place: Place) -> list[str]:
    """What to say about an encoder's tokens before they are used: why they are encoded again, or may be stale."""
    found = [reason] if (reason := why_not_reused(place)) else []
    if place.unknown_code:
        found.append(
            f"no source file of {', '.join(place.unknown_code)} can be found, so tokens may be STALE after a change of "
            f"what it calls. Encode them again with: polyvex cache RECIPE --refresh"
        )
    return found


def why_not_reused(place: Place) -> str:
    """How the nearest store with the same options differs, if the encoder's own store does not exist.

    Empty if the store exists, or if there is no other one with the same options.
    """
    if (place.folder / INDEX).exists():
        return ""
    found = []
    for folder in place.folder.parent.glob(f"{place.about['encoder']}-*"):
        about = read_about(folder)
        if all(about.get(key) == place.about[key] for key in CHOSEN) and (images := _images(folder)):
            found.append((changes(about, place.about), images, folder.name))
    if not found:
        return ""
    changed, images, name = min(found, key=lambda one: (len(one[0]), one[2]))
    more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{images} images in {name} are not reused, since this changed: {', '.join(changed[:SHOWN])}{more}"


def changes(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between the descriptions of two stores, in words."""
    before, now = there.get("code") or {}, here.get("code") or {}
    files = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    code = [f"code of {name}" for name in files] if before else ["polyvex did not record the code before"]
    old, new = ({key: value for key, value in about.items() if key != "code"} for about in (there, here))
    return [*code, *differences(old, new)]


def _images(folder: Path) -> int:
    index = Index(folder / INDEX)
    if not index.exists():
        return 0
    try:
        with index.reading() as connection:
            return len(read_index(connection)[1])
    except CacheError:
        return 0
