"""Ablations: does an order, a position scheme, or any other value of a recipe matter?"""
