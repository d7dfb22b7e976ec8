"""Work in many independent jobs, each known by what it is computed from: done once, in any order, by any process.

`jobs` says what a job is and runs those whose results are not there yet, `results` keeps these in files, `workers` has the
processes of one machine, `elsewhere` says what other machines are asked, and `ray_cluster` asks those of a Ray cluster, where
`ray_worker` answers.
"""
