"""Programs that start a real cluster on this machine, do something to it, and print figures; tests run some of them.

    python -m tests.scale.two_nodes        one of two nodes is removed under open-loop load
    python -m tests.scale.growth           1 -> 3 -> 1 synthesis replicas as listeners come and go
    python -m tests.scale.updates          streams in flight during changes, a redeploy and a scale-down
    python -m tests.scale.logical_gpus     replicas on fractions of a GPU that is only counted
    python -m tests.scale.shipped          configs/cluster.yaml as it is, on two nodes
    python -m tests.scale.overhead         the service against the bare engine, in both proxy modes
    python -m tests.scale.small_end        listeners that one replica holds, against what its cost table predicts

Each ends in one JSON line, and in exit status 1 where a bound of its own does not hold.
"""
