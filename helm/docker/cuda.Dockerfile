# The CUDA image: PyPI's PyTorch brings its CUDA libraries, the node its driver. No weights, no root.
#   docker build -f helm/docker/cuda.Dockerfile -t skyreels-serve:0.1.0 .
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/skyreels
ENV PATH=/opt/skyreels/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# The dependencies alone, over empty packages: this layer changes with them only.
RUN for package in cluster components deployments loadtest; do \
        mkdir "$package" && touch "$package/__init__.py"; \
    done \
    && pip install --no-cache-dir -c constraints.txt '.[model,parallel-vae,s3,usp]' \
    && pip uninstall --yes skyreels-serve
COPY cluster cluster
COPY components components
COPY deployments deployments
COPY loadtest loadtest
RUN mkdir /app && pip install --no-cache-dir --no-deps --target /app .

FROM python:3.11-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="skyreels-serve" \
      org.opencontainers.image.description="Serves the SkyReels video models on Ray Serve" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# gcc: Triton compiles its launchers when they are first used.
# wget: KubeRay's probes and the chart's test run it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 skyreels \
    && useradd --uid 1000 --gid 1000 --create-home skyreels
ENV PATH=/app/bin:/opt/skyreels/bin:$PATH \
    PYTHONPATH=/app \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/skyreels /opt/skyreels
COPY --from=build /app /app
WORKDIR /home/skyreels
USER 1000:1000
CMD ["skyreels", "--help"]
