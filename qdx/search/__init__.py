"""From an analysis to a plan: which option each group of operations takes under a budget or for a goal.

`problem` says what there is to choose, `budgets` what may be spent and what may be lost, `solve` chooses exactly under
the additive model, `refit` corrects that model by candidates that were measured whole, `pareto` has the front,
`controls` what the same bits do elsewhere, `write_plan` puts an assignment as a person would write it, `timesteps`
divides the schedule, and `search` is the job.
"""
