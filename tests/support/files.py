"""The federation files of the kill matrix: each ends the same whatever is done to it."""

DATA = """
[data]
shape = [6]
classes = ["0", "1"]
"""
#: Statistics: sums in float64, lossless, over a path of penalties: about 90 short rounds.
PATH = f"""\
name = "path"
seed = 7
[model]
learner = "glm"
family = "binomial"
alpha = 1.0
n_lambda = 60
{DATA}
[train]
rounds = 400
[serve]
nodes = 3
deadline = "100s"
keep_models = 5
"""
#: Networks: means of float32 vectors, and clients that remember (SCAFFOLD's control variates; the residual of a lossy codec).
NETWORK = f"""\
name = "network"
seed = 7
[model]
learner = "jax"
kind = "mlp"
hidden = [8]
{DATA}
[train]
rounds = 40
learning_rate = 0.05
[strategy]
preset = "%s"
[serve]
nodes = 2
deadline = "100s"
codecs = ["%s"]
"""
