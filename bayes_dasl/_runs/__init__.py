"""Long runs: checkpoints of steps, files written completely or not at all, progress bars."""

from .files import replacing as replacing, write_text as write_text
from .journal import Journal as Journal, ProgressBar as ProgressBar, read_identity as read_identity
from .lock import alone_in as alone_in
