"""A dataset's rules, steps and features, compiled against the columns of its events before a row is read."""

from preprocessing.plan.plan import Plan as Plan
from preprocessing.plan.plan import build_steps as build_steps
from preprocessing.plan.plan import plan_of as plan_of
