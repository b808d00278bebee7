"""The service as a deployment of Ray Serve, for fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vocable.extras import need
from vocable.serve import Settings, create_app

if TYPE_CHECKING:
    from fastapi import FastAPI


def deployment(settings: Settings, *, replicas: int = 1, **options: Any) -> Any:
    """Return the service as a Ray Serve application, for `ray.serve.run`.

    replicas: copies of the service, each with the workers of `settings`. A folder of voices is on a disk that all
    replicas can reach. options: others of `ray.serve.deployment`, such as `ray_actor_options` for GPUs. Raises
    ImportError if Ray Serve is not installed.
    """
    serve = need("ray.serve", "ray")

    def build() -> FastAPI:  # called in each replica, where it starts worker processes
        return create_app(settings)

    ongoing = settings.limits.waiting + settings.workers  # the service refuses more by itself
    options = {"name": "vocable", "max_ongoing_requests": ongoing, "num_replicas": replicas} | options
    return serve.deployment(serve.ingress(build)(), **options).bind()
