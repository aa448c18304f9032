"""Imported by multiprocess's fork server as it begins (descendants.py), and by nobody else: importing it acts."""

from data_prep.engine.descendants import watch_forks
from nemo_amalia.utils.process import end_with_parent

end_with_parent()
STARTER = watch_forks()  # of all workers
