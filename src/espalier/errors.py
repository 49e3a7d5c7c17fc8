"""The exception whose message is meant for the user."""


class UserError(Exception):
    """A problem that the user can fix.

    The message has one line per problem: what was given, what is allowed, what to do. Jobs and the Snakefile print
    it without a traceback.
    """
