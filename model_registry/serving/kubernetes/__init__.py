"""The manifests that run fleets, and the gateway before them, in a Kubernetes cluster of version 1.30 or later.

manifest        one object with what is to be said about it, and how all of them are written
settings        what a cluster adds to a fleet.yaml: images, namespace, the names of Secrets
naming          how objects, labels and ports are called, and where a gateway finds a fleet's servers
pods            what all pods have in common: who they run as, what they may, how they end
agents          the containers that follow the registry
fleets          one fleet: Deployment, Services, budget, and who may reach it
servers         the container of TensorFlow Serving
gpus            where the pods of a fleet go
autoscaling     when more servers are started, and what tells it
gateway         Envoy and its agent
whole           all of it together
"""
