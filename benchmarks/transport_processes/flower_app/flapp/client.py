"""Only named by the project file: the nodes of the benchmark answer by themselves (`flower.py`)."""

from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    return message
