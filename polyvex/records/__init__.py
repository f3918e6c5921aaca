"""Records on disk: what the files of a run and of an ablation contain, as pydantic models with a version.

Whatever reads such a file reads it through this package, so that a damaged file is reported by name with every problem.
"""
