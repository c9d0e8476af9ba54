# syntax=docker/dockerfile:1
#
# fasterseg on CPUs: ONNX Runtime, OpenVINO and our kernels; nothing is fetched when it runs.
# The project did not build this image (no container runtime where it is made). It keeps to hadolint's
# rules: tests/unit/test_packaging.py checks those that matter here, runs the linter where there is
# one, and checks the rest that can be checked without a build.
#
#   docker build -t fasterseg .
#   docker run --rm -v "$PWD:/data" fasterseg infer drive.mp4
#   docker run --rm --device /dev/video0 --group-add video -v "$PWD:/data" fasterseg infer camera:0 out.mp4
#   docker run --rm -e CAMERA_PASSWORD -v "$PWD:/data" fasterseg infer 'rtsp://viewer:${CAMERA_PASSWORD}@192.0.2.10/stream' out.mp4
#
# ${NAME} in a URL is filled in inside, from the file /run/secrets/NAME (a secret of Compose or Swarm)
# or the variable NAME. Between single quotes the shell leaves it alone.
#
# Files are written as user 10001: give it the folder, or run with --user "$(id -u)". Engines and
# what --engine auto measured are kept in /cache: name a volume for it (-v fasterseg:/cache).

FROM python:3.12-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/fasterseg
ENV PATH=/opt/fasterseg/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    FASTERSEG_REQUIRE_NATIVE=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY cpp_plugins cpp_plugins
COPY fasterseg fasterseg
# Of the two packages of ONNX Runtime, that without 300 MB of CUDA.
RUN pip install --no-cache-dir --constraint constraints.txt '.[openvino,serve]' \
    && pip uninstall --yes onnxruntime-gpu onnxruntime \
    && pip install --no-cache-dir --no-deps \
        "$(sed -n 's/^onnxruntime-gpu==/onnxruntime==/p' constraints.txt)" \
    && fasterseg --version

FROM python:3.12-slim-bookworm
COPY --from=build /opt/fasterseg /opt/fasterseg
RUN useradd --uid 10001 --create-home fasterseg \
    && install --directory --owner=fasterseg --mode=1777 /cache /data
# The page of --view, where HEALTH_URL names its health check, such as http://127.0.0.1:8080/healthz.
ENV PATH=/opt/fasterseg/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FASTERSEG_CACHE=/cache \
    HEALTH_URL=
USER 10001
WORKDIR /data
VOLUME /cache
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["sh", "-c", "test -z \"$HEALTH_URL\" || python -c 'import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(os.environ[\"HEALTH_URL\"], timeout=4)'"]
ENTRYPOINT ["fasterseg"]
CMD ["--help"]
