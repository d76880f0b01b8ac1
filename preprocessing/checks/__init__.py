"""Checks, one rule a file: the place to put what a good row of your data keeps."""

from preprocessing.checks.base import Check as Check
from preprocessing.checks.base import same_as_before as same_as_before
