"""What the house says to the person in front of it."""


class UserError(Exception):
    """Something that a person can mend; the message is one sentence that says what to do."""


class UsageError(UserError):
    """What was asked for, on the command line or in the configuration, makes no sense as it is written."""
