"""Options other than those that a kit was given, to find declarations that hold for one value only."""

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError

from polyvex.errors import PolyvexError
from polyvex.options import Options
from polyvex.testing.probes import expect

OptionsT = TypeVar("OptionsT", bound=Options)

INTEGERS = (-1, 0, 1, 2, 3, 5, 7)
FLOATS = (-1.0, 0.0, 1e-9, 0.3, 1.0, 2.5, 1e6)
TEXTS = ("", "no such value")


def variants(options: OptionsT) -> Iterator[tuple[str, OptionsT]]:
    """Options with one value changed, each with the change in words; only those that their class accepts."""
    kind = type(options)
    values = {name: getattr(options, name) for name in kind.model_fields}
    for name, field in kind.model_fields.items():
        for value in _values(field.annotation, values[name]):
            try:
                yield f"{name} = {value!r}", kind(**{**values, name: value})
            except ValidationError:
                continue


def check_refuses_by_value_error(name: str, options: OptionsT, method: str, call: Callable[[OptionsT], object]) -> None:
    """A declaration answers for all options that their class accepts, or raises a ValueError that says why not."""
    for change, changed in variants(options):
        try:
            call(changed)
        except (ValueError, PolyvexError) as error:
            expect(bool(str(error).strip()), f"{name}.{method} refuses {change} without a message; say why")
        except AssertionError as error:
            raise AssertionError(f"with the option {change}: {error}") from error
        except Exception as error:
            raise AssertionError(
                f"{name}.{method} raises {type(error).__name__} for the option {change}: {error}. "
                "Raise a ValueError that names the value and says what would work, or limit the option in Options: "
                "Field(ge=1)"
            ) from error


def _values(annotation: object, now: object) -> Iterator[object]:
    """Values of a type other than the present one: of literals all, of numbers and texts the edges."""
    if get_origin(annotation) is Literal:
        candidates: tuple[object, ...] = get_args(annotation)
    elif isinstance(now, bool):
        candidates = (not now,)
    elif isinstance(now, int):
        candidates = (*INTEGERS, now - 1, now + 1, 2 * now)
    elif isinstance(now, float):
        candidates = FLOATS
    elif isinstance(now, str):
        candidates = TEXTS
    else:
        candidates = ()
    yield from (value for value in dict.fromkeys(candidates) if value != now)
