"""Encoders, one a file: they turn a column of events into ids or numbers a model can take."""

from preprocessing.encoders.base import ADD as ADD
from preprocessing.encoders.base import LARGEST as LARGEST
from preprocessing.encoders.base import RUN as RUN
from preprocessing.encoders.base import SEEN as SEEN
from preprocessing.encoders.base import Adds as Adds
from preprocessing.encoders.base import Encoder as Encoder
from preprocessing.encoders.base import Expressions as Expressions
from preprocessing.encoders.base import Kind as Kind
from preprocessing.encoders.base import Learns as Learns
from preprocessing.encoders.base import Takes as Takes
from preprocessing.encoders.base import finite as finite
from preprocessing.encoders.base import require as require
