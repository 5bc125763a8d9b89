"""Who may wait, and who is next: an engine's queue as a pure thing. It has no clock; times are passed in.

Order: jobs that were running when the engine died come first and alone (`Ticket.deaths`), then priority, which rises as
a job waits. Within a priority clients take turns with their texts and cameras with their pictures, each by arrival, and
of four starts while both wait, one is a camera's. Of a camera's frames that wait, the latest takes the place of the one
before.

`ticket` is a job that waits, `turns` is whose turn it is within a priority, `queue` is the bounds, the deadlines and
all of it together, `order` is what keeps each of their operations short, and `saturation` is from when on jobs should
go elsewhere.
"""

from agent.admission.queue import Pushed, Queue
from agent.admission.saturation import Saturation, Signals
from agent.admission.ticket import Camera, Ticket, camera_of
from agent.admission.turns import Starts

__all__ = ["Camera", "Pushed", "Queue", "Saturation", "Signals", "Starts", "Ticket", "camera_of"]
