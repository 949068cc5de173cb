"""Capacity planning from Python, under a name that stays: what ``hostler.sim.questions.api`` has."""

from .questions.api import *  # noqa: F403  # all that it exports
from .questions.api import __all__ as __all__
