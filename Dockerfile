# Two stages, so that nothing that builds is in the image that runs.
FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/build && python -m venv /opt/engine

# Dependencies first: this layer changes only with the lock.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
 && /opt/engine/bin/pip install --require-hashes -r requirements/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY schemas/ schemas/
COPY scheduler/ scheduler/
COPY streams/ streams/
COPY pod_automation/ pod_automation/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/engine/bin/pip install --no-deps /dist/*.whl \
 && /opt/engine/bin/pip check \
 && /opt/engine/bin/pip uninstall --yes pip

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home pod-automation
COPY --from=build /opt/engine /opt/engine
ENV PATH=/opt/engine/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/pod-automation
ENTRYPOINT ["pod-automation"]
CMD ["--help"]
