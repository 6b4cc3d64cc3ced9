"""A canary rollout: a version takes over in steps, is judged by what Prometheus saw, and steps back where it is worse.

Where things are; each line depends on those below it:

    its hands              driver -> lead, watching
    what it does, pure     silence -> baking -> steering
    what became of it      recollection -> report
    its eyes               observation -> prometheus
    its mind, pure         decision -> wording, metrics -> bounds
    what it judges, pure   samples -> histograms

A base install lacks scipy, which only `bounds` needs, when it is called: `pip install 'slipway[rollout]'` brings it.
"""
