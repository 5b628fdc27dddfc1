"""release: give back what provision took; safe to repeat, after success, failure and stop alike.

On one's own machine nothing was taken, and the step says so.
"""

from steps.contract import Context, Request, Result, require_local


def run(request: Request, context: Context) -> Result:
    """Release the run's nodes."""
    require_local(request, "ProvisionerNotSupported", "release nodes")
    context.progress(1, 1)
    return Result(outputs={"released": "nothing: this machine stays"})
