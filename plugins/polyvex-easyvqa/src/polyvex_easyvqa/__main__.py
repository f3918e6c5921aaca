"""``python -m polyvex_easyvqa test 0``: print the path of one image, to have something to ask a model about."""

import argparse
import sys

from polyvex.errors import PolyvexError
from polyvex_easyvqa.dataset import SPLITS, EasyVqa, EasyVqaOptions


def main(arguments: list[str] | None = None) -> int:
    """Print the path of the image of that number in a split. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m polyvex_easyvqa", description="Print the path of one image.")
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("number", type=int, help="number of the image, from 0")
    chosen = parser.parse_args(arguments)
    try:
        samples = EasyVqa(EasyVqaOptions()).samples(chosen.split)
    except PolyvexError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    images = list(dict.fromkeys(sample.images[0] for sample in samples))
    if not 0 <= chosen.number < len(images):
        print(f"easy-vqa has images 0 to {len(images) - 1} in {chosen.split}, not {chosen.number}", file=sys.stderr)
        return 2
    print(images[chosen.number])
    return 0


if __name__ == "__main__":
    sys.exit(main())
