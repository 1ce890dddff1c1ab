# The image of the jobs: for JobManager and TaskManagers, for the client that submits, for the commands of training/.
# Its context is an unpacked release (`make release`): docker build --tag purchase-intent:0.1.0 .

# Flink's distribution and its entrypoint, which Kubernetes and compose.yaml call.
FROM flink:2.2.1-scala_2.12-java17 AS flink

# The packages of Python; some come as source, which this larger image can compile.
FROM python:3.11-bookworm AS packages
COPY requirements.txt /tmp/requirements.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement /tmp/requirements.txt \
    && /opt/venv/bin/pip check

# Python's own image: Flink's has no Python 3.11.
FROM python:3.11-slim-bookworm
# Versions of Debian's packages are left to the base image: a fixed one is gone from the archive after the next update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends default-jre-headless gettext-base libgomp1 procps \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 9999 flink \
    && useradd --uid 9999 --gid flink --create-home flink
COPY --from=flink /docker-entrypoint.sh /docker-entrypoint.sh
COPY --from=flink --chown=flink:flink /opt/flink /opt/flink
COPY --from=packages /opt/venv /opt/venv
# MALLOC_: Python workers keep their buffers instead of returning them for every batch, as measured (docs/operations.md).
# Those are glibc's settings, so without jemalloc.
ENV FLINK_HOME=/opt/flink \
    JAVA_HOME=/usr/lib/jvm/default-java \
    PATH=/opt/venv/bin:/opt/flink/bin:/usr/local/bin:/usr/bin:/bin \
    DISABLE_JEMALLOC=true \
    MALLOC_MMAP_THRESHOLD_=1073741824 \
    MALLOC_TRIM_THRESHOLD_=1073741824
# flink-python beside the job's JARs, whose classes call it (docs/operations.md).
RUN mv /opt/flink/opt/flink-python-*.jar /opt/flink/lib/ \
    && ln -s /opt/flink/lib/flink-python-*.jar /opt/flink/opt/
COPY --chown=flink:flink jars/ /opt/flink/lib/
COPY wheel/ /opt/intent/wheel/
COPY conf/ /opt/intent/conf/
COPY --chown=flink:flink conf/log4j-console.properties /opt/flink/conf/
# The directories are for volumes, which take over their owner.
RUN pip install --no-cache-dir --no-deps --no-index /opt/intent/wheel/*.whl \
    && install --directory --owner=flink --group=flink /opt/intent/state /opt/intent/registry
USER 9999:9999
WORKDIR /opt/intent
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["help"]
