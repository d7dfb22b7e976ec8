"""What each part of a model tolerates on a target, as data.

`analyze` is the way in; `options` says what a target offers each operation, `groups` which operations must take the
same option, `calls` which recorded calls are measured, `noise` what an option of a group does to the output, `analysis`
is the data model and `folder` reads and writes it. `gradient_survey` goes back through the graphs, `follow` over whole runs:
`courses` runs the pipeline's own Python, `course` follows errors along one run, `ablations` leaves parts float.
"""
