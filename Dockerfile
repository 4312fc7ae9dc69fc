# onnxprune in a slim image, with the versions of requirements.txt. Build and use:
#   docker build -t onnxprune .
#   docker run --rm --network none -v "$PWD:/models" onnxprune run recipe.yaml
FROM python:3.11-slim

COPY requirements.txt /src/
RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-compile -r /src/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY onnxprune /src/onnxprune
RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-deps /src \
    && useradd --create-home onnxprune

USER onnxprune
WORKDIR /models
ENTRYPOINT ["onnxprune"]
CMD ["--help"]
