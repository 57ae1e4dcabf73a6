"""A worker as a process of its own: what `pod-automation worker` does."""

from pod_automation.logs import configure
from pod_automation.processes import serve
from scheduler.settings import load_settings
from streams.worker import run_worker

if __name__ == "__main__":
    settings = load_settings()
    configure(settings.log_level)
    serve(lambda stop: run_worker(settings, stop))
