"""How `labkit.ot.refine` matches clouds of millions of points: its parts, none of them public.

task       the problem in coordinates in which it is easiest, and how often a target may be taken
potential  dual potentials of a sample, extended to all targets; the bound that they prove
search     for each source the targets of least reduced cost, through cells of targets
pairing    a first matching from these candidates; what is left over by bisection of both clouds
exchange   the best matching on the candidates of a group of sources, group by group
"""
