"""Errors for people: each says what failed, what was got, what was expected, and what to do."""


class PolyvexError(Exception):
    """Base of every error that polyvex raises on purpose.

    ``exit_code`` is what the command line returns: 2 where the input was wrong, 1 where the work failed.
    """

    exit_code = 2


class RecipeError(PolyvexError):
    """A recipe names something unknown, mistyped, or impossible. Lists every problem at once."""

    def __init__(self, problems: list[str], *, source: str = "recipe"):
        self.problems = problems
        self.source = source
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems))


class PluginError(PolyvexError):
    """A plugin is missing, broken, blocked, or clashes with another one."""


class ContractError(PolyvexError):
    """A component returned something that its contract forbids, such as the wrong number of tokens."""


class WeightsError(PolyvexError):
    """Weights are missing, truncated, or belong to another architecture."""


class DataError(PolyvexError):
    """A data set, an image, or a question cannot be used."""


class CacheError(PolyvexError):
    """The token cache lacks something or holds something unreadable."""


class RunError(PolyvexError):
    """A run directory cannot be used: another recipe, unfinished, or not a run at all."""


class TrainingError(PolyvexError):
    """Training went wrong: a frozen part changed, a loss was not finite."""

    exit_code = 1


class ExportError(PolyvexError):
    """A run's language model cannot be written in another form. Lists every reason at once, each with a way out."""

    def __init__(self, reasons: list[str], *, what: str):
        self.reasons = reasons
        count = "1 reason" if len(reasons) == 1 else f"{len(reasons)} reasons"
        super().__init__(f"{what}: {count}\n" + "\n".join(f"  - {reason}" for reason in reasons))


class ParityError(PolyvexError):
    """What was exported does not say what the run says; it was taken away again."""

    exit_code = 1
