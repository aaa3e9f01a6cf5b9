"""Imports Ray once, quietly: its own use of pydantic is deprecated, and warnings are errors here."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401
