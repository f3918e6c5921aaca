"""Check what the import of a plugin does to a process, in a fresh one."""

import importlib
import json
import subprocess
import sys

from polyvex.hooks.manager import load_registries
from polyvex.hooks.watch import watch
from polyvex.testing.network import no_network
from polyvex.testing.probes import expect

CPU_SECONDS = 1.0
"""Processor time that an import may take, beyond that of polyvex and of what polyvex imports itself."""

SECONDS = 20.0
"""Time of the clock that it may take, for imports that wait. A busy machine takes several times the processor time."""

MARK = "-- polyvex imports the plugin --"
"""Printed on both streams before and after the import, to tell its output from that of the interpreter."""


def check_import(module: str) -> None:
    """The import of a plugin's module is quick, silent and offline, and changes nothing that the process shares.

    The module is imported in a fresh interpreter that has loaded polyvex. So libraries that polyvex imports, such as
    torch, do not count, and all others do, whichever plugins are installed.

    Raises:
        AssertionError: lists everything that is wrong with the import.
    """
    code = f"from polyvex.testing.imports import observe; observe({module!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    outputs = [text.split(MARK) for text in (done.stdout, done.stderr)]
    expect(
        done.returncode == 0 and all(len(parts) == 3 for parts in outputs),
        f"{module} cannot be imported in a fresh interpreter: {' '.join(done.stderr.strip().splitlines()[-1:])}",
    )
    found = json.loads(outputs[0][2])
    problems = list(found["effects"])
    if not any(problem.startswith("prints") for problem in problems):
        problems += [f"writes {text.strip().splitlines()[0][:80]!r}" for _, text, _ in outputs if text.strip()]
    if found["cpu_seconds"] > CPU_SECONDS or found["seconds"] > SECONDS:
        problems.append(
            f"takes {found['cpu_seconds']:.1f} s of processor time and {found['seconds']:.1f} s in all (limits "
            f"{CPU_SECONDS:g} s and {SECONDS:g} s) and loads {', '.join(found['packages']) or 'no other package'}"
        )
    expect(
        not problems,
        f"the import of {module}: {'; '.join(problems)}. Every command imports every plugin: define names only, and "
        "import heavy libraries in the methods that use them",
    )


def observe(module: str) -> None:
    """Import a module and print what was observed as JSON. For the fresh interpreter of :func:`check_import`."""
    load_registries(third_party=False)
    before = set(sys.modules)
    _mark()
    with no_network(module), watch() as watched:
        importlib.import_module(module)
    _mark()
    own = module.partition(".")[0]
    packages = sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {own, "polyvex"})
    shown = [name for name in packages if name not in sys.stdlib_module_names and not name.startswith("_")]
    sys.stdout.write(json.dumps({**vars(watched), "packages": shown[:8]}))


def _mark() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write(MARK)
        stream.flush()
