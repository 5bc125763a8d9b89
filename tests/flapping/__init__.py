"""A cloud that flaps: every fault that it is known for, in turn and at random, and what becomes of the jobs."""
