"""What a recipe needs and costs, before anything is loaded."""

from polyvex.plan.plan import Plan, make_plan

__all__ = ["Plan", "make_plan"]
