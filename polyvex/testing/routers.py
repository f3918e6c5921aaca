"""The kit of routers: a decision about each token by itself, in numbers that the experts can work with."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from polyvex.moe import Router, RouterOptions, Routing
from polyvex.testing.checks import Check, run_all
from polyvex.testing.declarations import check_options_class
from polyvex.testing.devices import check_stays_on_device
from polyvex.testing.inputs import check_flat, check_untouched
from polyvex.testing.modules import (
    Outputs,
    check_builds_on_meta,
    check_is_steady,
    check_learns,
    check_same,
    check_saves_all,
    fresh,
)
from polyvex.testing.probes import expect
from polyvex.testing.variants import check_refuses_by_value_error

DIM, TOKENS = 8, 24

COUNTS = (1, 2, 3, 5, 8, 16)
"""Numbers of experts that a router is tried with."""


class RouterKit:
    """All checks of a router at given options. Without ``num_experts``, twice as many as a token needs, at least 4."""

    def __init__(self, router_class: type[Router], options: RouterOptions, *, num_experts: int | None = None):
        self.router_class = router_class
        self.options = options
        self.given = num_experts
        self.name = router_class.__name__

    @cached_property
    def chosen(self) -> int:
        """Experts per token."""
        return self.router_class.experts_per_token(self.options, num_experts=self.num_experts)

    @cached_property
    def num_experts(self) -> int:
        """Experts in all."""
        if self.given is not None:
            return self.given
        return max(4, 2 * self.router_class.experts_per_token(self.options, num_experts=4))

    @cached_property
    def router(self) -> Router:
        """The router that is checked, in eval mode."""
        return fresh(self._make)

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next is asked for."""
        yield Check(name="declaration", run=self._declaration)
        yield Check(name="number of experts", run=self._numbers)
        yield Check(name="structure without memory", run=lambda: check_builds_on_meta(self._make, self.router))
        yield Check(name="choices", run=self._choices)
        yield Check(name="weights", run=self._weights)
        yield Check(name="inputs stay as they are", run=self._untouched)
        yield Check(name="flat images", run=self._flat)
        yield Check(name="same choices twice", run=lambda: check_is_steady(self.router, self._outputs))
        alone = ("tokens", self._alone) if self.router_class.causal else ("rows", self._rows_alone)
        yield Check(name=f"{alone[0]} are routed alone", run=alone[1])
        yield Check(name="half precision", run=self._precision)
        yield Check(name="device", run=self._device)
        yield Check(name="gradients", run=self._gradients)
        yield Check(name="other numbers of experts", run=self._other_numbers)
        yield Check(name="state dict", run=lambda: check_saves_all(self._make, self.router, self._outputs))

    def _make(self) -> Router:
        return self.router_class(self.options, dim=DIM, num_experts=self.num_experts)

    def _tokens(self) -> Float[Tensor, "T D"]:
        return torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(0))

    def _outputs(self, router: Router) -> Outputs:
        with torch.no_grad():
            return _parts(router(self._tokens()))

    def _declaration(self) -> None:
        check_options_class(self.router_class, self.options, RouterOptions)
        expect(
            type(self.chosen) is int and self.chosen >= 1,
            f"{self.name}.experts_per_token is {self.chosen!r}; expected a whole number from 1",
        )
        for method in ("weights_sum_to_one", "learns_from_answers"):
            answer = getattr(self.router_class, method)(self.options)
            expect(isinstance(answer, bool), f"{self.name}.{method} is {answer!r}; expected True or False")

        check_refuses_by_value_error(self.name, self.options, "check", self._check_with)

    def _check_with(self, options: RouterOptions) -> None:
        self.router_class.check(options, num_experts=self.num_experts)
        self.router_class.experts_per_token(options, num_experts=self.num_experts)
        self.router_class.weights_sum_to_one(options)
        self.router_class.learns_from_answers(options)

    def _numbers(self) -> None:
        """``check`` takes what works, and refuses fewer experts than a token needs."""
        self.router_class.check(self.options, num_experts=self.num_experts)
        few = self.chosen - 1
        if few == 0 or self.router_class.experts_per_token(self.options, num_experts=few) <= few:
            return
        try:
            self.router_class.check(self.options, num_experts=few)
        except ValueError as error:
            expect(str(few) in str(error), f"{self.name}.check refuses {few} experts by {str(error)!r}; say the number")
        else:
            raise AssertionError(f"{self.name}.check takes {few} experts, but each token needs {self.chosen}; refuse")

    def _choices(self) -> None:
        routing = self.router(self._tokens())
        expect(isinstance(routing, Routing), f"{self.name} returned {type(routing).__name__}; expected Routing")
        chosen = self.chosen if self.router_class.causal else routing.expert.shape[-1]
        wide, all_experts = (TOKENS, chosen), (TOKENS, self.num_experts)
        wanted = {"expert": wide, "weight": wide, "logits": all_experts, "probs": all_experts}
        for part, shape in wanted.items():
            got = tuple(getattr(routing, part).shape)
            expect(got == shape, f"{self.name} gives {part} of shape {got} for {TOKENS} tokens; expected {shape}")
        expert = routing.expert
        expect(expert.dtype == torch.int64, f"{self.name} gives experts as {expert.dtype}; expected torch.int64")
        expect(
            bool(((expert >= 0) & (expert < self.num_experts)).all()),
            f"{self.name} chooses experts from {expert.min()} to {expert.max()}; there are 0 to {self.num_experts - 1}",
        )
        twice = (expert.sort(dim=1).values.diff(dim=1) == 0).any()
        expect(not bool(twice), f"{self.name} chooses one expert twice for a token")

    def _weights(self) -> None:
        routing = self.router(self._tokens())
        weight = routing.weight
        expect(
            bool(weight.isfinite().all()) and bool((weight >= 0).all()),
            f"{self.name} gives weights from {weight.min():.3g} to {weight.max():.3g}; expected finite ones from 0",
        )
        carried = weight if routing.kept is None else weight * routing.kept
        expect(bool((carried.diff(dim=1) <= 1e-6).all()), f"{self.name}'s choices do not come best first")
        probs = routing.probs
        expect(
            bool(((probs >= 0) & (probs <= 1 + 1e-6)).all()) and bool(routing.logits.isfinite().all()),
            f"{self.name} gives probs from {probs.min():.3g} to {probs.max():.3g}; expected 0 to 1, and finite logits",
        )
        if self.router_class.weights_sum_to_one(self.options):
            off = (weight.sum(dim=1) - 1).abs().max().item()
            expect(off <= 1e-5, f"{self.name} says that weights sum to one; they are off by {off:.3g}")

    def _untouched(self) -> None:
        tokens = self._tokens()
        check_untouched(self.router, {"the tokens": tokens}, lambda: self.router(tokens))

    def _other_numbers(self) -> None:
        """What check accepts works: one expert, an odd number, many."""
        for count in COUNTS:
            kit = RouterKit(self.router_class, self.options, num_experts=count)
            try:
                self.router_class.check(self.options, num_experts=count)
            except ValueError as error:
                expect(str(count) in str(error), f"{self.name}.check refuses {count} experts by {str(error)!r}")
                continue
            except Exception as error:
                raise AssertionError(
                    f"{self.name}.check fails for {count} experts: {type(error).__name__}: {error}. "
                    "Raise a ValueError that says the number"
                ) from error
            try:
                kit._choices()
                kit._weights()
            except Exception as error:
                raise AssertionError(
                    f"{self.name} fails for {count} experts, which check accepts: {type(error).__name__}: {error}. "
                    "Use self.num_experts instead of a fixed number, or raise a ValueError in check"
                ) from error

    def _flat(self) -> None:
        def run(values: Sequence[Tensor]) -> Outputs:
            return {part: value for part, value in _parts(self.router(values[0])).items() if part != "expert"}

        check_flat(self.router, lambda level: [torch.full((TOKENS, DIM), level)], run)

    def _device(self) -> None:
        check_stays_on_device(self.router, lambda router, place: _parts(router(place(self._tokens()))))

    def _alone(self) -> None:
        """Padding and later tokens decide nothing: cached decoding must give what the full pass gave."""
        tokens = self._tokens()
        together = _parts(self.router(tokens))
        for order in ([5], [3, 1], list(range(TOKENS))[::-1]):
            check_same(
                _parts(self.router(tokens[order])),
                {part: value[order] for part, value in together.items()},
                f"{self.name}: a token's experts depend on the other tokens",
            )

    def _rows_alone(self) -> None:
        """Rows of a batch and padding decide nothing, for a router that compares the tokens of a row."""
        tokens = self._tokens()
        valid = torch.ones(2, TOKENS // 2, dtype=torch.bool)
        valid[1, :3] = False
        together = self.router(tokens, valid)
        for rows in (slice(0, TOKENS // 2), slice(TOKENS // 2 + 3, TOKENS)):
            check_same(
                _parts(self.router(tokens[rows])),
                {part: value[rows] for part, value in _parts(together).items()},
                f"{self.name}: a row's experts depend on other rows or on padding",
            )

    def _precision(self) -> None:
        router = fresh(self._make).to(torch.bfloat16)
        try:
            routing = router(self._tokens().bfloat16())
        except RuntimeError as error:
            raise AssertionError(f"{self.name} in torch.bfloat16 fails: {error}") from error
        for part in ("weight", "logits", "probs"):
            got = getattr(routing, part).dtype
            expect(
                got == torch.float32, f"{self.name} in torch.bfloat16 gives {part} as {got}; decide in torch.float32"
            )

    def _gradients(self) -> None:
        self.router.train()  # noise has weights that only count while it trains
        check_learns(self.router, lambda: _parts(self.router(self._tokens())))
        self.router.eval()
        if not self.router_class.learns_from_answers(self.options):
            return
        learnt = self.router(self._tokens()).weight
        expect(
            learnt.requires_grad,
            f"{self.name} says that it learns from answers, but its weights carry no gradient; "
            "learns_from_answers must say False",
        )


def check_router(router_class: type[Router], options: RouterOptions, *, num_experts: int | None = None) -> Router:
    """Hold a router to its contract.

    Args:
        num_experts: experts in all; twice as many as a token needs, at least 4, unless told otherwise.

    Returns:
        The router that was checked, in eval mode, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = RouterKit(router_class, options, num_experts=num_experts)
    run_all(kit)
    return kit.router


def _parts(routing: Routing) -> dict[str, Tensor]:
    return {part: getattr(routing, part) for part in ("expert", "weight", "logits", "probs")}
