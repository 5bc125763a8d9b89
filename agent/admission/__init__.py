"""Who may wait, and who is next: an engine's queue as a pure thing. It has no clock; times are passed in.

Order: jobs that were running when the engine died come first and alone (`Ticket.deaths`), then priority. Within a
priority text jobs go in their order of arrival, and of four starts while both wait, one is a camera's: that of the
camera whose last start is longest ago. Of a camera's frames that wait, the latest takes the place of the one before.

`ticket` is a job that waits, `turns` is whose turn it is within a priority, `queue` is the bound, the deadlines and
all of it together, `pace` predicts how long a wait is.
"""

from agent.admission.pace import Pace
from agent.admission.queue import Pushed, Queue
from agent.admission.ticket import Ticket, camera_of

__all__ = ["Pace", "Pushed", "Queue", "Ticket", "camera_of"]
