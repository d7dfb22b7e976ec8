"""The command line: one file per command; argument parsing and exit codes only.

Standard output carries the result, standard error the words. Whatever is heavy is imported inside
the command that needs it, so that help comes at once.
"""
