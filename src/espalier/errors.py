"""The one exception that is meant for the user."""


class UserError(Exception):
    """A problem the user can mend.

    The message is one line per problem: what was given, what is allowed, what to do. Jobs and the Snakefile print
    it without a traceback.
    """
