"""Errors for people: each says what failed, what was got, what was expected, and what to do."""


class PolyvexError(Exception):
    """Base of every error that polyvex raises on purpose.

    ``exit_code`` is what the command line returns: 2 where the input was wrong, 1 where the work failed. ``code`` is a
    short, stable name of the kind of error, such as ``"disk-full"``: programs and tests compare it, so that the
    message can be improved freely.
    """

    exit_code = 2
    code = "polyvex"

    def __init__(self, message: str = "", *, code: str = ""):
        super().__init__(message)
        if code:
            self.code = code


class RecipeError(PolyvexError):
    """A recipe names something unknown, mistyped, or impossible. Lists every problem at once."""

    code = "recipe"

    def __init__(self, problems: list[str], *, source: str = "recipe", code: str = ""):
        self.problems = problems
        self.source = source
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems), code=code)


class PluginError(PolyvexError):
    """A plugin is missing, broken, blocked, or clashes with another one."""

    code = "plugin"


class ContractError(PolyvexError):
    """A component returned something that its contract forbids, such as the wrong number of tokens."""

    code = "contract"


class WeightsError(PolyvexError):
    """Weights are missing, truncated, or belong to another architecture."""

    code = "weights"


class DataError(PolyvexError):
    """A data set, an image, or a question cannot be used."""

    code = "data"


class CacheError(PolyvexError):
    """The token cache lacks something or holds something unreadable."""

    code = "cache"


class RunError(PolyvexError):
    """A run directory cannot be used: another recipe, unfinished, or not a run at all."""

    code = "run"


class StorageError(PolyvexError):
    """A file cannot be written or read: the disk is full, a quota is used up, or permission is missing."""

    exit_code = 1
    code = "storage"


class UnsafeNameError(PolyvexError):
    """A name or path that a user or a file gives leaves its folder, or cannot be the name of a file."""

    code = "unsafe-name"


class TrainingError(PolyvexError):
    """Training went wrong: a frozen part changed, a loss was not finite."""

    code = "training"
    exit_code = 1


class ExportError(PolyvexError):
    """A run's language model cannot be written in another form. Lists every reason at once, each with a way out."""

    code = "export"

    def __init__(self, reasons: list[str], *, what: str):
        self.reasons = reasons
        count = "1 reason" if len(reasons) == 1 else f"{len(reasons)} reasons"
        super().__init__(f"{what}: {count}\n" + "\n".join(f"  - {reason}" for reason in reasons))


class ParityError(PolyvexError):
    """What was exported does not say what the run says; it was taken away again."""

    code = "parity"
    exit_code = 1
