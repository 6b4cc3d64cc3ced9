"""What TensorFlow Serving and its neighbours read, and what brings versions to a server."""
