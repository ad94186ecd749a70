"""Local training in R: a script of the site's own, run in an R process of ours (`rscript`), or a service in R that runs anyway (`rservice`).

Both are one learner (`learner`) with two homes (`script`, `service`). What is learnt is a vector of coefficients that the federation file names, so a
coordinator needs no R.
"""
