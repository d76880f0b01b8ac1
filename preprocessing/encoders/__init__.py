"""Encoders, one a file: they turn a column of events into ids or numbers a model can take."""

from preprocessing.encoders.base import LARGEST as LARGEST
from preprocessing.encoders.base import Combine as Combine
from preprocessing.encoders.base import Encoder as Encoder
from preprocessing.encoders.base import Expressions as Expressions
from preprocessing.encoders.base import Fits as Fits
from preprocessing.encoders.base import Kind as Kind
from preprocessing.encoders.base import Takes as Takes
from preprocessing.encoders.base import finite as finite
from preprocessing.encoders.base import name_of as name_of
from preprocessing.encoders.base import require as require
