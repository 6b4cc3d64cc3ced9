"""What runs inside the processes that deserialise or run a model, and the way to talk to them.

`sandbox` and `client` belong to the parent; everything else is imported in the child only, where
TensorFlow is. Prefect and boto3 are never imported here: a child starts in the time TensorFlow takes
and holds no credentials.
"""
