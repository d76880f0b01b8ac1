"""ETL steps, one a file: the place to put what is particular to your data."""

from preprocessing.steps.base import NEEDED as NEEDED
from preprocessing.steps.base import Step as Step
from preprocessing.steps.base import refuse_name as refuse_name
