# Built by hand so far, unchanged: no test builds it.
# The base images are named by tag; pin them by digest where builds have to be repeatable.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/steadyhook
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY operator ./operator
RUN /opt/steadyhook/bin/pip install --no-cache-dir --constraint constraints.txt . \
    && /opt/steadyhook/bin/python -m compileall -q /opt/steadyhook/lib

FROM python:3.13-slim
COPY --from=build /opt/steadyhook /opt/steadyhook
# The account is named by number, as runAsNonRoot cannot check a name. LOGNAME is what kopf names its peers by; without
# it the lookup of an account that is not in /etc/passwd would fail. The root may be read-only: no bytecode is written.
ENV PATH=/opt/steadyhook/bin:$PATH \
    LOGNAME=steadyhook \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080 9443
ENTRYPOINT ["kopf", "run"]
CMD ["--module=steadyhook.manager", "--module=steadyhook.example", "--peering=steadyhook"]
